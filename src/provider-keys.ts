import { type MasterKeys, openSecret, SealBroken } from './base/envelope.ts'
import type { Catalogue, Configuration, Endpoint, Model } from './config/model.ts'
import { originsOf } from './config/origins.ts'
import { type ReferenceSources, resolveSecret } from './config/references.ts'
import { boundTo, isReference, type ProviderKeyRecord } from './storage/records.ts'
import type { KeyPool, ProviderKey } from './upstream/key-pool.ts'
import { PROVIDERS } from './upstream/providers/registry.ts'

/** Keys that were entered through the API, opened, by provider. */
export type OpenedKeys = ReadonlyMap<string, readonly ProviderKey[]>

export interface KeyTrouble {
  readonly key: string
  readonly reason: string
}

/** Opens the keys that are in use. One that cannot be opened is left out, and told. */
export function openProviderKeys(
  records: readonly ProviderKeyRecord[],
  masters: MasterKeys | null,
  sources: ReferenceSources,
): { readonly keys: OpenedKeys; readonly troubles: readonly KeyTrouble[] } {
  const keys = new Map<string, ProviderKey[]>()
  const troubles: KeyTrouble[] = []
  for (const record of records) {
    if (record.status !== 'active') continue
    const opened = openOne(record, masters, sources)
    if ('reason' in opened) {
      troubles.push({ key: record.id, reason: opened.reason })
      continue
    }
    const { id, name, weight, provider, concurrency, requests_per_minute, tokens_per_minute } = record
    const limited = concurrency !== null || requests_per_minute !== null || tokens_per_minute !== null
    const capacity = limited ? { concurrency, requests_per_minute, tokens_per_minute } : null
    const key = { id, name, secret: opened.secret, weight, capacity }
    keys.set(provider, [...(keys.get(provider) ?? []), key])
  }
  return { keys, troubles }
}

function openOne(
  record: ProviderKeyRecord,
  masters: MasterKeys | null,
  sources: ReferenceSources,
): { readonly secret: string } | { readonly reason: string } {
  if (isReference(record.secret)) return resolveSecret(record.secret, sources)
  if (masters === null) return { reason: 'is sealed, and WEIR_MASTER_KEY_FILE is not set' }
  try {
    return { secret: openSecret(record.secret, boundTo(record), masters) }
  } catch (error) {
    if (error instanceof SealBroken) return { reason: error.message }
    throw error
  }
}

/**
 * The configuration with the keys of the API beside those of the catalogue: they join the pool of their provider, and endpoints that lacked
 * a key serve. An endpoint with keys of its own keeps to them. Where both know a key of one name, the API's is taken. Servers that are run by
 * oneself in several places get none: a key is of one account, and must not go from one data centre to another.
 */
export function withProviderKeys(configuration: Configuration, keys: OpenedKeys): Configuration {
  if (keys.size === 0) return configuration
  const { catalogue, prices } = configuration
  const usable = new Map([...keys].filter(([provider]) => isOneAccount(catalogue, provider)))
  const models = [...catalogue.models].map(([id, model]): [string, Model] => [id, prices.sell.has(id) ? withKeys(model, usable) : model])
  return Object.freeze({ ...configuration, catalogue: Object.freeze({ ...catalogue, models: new Map(models) }) })
}

/** Whether one key can be for all endpoints of a provider: it is a company's service, or one server. */
export function isOneAccount(catalogue: Catalogue, provider: string): boolean {
  return PROVIDERS.get(provider)?.base_url !== null || originsOf(catalogue, provider).size <= 1
}

/** Keys as if every one could be opened: for who asks where prompts can go, and sends nothing. */
export function namedKeys(records: readonly ProviderKeyRecord[]): OpenedKeys {
  const active = records.filter(({ status }) => status === 'active')
  const named = active.map(({ id, name, weight, provider }) => ({ provider, key: { id, name, weight, secret: '', capacity: null } }))
  return new Map([...Map.groupBy(named, ({ provider }) => provider)].map(([provider, list]) => [provider, list.map(({ key }) => key)]))
}

function withKeys(model: Model, keys: OpenedKeys): Model {
  const joined = (endpoint: Endpoint): Endpoint | null => {
    const more = keys.get(endpoint.provider)
    if (more === undefined || endpoint.own_keys || endpoint.auth === 'none') return null
    return Object.freeze({ ...endpoint, api_key: null, key_pool: poolOf(endpoint, more) })
  }
  const endpoints = model.endpoints.map((endpoint) => joined(endpoint) ?? endpoint)
  const woken = model.inactive.flatMap(({ target }) => joined(target) ?? [])
  const ids = new Set(woken.map(({ id }) => id))
  const inactive = model.inactive.filter(({ endpoint }) => !ids.has(endpoint))
  return Object.freeze({ ...model, endpoints: Object.freeze([...endpoints, ...woken]), inactive: Object.freeze(inactive) })
}

function poolOf({ provider, api_key, key_pool }: Endpoint, more: readonly ProviderKey[]): KeyPool {
  const id = `${provider}/api_key`
  const single = api_key === null ? [] : [{ id, name: 'api_key', secret: api_key, weight: 1, capacity: null }]
  const names = new Set(more.map(({ name }) => name))
  const others = [...(key_pool?.keys ?? []), ...single].filter(({ name }) => !names.has(name))
  return Object.freeze({ id: provider, keys: Object.freeze([...others, ...more]) })
}
