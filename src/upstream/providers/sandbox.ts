import { PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Weir's own provider for demonstrations and tests. Demo mode starts it and gives its base URL. */
export const sandbox: ProviderFacts = {
  id: 'sandbox',
  company: 'Weir sandbox',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'none',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: { base_url: null, path: '/rerank' },
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: { headers_timeout_ms: 30_000, first_event_timeout_ms: 60_000, silence_timeout_ms: 30_000 },
  errors: [],
  rules: { ...PLAIN_RULES, output_cap: 'either' },
  variants: [],
  embeddings_batches: [],
  parameters: [],
  source: 'src/sandbox',
  as_of: '2026-11-23',
}
