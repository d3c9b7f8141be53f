import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

const HOST = 'https://dashscope.aliyuncs.com'

/** Alibaba Cloud Model Studio (百炼): DashScope's OpenAI-compatible mode, and its own API. */
export const qwen: ProviderFacts = {
  id: 'qwen',
  company: 'Alibaba 阿里云百炼 DashScope',
  entities: ['阿里巴巴达摩院（杭州）科技有限公司'],
  base_url: `${HOST}/compatible-mode/v1`,
  key_variable: 'DASHSCOPE_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: { base_url: `${HOST}/compatible-api/v1`, path: '/reranks' },
  natives: [
    { dialect: 'qwen_native', base_url: `${HOST}/api/v1`, path: '/services/aigc/text-generation/generation', auth: 'bearer' },
    { dialect: 'anthropic', base_url: `${HOST}/apps/anthropic`, path: '/v1/messages', auth: 'x_api_key' },
  ],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'arrearage', kind: 'balance' },
    { code: 'data_inspection_failed', kind: 'content' },
    { code: 'datainspectionfailed', kind: 'content' },
    { message: 'range of input length', kind: 'context_length' },
    { code: 'modelnotfound', kind: 'model_missing' },
    { code: 'model_not_found', kind: 'model_missing' },
    { code: 'allocationquota.freetieronly', kind: 'quota' },
    // "Allocated quota" is the account's tokens per minute, which come back by themselves; no money is missing.
    { code: 'throttling.allocationquota', kind: 'rate' },
    { code: 'insufficient_quota', message: 'allocated quota exceeded', kind: 'rate' },
    { code: 'throttling', kind: 'rate' },
    { code: 'throttling.ratequota', kind: 'rate' },
    { code: 'throttling.burstrate', kind: 'rate' },
    { code: 'limit_requests', kind: 'rate' },
    // Comes with an HTTP status that need not be 503.
    { code: 'serviceunavailable', kind: 'overload' },
    { code: 'invalidapikey', kind: 'auth' },
    { code: 'invalid_api_key', kind: 'auth' },
  ],
  rules: {
    ...PLAIN_RULES,
    // Both are refused at their ends: top_p is strictly between 0 and 1, temperature below 2.
    ranges: { top_p: { min: 0.000001, max: 0.999999 }, temperature: { min: 0, max: 1.999999 } },
    thinking: { switch: 'enable_thinking', efforts: [], budget: { min: 1, max: 1_000_000 } },
  },
  variants: [
    {
      models: /^qwen3\.8-max/i,
      rules: { thinking: { switch: 'enable_thinking', efforts: ['none', 'low', 'medium', 'xhigh'], budget: null } },
    },
    { models: /^deepseek-v4/i, rules: { thinking: { switch: 'enable_thinking', efforts: ['high', 'max'], budget: null } } },
    { models: /^(qwq|qvq)/i, rules: { streams_only: true, thinking: { switch: null, always: true, efforts: [], budget: null } } },
  ],
  embeddings_batches: [
    { models: /^text-embedding-v[12]/, inputs: 25 },
    { models: /^text-embedding-v[34]/, inputs: 10 },
  ],
  parameters: [
    { name: 'enable_thinking', note: 'top-level; open-weight qwen3 models (not -2507) need false when not streamed' },
    { name: 'thinking_budget', note: 'top-level' },
    { name: 'stream', note: 'qwq models only stream' },
    { name: 'reasoning_effort', note: 'qwen3.8-max: xhigh (default), medium, low, none; hosted DeepSeek V4: high, max' },
    { name: 'top_p', note: 'strictly between 0 and 1' },
    { name: 'temperature', note: 'from 0, below 2' },
    { name: 'frequency_penalty', note: 'not supported' },
    { name: 'max_tokens', note: 'out of range is refused: "Range of max_tokens should be [1, ...]"' },
    { name: 'enable_search', note: 'with search_options' },
    { name: 'input', note: 'embeddings: text-embedding-v1 and v2 take 25 texts of 2048 tokens, v3 and v4 take 10 of 8192' },
    { name: 'dimensions', note: 'embeddings: 2048 and 1536 only with v4' },
  ],
  source:
    'https://help.aliyun.com/zh/model-studio/error-code and https://help.aliyun.com/zh/model-studio/compatibility-of-openai-with-dashscope',
  as_of: '2026-08-07',
}
