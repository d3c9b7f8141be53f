import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/**
 * Chat assistants of RAGFlow, run by oneself. The base URL to configure ends in `/api/v1`, e.g. `http://ragflow:9380/api/v1`;
 * `upstream_model` is the assistant's id.
 */
export const ragflow: ProviderFacts = {
  id: 'ragflow',
  company: 'self-hosted RAGFlow',
  entities: [],
  base_url: null,
  overseas_hosts: ['ragflow.io'],
  key_variable: null,
  auth: 'bearer',
  paths: { chat: '/chats_openai/{model}/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [{ dialect: 'ragflow', base_url: null, path: '/chats_openai/{model}/chat/completions', auth: 'bearer' }],
  speaks: 'ragflow',
  usage_place: 'finish_chunk',
  done_is_finish: false,
  // A model that fails is told as an answer, which then ends as if all were well.
  text_quirks: { error_begins: '**ERROR**', repeats_answer: true },
  timeouts: PATIENT,
  errors: [
    // Errors come with HTTP 200.
    { message: "don't own the chat", kind: 'model_missing' },
    { code: 109, kind: 'auth' },
    { code: 108, kind: 'auth' },
    { code: 101, kind: 'invalid' },
    { code: 102, kind: 'invalid' },
    { code: 103, kind: 'server' },
    { code: 105, kind: 'server' },
    { code: 106, kind: 'overload' },
    { code: 100, kind: 'server' },
  ],
  rules: { ...PLAIN_RULES, max_choices: 1 },
  variants: [],
  embeddings_batches: [],
  parameters: [
    {
      name: 'messages',
      note: 'texts; the last one must be of the user; system messages are left out by the server, so their words go before the first question',
    },
    {
      name: 'extra_body',
      note: '{reference, reference_metadata, metadata_condition}; with references, streams repeat the answer with its citations',
    },
    { name: 'temperature, max_tokens, tools', note: 'the assistant decides' },
  ],
  source: 'infiniflow/ragflow api/apps/sdk/session.py at commit 0068b34',
  as_of: '2026-11-28',
}
