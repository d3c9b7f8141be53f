import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** SenseTime's SenseNova (商汤日日新). The key is an API key, or `access_key_id.access_key_secret`. */
export const sensenova: ProviderFacts = {
  id: 'sensenova',
  company: 'SenseTime 商汤 日日新',
  entities: ['上海商汤智能科技有限公司'],
  base_url: 'https://api.sensenova.cn/compatible-mode/v1',
  key_variable: 'SENSENOVA_API_KEY',
  auth: 'jwt_iss',
  paths: { chat: '/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  // Codes of gRPC, whatever the HTTP status.
  errors: [
    { code: 3, kind: 'invalid' },
    { code: 7, kind: 'auth' },
    { code: 16, kind: 'auth' },
    { code: 8, kind: 'rate' },
    { code: 5, kind: 'model_missing' },
    { code: 4, kind: 'server' },
    { code: 2, kind: 'server' },
  ],
  rules: { ...PLAIN_RULES, ranges: { temperature: { min: 0.01, max: 2 }, top_p: { min: 0.01, max: 0.99 } } },
  variants: [
    { models: /^SenseNova-V6-5/i, rules: { thinking: { switch: 'thinking_enabled', efforts: [], budget: null } } },
    {
      models: /^SenseNova-6\.7-Flash-Lite/i,
      rules: { refused: ['response_format'], thinking: { switch: null, efforts: [], budget: null }, history: 'remove' },
    },
  ],
  embeddings_batches: [],
  parameters: [
    { name: 'response_format', note: '6.7 Flash-Lite refuses it, and every member that is not documented' },
    { name: 'tools[].function.strict', note: '6.7 Flash-Lite refuses it' },
  ],
  source: 'https://www.sensecore.cn/help/docs/model-as-a-service/nova',
  as_of: '2026-02-10',
}
