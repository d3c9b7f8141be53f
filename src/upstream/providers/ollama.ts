import type { ProviderFacts } from './provider.ts'

/** Ollama, run by oneself. The base URL to configure ends in `/v1`, e.g. `http://host:11434/v1`. */
export const ollama: ProviderFacts = {
  id: 'ollama',
  company: 'self-hosted Ollama',
  base_url: null,
  key_variable: null,
  dialect: 'openai',
  auth: 'none',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  usage_place: 'own_chunk',
  // The first request after a pause loads the model, which takes minutes on a slow disk.
  timeouts: { headers_timeout_ms: 600_000, first_event_timeout_ms: 600_000, silence_timeout_ms: 300_000 },
  errors: [
    { message: 'not found, try pulling it first', kind: 'model_missing' },
    { message: 'server busy', kind: 'overload' },
  ],
  parameters: [
    { name: 'tool_choice', note: 'not supported' },
    { name: 'n', note: 'not supported' },
    { name: 'user', note: 'not supported' },
    { name: 'logit_bias', note: 'not supported' },
    { name: 'messages', note: 'a prompt longer than the context is cut without an error; only the server log says so' },
  ],
  source: 'ollama/ollama server/routes.go and openai/',
  as_of: '2026-11-23',
}
