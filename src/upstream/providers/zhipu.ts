import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Zhipu's GLM (智谱), as documented at docs.bigmodel.cn. */
export const zhipu: ProviderFacts = {
  id: 'zhipu',
  company: 'Zhipu 智谱 (Z.ai) GLM',
  entities: ['北京智谱华章科技有限公司'],
  base_url: 'https://open.bigmodel.cn/api/paas/v4',
  key_variable: 'ZHIPU_API_KEY',
  auth: 'jwt_zhipu',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: null },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: 'https://open.bigmodel.cn/api/anthropic', path: '/v1/messages', auth: 'x_api_key' }],
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: '1301', kind: 'content' },
    // An account in arrears, said with HTTP 429: waiting does not help.
    { code: '1113', kind: 'balance' },
    { code: '1302', kind: 'rate' },
    { code: '1303', kind: 'rate' },
    { code: '1305', kind: 'overload' },
    { code: '1312', kind: 'overload' },
    // Per day, per window of a plan, fair use: they do not come back within a retry.
    { code: '1304', kind: 'quota' },
    { code: '1308', kind: 'quota' },
    { code: '1310', kind: 'quota' },
    { code: '1313', kind: 'quota' },
    { code: '1000', kind: 'auth' },
    { code: '1001', kind: 'auth' },
    { code: '1002', kind: 'auth' },
    { code: '1003', kind: 'auth' },
    { code: '1004', kind: 'auth' },
    { code: '1211', kind: 'model_missing' },
    { code: '1261', kind: 'context_length' },
    { status: 434, kind: 'auth' },
    { status: 435, kind: 'invalid' },
  ],
  rules: { ...PLAIN_RULES, thinking: { switch: 'thinking_type', efforts: [], budget: null } },
  variants: [
    {
      models: /^glm-(3|4-|4v|zero|z1)|^(charglm|emohaa|codegeex)/i,
      rules: { ranges: { temperature: { min: 0.01, max: 0.99 }, top_p: { min: 0.01, max: 0.99 } }, thinking: null },
    },
    { models: /^glm-4v$/i, rules: { max_output_tokens: 1024 } },
    {
      models: /^glm-5\.3$/i,
      rules: { thinking: { switch: 'thinking_type', always: true, efforts: ['low', 'high', 'max'], budget: null } },
    },
  ],
  embeddings_batches: [{ models: /./, inputs: 64 }],
  parameters: [
    { name: 'tool_stream', note: 'true for arguments of tools piece by piece' },
    { name: 'stop', note: 'with glm-4v-plus the answer breaks off (network_error)' },
    { name: 'tools', note: 'web search is a tool {"type":"web_search"}' },
  ],
  source: 'https://docs.bigmodel.cn/cn/api/api-code',
  as_of: '2026-09-30',
}
