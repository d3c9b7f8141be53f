import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** MiniMax (稀宇科技), as documented at platform.minimaxi.com. Its embeddings have a form of their own and are not served. */
export const minimax: ProviderFacts = {
  id: 'minimax',
  company: 'MiniMax 稀宇科技',
  entities: ['上海稀宇科技有限公司', '上海稀宇极智科技有限公司'],
  base_url: 'https://api.minimaxi.com/v1',
  key_variable: 'MINIMAX_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: 'https://api.minimaxi.com/anthropic', path: '/v1/messages', auth: 'x_api_key' }],
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  // Errors come with HTTP 200, in `base_resp`.
  errors: [
    { code: 1002, kind: 'rate' },
    { code: 1039, kind: 'rate' },
    { code: 1041, kind: 'rate' },
    { code: 2045, kind: 'rate' },
    { code: 2056, kind: 'quota' },
    { code: 1004, kind: 'auth' },
    { code: 2049, kind: 'auth' },
    { code: 1008, kind: 'balance' },
    { code: 1026, kind: 'content' },
    { code: 1027, kind: 'content' },
    { code: 1042, kind: 'invalid' },
    { code: 2013, kind: 'invalid' },
    { code: 1000, kind: 'server' },
    { code: 1001, kind: 'server' },
    { code: 1013, kind: 'server' },
    { code: 1024, kind: 'server' },
    { code: 1033, kind: 'server' },
  ],
  rules: {
    ...PLAIN_RULES,
    output_cap: 'max_completion_tokens',
    ranges: { temperature: { min: 0.01, max: 1 }, top_p: { min: 0.01, max: 1 } },
    max_choices: 1,
    history: 'details',
    // Without it the thinking is inside the content, between <think> and </think>.
    defaults: { reasoning_split: true },
    thinking: { switch: null, always: true, efforts: [], budget: null },
  },
  variants: [
    { models: /^MiniMax-M3/i, rules: { thinking: { switch: 'thinking_type', on: 'adaptive', efforts: [], budget: null } } },
    { models: /^MiniMax-Text/i, rules: { thinking: null, history: 'as_is', defaults: {} } },
  ],
  embeddings_batches: [],
  parameters: [
    { name: 'model', note: 'upper and lower case matter: MiniMax-M2.7' },
    { name: 'thinking', note: 'M3: adaptive or disabled; M2.x always thinks' },
    { name: 'messages', note: 'reasoning_details must come back unchanged in earlier turns' },
    { name: 'tool_choice', note: 'not documented, as penalties, response_format and seed' },
  ],
  source: 'https://platform.minimaxi.com errorcode.md and pricing-paygo.md',
  as_of: '2026-08-06',
}
