import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Baidu's Qianfan (千帆), version 2, which is OpenAI's form; and version 1, its own. */
export const qianfan: ProviderFacts = {
  id: 'qianfan',
  company: 'Baidu 百度千帆 ERNIE',
  entities: ['北京百度网讯科技有限公司'],
  base_url: 'https://qianfan.baidubce.com/v2',
  key_variable: 'QIANFAN_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: null },
  rerank: null,
  natives: [
    {
      dialect: 'qianfan_v1',
      base_url: 'https://aip.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop',
      path: '/chat/{model}',
      auth: 'bce',
    },
  ],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'unsafe_request', kind: 'content' },
    { code: 'system_unsafe', kind: 'content' },
    { code: 'characters_too_long', kind: 'context_length' },
    { code: 'tokens_too_long', kind: 'context_length' },
    { code: 'invalid_model', kind: 'model_missing' },
    { code: 'access_denied', kind: 'auth' },
    { code: 'invalid_iam_token', kind: 'auth' },
    { code: 'rate_limit_exceeded', kind: 'rate' },
    // Version 1 says everything with HTTP 200.
    { code: 17, kind: 'quota' },
    { code: 4, kind: 'rate' },
    { code: 18, kind: 'rate' },
    { code: 19, kind: 'rate' },
    { code: 336501, kind: 'rate' },
    { code: 336502, kind: 'rate' },
    { code: 13, kind: 'auth' },
    { code: 14, kind: 'auth' },
    { code: 100, kind: 'auth' },
    { code: 110, kind: 'auth' },
    { code: 111, kind: 'auth' },
    { code: 336007, kind: 'context_length' },
    { code: 336103, kind: 'context_length' },
  ],
  rules: {
    ...PLAIN_RULES,
    output_cap: 'max_completion_tokens',
    thinking: { switch: 'enable_thinking', efforts: [], budget: { min: 100, max: 16_384 } },
  },
  variants: [],
  embeddings_batches: [
    { models: /^tao-8k/i, inputs: 1 },
    { models: /./, inputs: 16 },
  ],
  parameters: [
    { name: 'web_search', note: '{enable, enable_citation, enable_trace}; search adds billed prompt tokens and a price per call' },
    { name: 'temperature', note: 'version 1: above 0, at most 1' },
    { name: 'need_clear_history', note: 'in an answer: the conversation must be dropped for its content' },
  ],
  source: 'https://cloud.baidu.com/doc/qianfan-api/s/Om9b4yj3w and https://ai.baidu.com/ai-doc/WENXINWORKSHOP/Wlqatm587',
  as_of: '2025-12-23',
}
