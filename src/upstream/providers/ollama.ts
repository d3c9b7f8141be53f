import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Ollama, run by oneself. The base URL to configure ends in `/v1`, e.g. `http://host:11434/v1`. */
export const ollama: ProviderFacts = {
  id: 'ollama',
  company: 'self-hosted Ollama',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'none',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: null, path: '/messages', auth: 'none' }],
  usage_place: 'own_chunk',
  done_is_finish: false,
  // The first request after a pause loads the model, which takes minutes on a slow disk.
  timeouts: PATIENT,
  errors: [
    { message: 'not found, try pulling it first', kind: 'model_missing' },
    { message: 'server busy', kind: 'overload' },
  ],
  // `n` is ignored: one choice would come, however many were paid for.
  rules: { ...PLAIN_RULES, max_choices: 1 },
  variants: [],
  embeddings_batches: [],
  parameters: [
    { name: 'tool_choice', note: 'not supported' },
    { name: 'n', note: 'not supported: more than one is refused here' },
    { name: 'user', note: 'not supported' },
    { name: 'logit_bias', note: 'not supported' },
    { name: 'messages', note: 'a prompt longer than the context is cut without an error; only the server log says so' },
  ],
  source: 'ollama/ollama server/routes.go and openai/',
  as_of: '2026-11-23',
}
