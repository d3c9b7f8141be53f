import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** DeepSeek's open platform, as documented at api-docs.deepseek.com. */
export const deepseek: ProviderFacts = {
  id: 'deepseek',
  company: 'DeepSeek 深度求索',
  entities: ['北京深度求索人工智能基础技术研究有限公司'],
  base_url: 'https://api.deepseek.com',
  key_variable: 'DEEPSEEK_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: '/models' },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: 'https://api.deepseek.com/anthropic', path: '/v1/messages', auth: 'x_api_key' }],
  usage_place: 'finish_chunk',
  done_is_finish: false,
  // A queued request gets blank lines or ": keep-alive" comments, and is closed if inference has not begun after 10 minutes.
  timeouts: PATIENT,
  errors: [
    { status: 402, kind: 'balance' },
    { message: 'insufficient balance', kind: 'balance' },
    { status: 400, message: 'model not exist', kind: 'model_missing' },
    { status: 400, message: 'content exists risk', kind: 'content' },
    { status: 422, kind: 'invalid' },
  ],
  rules: {
    ...PLAIN_RULES,
    thinking: { switch: 'thinking_type', efforts: ['low', 'high', 'max'], budget: null },
    history: 'tool_calls',
  },
  // R1 refuses what V4 demands.
  variants: [{ models: /^deepseek-(reasoner|r1)/i, rules: { history: 'remove', thinking: null } }],
  embeddings_batches: [],
  parameters: [
    { name: 'thinking', note: '{"type":"enabled"|"disabled"}; on by default since V4' },
    { name: 'reasoning_effort', note: 'low, high or max; minimal counts as low, medium as high, xhigh as max' },
    { name: 'temperature', note: 'ignored while thinking, as are top_p and both penalties' },
    { name: 'messages', note: 'V4 wants reasoning_content back on assistant turns with tool calls; R1 refuses it' },
    { name: 'seed', note: 'not supported' },
    { name: 'top_k', note: 'not supported' },
    { name: 'user_id', note: 'at most 512 bytes; partitions cache, content safety and scheduling' },
  ],
  source: 'https://api-docs.deepseek.com/quick_start/error_codes and https://api-docs.deepseek.com/quick_start/rate_limit',
  as_of: '2026-08-17',
}
