import type { ProviderFacts } from './provider.ts'

/** DeepSeek's open platform, as documented at api-docs.deepseek.com. */
export const deepseek: ProviderFacts = {
  id: 'deepseek',
  company: 'DeepSeek 深度求索',
  base_url: 'https://api.deepseek.com',
  key_variable: 'DEEPSEEK_API_KEY',
  dialect: 'openai',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: '/models' },
  usage_place: 'finish_chunk',
  // A queued request gets blank lines or ": keep-alive" comments, and is closed if inference has not begun after 10 minutes.
  timeouts: { headers_timeout_ms: 600_000, first_event_timeout_ms: 600_000, silence_timeout_ms: 300_000 },
  errors: [
    { status: 402, kind: 'balance' },
    { message: 'insufficient balance', kind: 'balance' },
    { status: 400, message: 'model not exist', kind: 'model_missing' },
    { status: 400, message: 'content exists risk', kind: 'content' },
    { status: 422, kind: 'invalid' },
  ],
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
