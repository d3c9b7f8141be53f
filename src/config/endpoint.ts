import { resolve } from 'node:path'
import type { z } from 'zod'
import type { Capacity } from '../upstream/capacity.ts'
import type { KeyPool, ProviderKey } from '../upstream/key-pool.ts'
import type { AuthScheme, ProviderFacts, RequestRules } from '../upstream/providers/provider.ts'
import type { TransportOptions } from '../upstream/source.ts'
import type { Endpoint, InactiveEndpoint, Model } from './model.ts'
import { Unset } from './references.ts'
import type { ENDPOINT, PROVIDER } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

/** Used where neither endpoint nor provider says otherwise. Far below any first-event timeout: a dial is a few round trips. */
const CONNECT_TIMEOUT_MS = 5000

export type ProviderEntry = z.output<typeof PROVIDER>
export type EndpointEntry = z.output<typeof ENDPOINT>

/** All that decides what an endpoint is. */
export interface EndpointSources {
  readonly id: string
  readonly model: string
  readonly kind: Model['kind']
  readonly thinking?: Model['thinking'] | undefined
  readonly given: EndpointEntry
  readonly provider: ProviderEntry
  readonly facts: ProviderFacts
  readonly config_dir: string
}

/** Takes a mistake: the endpoint's member, what is wrong, what was expected. */
type Complain = (key: string, message: string, expected: string) => void

/** Where and how an endpoint is spoken to. */
interface Address {
  readonly dialect: Endpoint['dialect']
  readonly base_url: string | null
  readonly auth: AuthScheme
  readonly chat_path: string
}

/** An endpoint from the provider's facts and what the catalogue says; or why it is not active; or null after a mistake. */
export function buildEndpoint(sources: EndpointSources, complain: Complain): Endpoint | InactiveEndpoint | null {
  const { id, model, kind, given, provider, facts, config_dir } = sources
  const address = addressOf(sources, complain)
  if (kind === 'embeddings' && facts.paths.embeddings === null) {
    complain('provider', `${facts.id} serves no embeddings`, 'a provider with embeddings')
  }
  if (kind === 'rerank' && facts.rerank === null) complain('provider', `${facts.id} serves no reranking`, 'a provider with reranking')
  if (address?.base_url === null) {
    complain('base_url', 'is missing', `the base URL of this ${facts.id} server, here or under providers.${facts.id}`)
  }
  if (address === null || address.base_url === null) return null
  const { api_key, key_pool } = address.auth === 'none' ? NO_KEYS : keysOf(sources)
  const upstream_model = given.upstream_model ?? model
  const target: Endpoint = {
    id,
    provider: facts.id,
    plays: facts.id,
    dialect: address.dialect,
    auth: address.auth,
    base_url: address.base_url,
    chat_path: address.chat_path.replace('{model}', encodeURIComponent(upstream_model)),
    embeddings_path: facts.paths.embeddings,
    rerank_path: facts.rerank?.path ?? null,
    upstream_model,
    api_key: api_key instanceof Unset ? null : api_key,
    own_keys: given.api_key !== undefined || given.api_keys !== undefined,
    key_pool,
    zone: given.zone ?? provider.zone ?? usualZone(facts, address.base_url),
    tenants: given.tenants ?? null,
    filing: given.filing === undefined ? null : { ...given.filing, registration: given.filing.registration ?? null, row: null },
    tier: given.tier,
    weight: given.weight,
    capacity: capacityOf(given.capacity ?? {}),
    timeouts: timeoutsOf(given, provider, facts),
    transport: transportOf(given, provider, config_dir),
    rules: rulesOf(sources, upstream_model),
    embeddings_batch: given.embeddings_batch ?? batchOf(facts, upstream_model),
    sandbox: facts.id === 'sandbox',
  }
  if (api_key instanceof Unset) return { endpoint: id, reason: api_key.reason, target }
  const needs_key = address.auth !== 'none' && address.auth !== 'optional_bearer'
  return api_key === null && key_pool === null && needs_key ? { endpoint: id, reason: noKey(facts), target } : target
}

interface Keys {
  /** {@link Unset} where no key is set of those that are named. */
  readonly api_key: string | Unset | null
  readonly key_pool: KeyPool | null
}
const NO_KEYS: Keys = { api_key: null, key_pool: null }

/** The endpoint's own key or keys, else the provider's. Of several, those that are set. */
function keysOf({ id, given, provider, facts }: EndpointSources): Keys {
  const own = given.api_key !== undefined || given.api_keys !== undefined
  const { api_key = null, api_keys } = own ? given : provider
  if (api_keys === undefined) return { api_key, key_pool: null }
  const owner = own ? id : facts.id
  const keys = api_keys.flatMap(({ key: secret, name, weight, ...limits }): ProviderKey[] =>
    secret instanceof Unset ? [] : [{ id: `${owner}/${name}`, name, secret, weight, capacity: capacityOf(limits) }],
  )
  if (keys.length > 0) return { api_key: null, key_pool: { id: owner, keys } }
  return { api_key: api_keys.map(({ key }) => key).find((key) => key instanceof Unset) ?? null, key_pool: null }
}

