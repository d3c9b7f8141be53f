import type { Attachments } from '../money/estimate.ts'
import type { PriceVersion, TradingCalendar } from '../money/price.ts'
import type { EndpointFiling, FilingRegistry } from '../routing/filings.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import type { Capacity } from '../upstream/capacity.ts'
import type { KeyPool } from '../upstream/key-pool.ts'
import type { DialectName } from '../upstream/dialects/names.ts'
import type { AuthScheme, RequestRules } from '../upstream/providers/provider.ts'
import type { TransportOptions, UpstreamTimeouts } from '../upstream/source.ts'

/** Configuration after parsing: plain, frozen, every default filled, every reference resolved. */
export interface Configuration {
  readonly settings: Settings
  readonly catalogue: Catalogue
  readonly prices: PriceBook
  /** Names that choose among models, by name. */
  readonly routes: ReadonlyMap<string, VirtualModel>
  /** `config/filings.csv`: which filing numbers exist. Empty where there is no such file. */
  readonly filings: FilingRegistry
  /** SHA-256 of the files' contents, prompts of profiles included, hex: what is running, in logs and `/readyz`. */
  readonly digest: string
}

/** `config/weir.yaml` and the environment. */
export interface Settings {
  readonly mode: 'demo' | 'production'
  readonly host: string
  readonly port: number
  readonly admin_host: string
  readonly admin_port: number
  readonly data_dir: string
  readonly limits: GatewayLimits
  readonly drain: { readonly delay_ms: number; readonly timeout_ms: number }
  readonly journal: { readonly commit_timeout_ms: number; readonly keep_days: number }
  /** What this machine's processes do. */
  readonly roles: readonly Role[]
  /** Gateway processes on this machine. */
  readonly workers: number
  /** Null in embedded mode. */
  readonly cluster: ClusterSettings | null
  readonly log: { readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' }
  readonly cors: { readonly origins: readonly string[] }
  /** Who runs this gateway; null where nobody said. */
  readonly operator: Operator | null
  /** From HTTPS_PROXY, HTTP_PROXY and NO_PROXY. */
  readonly proxy: { readonly https: string | null; readonly http: string | null; readonly no_proxy: string | null }
}

/** Who answers for the service, as `/filings` shows it and answers are labelled. */
export interface Operator {
  readonly name: string
  /** The operator's own number: a registration, or a filing. Null where there is none. */
  readonly registration: string | null
  /** Where complaints go: a telephone number, an address, a page. */
  readonly contact: string | null
}

export type Role = 'gateway' | 'control' | 'worker'

/** Where what processes share is. The URLs carry secrets and are never logged. */
export interface ClusterSettings {
  readonly redis_url: string
  readonly database_url: string
  readonly redis_timeout_ms: number
  /** Most events that wait in the usage stream of one of the 256 buckets. */
  readonly stream_cap: number
}

/** Every written limit of the gateway. */
export interface GatewayLimits {
  readonly max_body_bytes: number
  readonly max_answer_bytes: number
  readonly max_event_bytes: number
  readonly max_header_bytes: number
  readonly max_json_depth: number
  readonly max_open_requests: number
  /** Share of `max_open_requests` one tenant may have open, in percent. */
  readonly tenant_share_percent: number
  readonly max_connections: number
  readonly headers_timeout_ms: number
  readonly request_timeout_ms: number
  readonly idle_timeout_ms: number
  /** Longest life of one request, every try included. */
  readonly total_timeout_ms: number
  readonly max_attempts: number
  /** Longest time that a request waits for room at an endpoint, in all. */
  readonly queue_timeout_ms: number
  /** Most requests of this process that wait for room. */
  readonly max_queued_requests: number
  /** Most of one tenant. */
  readonly max_queued_per_tenant: number
  /** Output tokens a stream reserves at a time. */
  readonly slice_tokens: number
  readonly keepalive_after_ms: number
  readonly drain_abort_timeout_ms: number
  readonly upstream_connections_per_origin: number
}

export interface Endpoint {
  readonly id: string
  readonly provider: string
  /** The provider whose facts describe it: its own, but for stand-ins. */
  readonly plays: string
  readonly dialect: DialectName
  readonly auth: AuthScheme
  readonly base_url: string
  readonly chat_path: string
  readonly embeddings_path: string | null
  readonly rerank_path: string | null
  /** What it wants of requests: the provider's rules for this model, and the catalogue's. */
  readonly rules: RequestRules
  /** Most inputs of one embeddings request; null where no limit is known. */
  readonly embeddings_batch: number | null
  readonly upstream_model: string
  /** Resolved secret, or null when the endpoint needs none. Never logged: non-enumerable toJSON is not relied upon, callers log ids only. */
  readonly api_key: string | null
  /** Keys were given for it alone, so that those of its provider are not used. */
  readonly own_keys: boolean
  /** Its keys where there are several; then `api_key` is null. */
  readonly key_pool: KeyPool | null
  readonly zone: 'private' | 'domestic' | 'overseas'
  /** The tenants that it is reserved for: to others it does not exist. Null: for everybody. */
  readonly tenants: readonly string[] | null
  readonly filing: EndpointFiling | null
  /** Targets of a lower tier are tried first; within a tier the weights decide. */
  readonly tier: number
  readonly weight: number
  /** What it takes of all processes together; null where nothing is to be held back. */
  readonly capacity: Capacity | null
  readonly timeouts: UpstreamTimeouts
  readonly transport: TransportOptions
  /** True only for targets that demo mode makes itself. */
  readonly sandbox: boolean
}

export interface Model {
  readonly id: string
  readonly kind: 'chat' | 'embeddings' | 'rerank'
  readonly domain: string
  /** The tenants that it is reserved for: to others it does not exist. Null: for everybody. */
  readonly tenants: readonly string[] | null
  readonly owned_by: string
  /** As written; what it is on a day is for `lifeOf` in `src/routing/lives.ts` to say. */
  readonly life: 'preview' | 'ga' | 'deprecated' | 'retired'
  /** From when on it is deprecated, ms since the epoch; null where no date was given. */
  readonly deprecated_at: number | null
  /** From when on it is not served any more; null where no date was given. */
  readonly retires_at: number | null
  /** The id of the model to use instead. */
  readonly replaced_by: string | null
  readonly context_tokens: number
  /** Null where no limit is known: then the context bounds an answer. */
  readonly max_output_tokens: number | null
  /** Null where it is not known. */
  readonly thinking: 'never' | 'on_request' | 'by_default' | 'always' | null
  readonly tokenizer: 'qwen3' | 'deepseek_v3' | 'general' | 'sandbox'
  /** Tokens reserved for one attachment of each kind. */
  readonly attachment_tokens: Attachments
  readonly capabilities: readonly string[]
  /** Null for a model that is none. */
  readonly profile: Profile | null
  /** Unix seconds for `GET /v1/models`. */
  readonly created: number
  /** Callable endpoints: those whose key is set. */
  readonly endpoints: readonly Endpoint[]
  /** Why other endpoints are not callable, e.g. `DEEPSEEK_API_KEY is not set`. */
  readonly inactive: readonly InactiveEndpoint[]
}

/** A model that is another one with the operator's words put before the caller's: that one's endpoints serve it. */
export interface Profile {
  /** The model that it is a profile of. */
  readonly of: string
  /** The operator's system prompt. Never shown to a caller, never logged. */
  readonly system: string
  /** Tools as in a chat request, beside the caller's own. */
  readonly tools: readonly Readonly<Record<string, unknown>>[]
  /** Where the caller gives none. */
  readonly temperature: number | null
  readonly top_p: number | null
}

export interface InactiveEndpoint {
  readonly endpoint: string
  readonly reason: string
  /** What it would be with a key. */
  readonly target: Endpoint
}

export interface Catalogue {
  readonly models: ReadonlyMap<string, Model>
  /** Alias → model id. */
  readonly aliases: ReadonlyMap<string, string>
}

export interface PriceBook {
  readonly calendar: TradingCalendar
  /** Sell side by model id, newest `effective_from` first. */
  readonly sell: ReadonlyMap<string, readonly PriceVersion[]>
  /** Cost side by endpoint id. */
  readonly cost: ReadonlyMap<string, readonly PriceVersion[]>
}

/** One mistake in the configuration. `path` is where in the file, `expected` what would be right. */
export interface ConfigIssue {
  readonly file: string
  readonly path: string
  readonly line: number | null
  readonly message: string
  readonly expected: string
}
