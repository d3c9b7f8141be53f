import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Xinference, run by oneself. The base URL to configure ends in `/v1`, e.g. `http://host:9997/v1`; a model is its model_uid. */
export const xinference: ProviderFacts = {
  id: 'xinference',
  company: 'self-hosted Xinference',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'optional_bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: { base_url: null, path: '/rerank' },
  natives: [{ dialect: 'anthropic', base_url: null, path: '/messages', auth: 'optional_bearer' }],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { status: 400, message: 'model not found', kind: 'model_missing' },
    { status: 429, kind: 'overload' },
  ],
  rules: PLAIN_RULES,
  variants: [],
  embeddings_batches: [],
  parameters: [],
  source: 'xorbitsai/inference restful_api',
  as_of: '2026-11-23',
}
