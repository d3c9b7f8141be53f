import type { Configuration, Endpoint, Model } from './config/model.ts'

/** Long enough for anything the sandbox can be told to do. */
const STANDIN_TIMEOUTS = {
  connect_timeout_ms: 5000,
  headers_timeout_ms: 60_000,
  first_event_timeout_ms: 60_000,
  silence_timeout_ms: 60_000,
}
const DIRECT = { ca_file: null, cert_file: null, key_file: null, proxy: null }

/**
 * The configuration of a demo: every model whose provider key is not set is answered by the sandbox instead,
 * under the same name and price. Where a key is set, the real endpoint serves. Never used in production mode.
 */
export function withStandIns(configuration: Configuration, sandbox_url: string): Configuration {
  const models = [...configuration.catalogue.models].map(([id, model]): [string, Model] => [id, standInFor(model, sandbox_url)])
  return Object.freeze({ ...configuration, catalogue: Object.freeze({ ...configuration.catalogue, models: new Map(models) }) })
}

function standInFor(model: Model, sandbox_url: string): Model {
  if (model.endpoints.length > 0) return model
  const endpoint: Endpoint = {
    id: `sandbox/${model.id}`,
    provider: 'sandbox',
    dialect: 'openai',
    base_url: `${sandbox_url}/v1`,
    chat_path: '/chat/completions',
    embeddings_path: '/embeddings',
    upstream_model: model.id,
    api_key: null,
    zone: 'private',
    filing: null,
    tier: 1,
    weight: 1,
    timeouts: STANDIN_TIMEOUTS,
    transport: DIRECT,
    sandbox: true,
  }
  return Object.freeze({ ...model, endpoints: Object.freeze([Object.freeze(endpoint)]) })
}
