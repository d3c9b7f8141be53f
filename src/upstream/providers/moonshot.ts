import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Moonshot's Kimi (月之暗面), as documented at platform.kimi.com. */
export const moonshot: ProviderFacts = {
  id: 'moonshot',
  company: 'Moonshot AI 月之暗面 Kimi',
  entities: ['北京月之暗面科技有限公司'],
  base_url: 'https://api.moonshot.cn/v1',
  key_variable: 'MOONSHOT_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: '/models' },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: 'https://api.moonshot.cn/anthropic', path: '/v1/messages', auth: 'x_api_key' }],
  usage_place: 'choice',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'content_filter', kind: 'content' },
    { message: 'considered high risk', kind: 'content' },
    { message: 'exceeded model token limit', kind: 'context_length' },
    { message: 'total message size', kind: 'context_length' },
    { message: 'insufficient balance', kind: 'balance' },
    { code: 'exceeded_current_quota_error', kind: 'balance' },
    { code: 'invalid_authentication_error', kind: 'auth' },
    { message: 'engine is currently overloaded', kind: 'overload' },
    { code: 'permission_denied_error', kind: 'auth' },
  ],
  rules: { ...PLAIN_RULES, output_cap: 'max_completion_tokens' },
  variants: [
    { models: /^moonshot-v1|^kimi-latest/i, rules: { ranges: { temperature: { min: 0, max: 1 } } } },
    {
      models: /^kimi-(k2-thinking|k2\.[5-9]|k[3-9])/i,
      rules: {
        history: 'tool_calls',
        ranges: { temperature: { min: 1, max: 1 } },
        thinking: { switch: 'thinking_type', efforts: [], budget: null },
      },
    },
    {
      models: /^kimi-k2\.5/i,
      rules: {
        ranges: {
          temperature: { min: 1, max: 1, without_thinking: 0.6 },
          top_p: { min: 0.95, max: 0.95 },
          presence_penalty: { min: 0, max: 0 },
          frequency_penalty: { min: 0, max: 0 },
        },
      },
    },
    { models: /^kimi-k2-thinking/i, rules: { ranges: {}, thinking: { switch: null, always: true, efforts: [], budget: null } } },
    { models: /^kimi-k[3-9]/i, rules: { thinking: { switch: null, always: true, efforts: ['low', 'high', 'max'], budget: null } } },
  ],
  embeddings_batches: [],
  parameters: [
    { name: 'temperature', note: 'moonshot-v1: from 0 to 1; K2.5: 1, without thinking 0.6; K2.6 and later: 1 only' },
    { name: 'max_tokens', note: 'deprecated for max_completion_tokens' },
    { name: 'messages', note: 'thinking models want reasoning_content back on assistant turns with tool calls' },
    { name: 'n', note: '1 when the temperature is close to 0' },
    { name: 'image_url', note: 'remote images are not fetched: data URLs or ms:// files only' },
  ],
  source: 'https://platform.kimi.com/docs/api/errors.md and https://www.kimi.com/code/docs/kimi-code/error-reference.html',
  as_of: '2026-10-25',
}