function capacityOf(given: NonNullable<EndpointEntry['capacity']>): Capacity | null {
  const { concurrency = null, requests_per_minute = null, tokens_per_minute = null } = given
  if (concurrency === null && requests_per_minute === null && tokens_per_minute === null) return null
  return { concurrency, requests_per_minute, tokens_per_minute }
}

/** Servers of one's own are private, unless they turn out to be the hosted service abroad. */
function usualZone({ base_url, overseas_hosts = [] }: ProviderFacts, address: string): Endpoint['zone'] {
  const { hostname } = new URL(address)
  if (overseas_hosts.some((host) => hostname === host || hostname.endsWith(`.${host}`))) return 'overseas'
  return base_url === null ? 'private' : 'domestic'
}

function addressOf({ kind, given, provider, facts }: EndpointSources, complain: Complain): Address | null {
  const own_url = given.base_url ?? provider.base_url
  const dialect = given.dialect ?? facts.speaks ?? 'openai'
  if ((dialect === 'openai' && facts.speaks === undefined) || kind !== 'chat') {
    const elsewhere = kind === 'rerank' ? facts.rerank?.base_url : null
    return { dialect: 'openai', base_url: own_url ?? elsewhere ?? facts.base_url, auth: facts.auth, chat_path: facts.paths.chat }
  }
  const native = facts.natives.find((address) => address.dialect === dialect)
  if (native === undefined) {
    const known = [...(facts.speaks === undefined ? ['openai'] : []), ...facts.natives.map((address) => address.dialect)]
    complain('dialect', `${facts.id} does not speak "${dialect}"`, expectedOneOf(dialect, known))
    return null
  }
  return { dialect: native.dialect, base_url: own_url ?? native.base_url, auth: native.auth, chat_path: native.path }
}

/** The provider's rules, those of its model, then what the catalogue knows of the model: later ones win. */
function rulesOf({ facts, given, thinking }: EndpointSources, upstream_model: string): RequestRules {
  const changes = facts.variants.filter(({ models }) => models.test(upstream_model)).map((variant) => variant.rules)
  const rules: RequestRules = Object.assign({}, facts.rules, ...changes) as RequestRules
  const max_output_tokens = given.max_output_tokens ?? rules.max_output_tokens
  if (thinking === 'never') return { ...rules, max_output_tokens, thinking: { switch: null, efforts: [], budget: null } }
  if (thinking === 'always' && rules.thinking !== null)
    return { ...rules, max_output_tokens, thinking: { ...rules.thinking, always: true } }
  return { ...rules, max_output_tokens }
}

function batchOf(facts: ProviderFacts, upstream_model: string): number | null {
  return facts.embeddings_batches.find(({ models }) => models.test(upstream_model))?.inputs ?? null
}

function noKey(facts: ProviderFacts): string {
  const variable = facts.key_variable
  return `no api_key is given for ${facts.id}` + (variable === null ? '' : ` (usually api_key: \${${variable}})`)
}

function timeoutsOf(endpoint: EndpointEntry, provider: ProviderEntry, facts: ProviderFacts): Endpoint['timeouts'] {
  const own = endpoint.timeouts ?? {}
  const shared = provider.timeouts ?? {}
  return {
    connect_timeout_ms: own.connect_timeout_ms ?? shared.connect_timeout_ms ?? CONNECT_TIMEOUT_MS,
    headers_timeout_ms: own.headers_timeout_ms ?? shared.headers_timeout_ms ?? facts.timeouts.headers_timeout_ms,
    first_event_timeout_ms: own.first_event_timeout_ms ?? shared.first_event_timeout_ms ?? facts.timeouts.first_event_timeout_ms,
    silence_timeout_ms: own.silence_timeout_ms ?? shared.silence_timeout_ms ?? facts.timeouts.silence_timeout_ms,
  }
}

function transportOf(endpoint: EndpointEntry, provider: ProviderEntry, config_dir: string): TransportOptions {
  const path = (file: string | undefined): string | null => (file === undefined ? null : resolve(config_dir, file))
  // A certificate and its key belong together, so they are never taken from different places.
  const identity = endpoint.cert_file === undefined ? provider : endpoint
  return {
    ca_file: path(endpoint.ca_file ?? provider.ca_file),
    cert_file: path(identity.cert_file),
    key_file: path(identity.key_file),
    proxy: endpoint.proxy ?? provider.proxy ?? null,
  }
}
