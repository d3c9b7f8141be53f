import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Baichuan (百川智能). */
export const baichuan: ProviderFacts = {
  id: 'baichuan',
  company: 'Baichuan 百川智能',
  entities: ['北京百川智能科技有限公司'],
  base_url: 'https://api.baichuan-ai.com/v1',
  key_variable: 'BAICHUAN_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: null,
  natives: [],
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'invalid_authentication', kind: 'auth' },
    { code: 'api_key_empty', kind: 'auth' },
    { code: 'invalid_api_key', kind: 'auth' },
    { code: 'insufficient_quota', kind: 'balance' },
    { status: 402, kind: 'balance' },
  ],
  rules: { ...PLAIN_RULES, ranges: { temperature: { min: 0, max: 1 } } },
  variants: [],
  embeddings_batches: [{ models: /./, inputs: 16 }],
  parameters: [{ name: 'input', note: 'embeddings: 16 texts of 512 tokens' }],
  source: 'the baichuan plugin of Dify and https://platform.baichuan-ai.com',
  as_of: '2026-01-26',
}
