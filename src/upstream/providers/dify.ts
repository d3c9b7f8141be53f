import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/**
 * Applications built with Dify. The base URL to configure ends in `/v1`, e.g. `https://dify.internal/v1`; a key belongs to one application,
 * so each endpoint has its own.
 */
export const dify: ProviderFacts = {
  id: 'dify',
  company: 'Dify applications',
  entities: [],
  base_url: null,
  overseas_hosts: ['dify.ai'],
  key_variable: null,
  auth: 'bearer',
  paths: { chat: '/chat-messages', embeddings: null, models: null },
  rerank: null,
  natives: [{ dialect: 'dify', base_url: null, path: '/chat-messages', auth: 'bearer' }],
  speaks: 'dify',
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'unauthorized', kind: 'auth' },
    { code: 'provider_not_initialize', kind: 'auth' },
    { code: 'provider_quota_exceeded', kind: 'quota' },
    { code: 'app_unavailable', kind: 'model_missing' },
    { code: 'model_currently_not_support', kind: 'model_missing' },
    { code: 'not_chat_app', kind: 'model_missing' },
    { code: 'too_many_requests', kind: 'rate' },
    { code: 'rate_limit_error', kind: 'rate' },
    { code: 'completion_request_error', kind: 'server' },
    { code: 'invalid_param', kind: 'invalid' },
    { code: 'bad_request', kind: 'invalid' },
    { status: 404, kind: 'model_missing' },
  ],
  // Agents only stream, and what kind an application is does not show from outside.
  rules: { ...PLAIN_RULES, max_choices: 1, streams_only: true },
  variants: [],
  embeddings_batches: [],
  parameters: [
    { name: 'inputs', note: "values of the application's variables" },
    { name: 'messages', note: 'earlier turns go in front of the last question; images by their address only' },
    { name: 'temperature, max_tokens, tools', note: 'the application decides' },
  ],
  source: 'langgenius/dify web/app/components/develop/template',
  as_of: '2026-11-28',
}
