import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** iFlytek's Spark (讯飞星火) over HTTP. The key is the APIPassword of a model; spark-x is at `…/v2`, to be configured as base_url. */
export const spark: ProviderFacts = {
  id: 'spark',
  company: 'iFlytek 科大讯飞 星火',
  entities: ['科大讯飞股份有限公司'],
  base_url: 'https://spark-api-open.xf-yun.com/v1',
  key_variable: 'SPARK_API_PASSWORD',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [],
  usage_place: 'finish_chunk',
  done_is_finish: true,
  timeouts: PATIENT,
  errors: [
    { code: 10013, kind: 'content' },
    { code: 10014, kind: 'content' },
    { code: 10015, kind: 'content' },
    { code: 10019, kind: 'content' },
    { code: 10021, kind: 'content' },
    { code: 10907, kind: 'context_length' },
    { code: 11200, kind: 'auth' },
    { code: 11201, kind: 'quota' },
    { code: 11202, kind: 'rate' },
    { code: 11203, kind: 'rate' },
    { code: 10006, kind: 'rate' },
    { code: 10007, kind: 'rate' },
    { code: 10008, kind: 'overload' },
    { code: 10110, kind: 'overload' },
    { code: 10012, kind: 'server' },
  ],
  rules: { ...PLAIN_RULES, ranges: { temperature: { min: 0.01, max: 1 }, top_k: { min: 1, max: 6 } } },
  variants: [
    {
      models: /^spark-x/i,
      rules: {
        output_cap: 'max_completion_tokens',
        ranges: { temperature: { min: 1, max: 1 }, top_p: { min: 0.95, max: 0.95 }, top_k: { min: 1, max: 6 } },
      },
    },
  ],
  embeddings_batches: [],
  parameters: [
    { name: 'tools', note: 'at most 128; a tool call of an answer is an object, not a list' },
    { name: 'usage', note: 'tokens are what the provider says: there is no exact formula' },
  ],
  source: 'https://www.xfyun.cn/doc/spark/接口说明.html',
  as_of: '2026-02-10',
}
