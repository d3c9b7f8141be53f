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
 * The configuration of a demo: every model whose provider key is not set is answered by the sandbox instead, under the same name
 * and price, and in the provider's manner. Where a key is set, the real endpoint serves. Never used in production mode.
 */
export function withStandIns(configuration: Configuration, sandbox_url: string): Configuration {
  const { catalogue, prices } = configuration
  const models = [...catalogue.models].map(([id, model]): [string, Model] => [
    id,
    prices.sell.has(id) ? standInFor(model, sandbox_url) : model,
  ])
  return Object.freeze({ ...configuration, catalogue: Object.freeze({ ...catalogue, models: new Map(models) }) })
}

function standInFor(model: Model, sandbox_url: string): Model {
  const played = model.inactive[0]?.target
  if (model.endpoints.length > 0 || played === undefined) return model
  const endpoint: Endpoint = {
    ...played,
    id: `sandbox/${model.id}`,
    provider: 'sandbox',
    base_url: `${sandbox_url}/as/${played.plays}${played.dialect === 'openai' ? '/v1' : ''}`,
    upstream_model: model.id,
    auth: 'none',
    api_key: null,
    own_keys: true,
    key_pool: null,
    zone: 'private',
    filing: null,
    tier: 1,
    weight: 1,
    // It is ours, and takes what comes.
    capacity: null,
    timeouts: STANDIN_TIMEOUTS,
    transport: DIRECT,
    sandbox: true,
  }
  return Object.freeze({ ...model, endpoints: Object.freeze([Object.freeze(endpoint)]) })
}
