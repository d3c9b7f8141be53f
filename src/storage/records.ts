/** The port of what is on record about tenants: who they are, what they may use, what was given to them, what things cost. */
import type { GrantUnit } from '../money/grant.ts'
import type { LimitKind, WindowBounds } from './ports.ts'

export interface TenantRecord {
  readonly id: string
  readonly name: string
  readonly audience: 'public' | 'internal'
  readonly status: 'active' | 'suspended'
  readonly locale: 'zh' | 'en'
  /** IANA name, for calendar windows and reports. */
  readonly time_zone: string
  readonly zones: readonly string[]
  readonly on_client_abort: 'cancel' | 'drain'
  readonly on_limits_away: 'closed' | 'open'
  readonly credit_line_nano: bigint
  readonly limits: readonly LimitSetting[]
  /** The tenant's own number, of its application (登记号) or its model (备案号), as `/filings` shows it. */
  readonly registration_number: string | null
  /** Names the tenant's page under `/filings`; no two tenants have the same. Null where it has none. */
  readonly public_slug: string | null
  /** Whether Weir puts a text that says so into each generated answer, or leaves that to the tenant's application. */
  readonly label: 'none' | 'explicit'
  /** That text; null for the one of the tenant's locale. */
  readonly label_text: string | null
  readonly label_place: 'start' | 'end'
  /** The class in which its requests wait where upstreams have no room. */
  readonly priority: 'high' | 'normal' | 'low'
  /** Its parts of what its class is served, from 1 to {@link MAX_QUEUE_WEIGHT}. */
  readonly queue_weight: number
  readonly created_at: number
}
/** Largest weight of a tenant among those that wait. */
export const MAX_QUEUE_WEIGHT = 100

/** What a tenant shows, labels and has of a queue as long as nobody said otherwise, also in what releases before these members wrote. */
export const TENANT_DEFAULTS = {
  registration_number: null,
  public_slug: null,
  label: 'none',
  label_text: null,
  label_place: 'start',
  priority: 'normal',
  queue_weight: 1,
} as const satisfies Partial<TenantRecord>

/** A limit as stored: the window is named, its boundaries are computed at admission. */
export interface LimitSetting {
  readonly kind: LimitKind
  readonly model: string | null
  readonly limit: string
  readonly window: WindowBounds['name'] | null
}
export interface ProjectRecord {
  readonly id: string
  readonly tenant: string
  readonly name: string
  readonly limits: readonly LimitSetting[]
  readonly zones: readonly string[] | null
  readonly created_at: number
}
export interface KeyRecord {
  readonly id: string
  readonly tenant: string
  readonly project: string
  readonly name: string
  /** SHA-256 of the secret, hex. */
  readonly hash: string
  /** The secret's last four characters, so that a person can tell keys apart. */
  readonly last4: string
  readonly scopes: readonly string[]
  /** Catalogue models or routes this key may call; null allows all of the tenant's. */
  readonly models: readonly string[] | null
  readonly zones: readonly string[] | null
  readonly limits: readonly LimitSetting[]
  readonly expires_at: number | null
  readonly revoked_at: number | null
  readonly created_at: number
}
export interface GrantRecord {
  readonly id: string
  readonly tenant: string
  readonly kind: 'wallet' | 'subscription' | 'pack' | 'contract' | 'promo'
  readonly unit: GrantUnit
  readonly amount: bigint
  readonly priority: number
  /** Catalogue models that it pays for; null pays for all. */
  readonly models: readonly string[] | null
  /** Units that one token takes, per model, as decimal strings with at most 6 decimals up to 100; a model that is not named takes 1. For `tokens` only. */
  readonly weights: Readonly<Record<string, string>> | null
  readonly expires_at: number | null
  readonly created_at: number
}
/** What a tenant says of its own traffic: words and samples that tell domains, and names that choose among models. The tenant's configuration. */
export interface RoutingRecord {
  readonly tenant: string
  /** Grows by one with every write. */
  readonly version: number
  readonly rules: ReadonlyArray<{ readonly domain: string; readonly keywords: readonly string[] }>
  readonly samples: ReadonlyArray<{ readonly text: string; readonly domain: string }>
  readonly models: readonly VirtualModelRecord[]
  readonly updated_at: number
}
/** A tenant's name for a choice among catalogue models. */
export interface VirtualModelRecord {
  readonly id: string
  /** The domain of everything asked of it; null where each prompt decides. */
  readonly domain: string | null
  readonly prefer: 'balanced' | 'cost' | 'quality' | 'latency'
  readonly candidates: ReadonlyArray<{
    readonly model: string
    readonly domain: string | null
    readonly weight: number
    readonly quality: number
  }>
  readonly canary: { readonly model: string; readonly percent: number } | null
  /** Pico-yuan per token. */
  readonly max_price_pico: { readonly input: bigint | null; readonly output: bigint | null }
}
/** A key of a provider's account that was entered through the API. */
export interface ProviderKeyRecord {
  /** `<provider>/<name>`. */
  readonly id: string
  readonly provider: string
  readonly name: string
  /** Sealed (base/envelope.ts), or a reference; empty once the key was removed. In a change that was read it is always empty. */
  readonly secret: string
  /** The secret's last four characters; null of a reference, and of one that is too short. */
  readonly last4: string | null
  readonly weight: number
  readonly concurrency: number | null
  readonly requests_per_minute: number | null
  readonly tokens_per_minute: number | null
  readonly status: 'active' | 'disabled' | 'removed'
  readonly created_at: number
  readonly changed_at: number
}
/** Whether a secret is only named: `${NAME}` or `${file:/path}`. */
export function isReference(secret: string): boolean {
  return /^\$\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\}$/.test(secret)
}
/** What a sealed secret is bound to. */
export function boundTo({ provider, name }: Pick<ProviderKeyRecord, 'provider' | 'name'>): readonly string[] {
  return ['provider key', provider, name]
}
export interface PriceVersionRecord {
  readonly id: string
  readonly side: 'sell' | 'cost'
  /** Model id (sell) or endpoint id (cost). */
  readonly subject: string
  readonly effective_from: number
  /** The version's canonical JSON: never changes under the same id. */
  readonly body: string
  readonly created_at: number
}

/** One step of the numbered log of changes that gateways follow. */
export type RecordChange =
  | { readonly kind: 'tenant'; readonly record: TenantRecord }
  | { readonly kind: 'project'; readonly record: ProjectRecord }
  | { readonly kind: 'key'; readonly record: KeyRecord }
  | { readonly kind: 'grant'; readonly record: GrantRecord }
  | { readonly kind: 'routing'; readonly record: RoutingRecord }
  | { readonly kind: 'provider_key'; readonly record: ProviderKeyRecord }
export interface NumberedChange {
  readonly seq: number
  /** Null for a kind of record that only a later release knows: passed over, so that two releases can run side by side. */
  readonly change: RecordChange | null
}

/** Grants with `from_ms <= expires_at <= to_ms`, those up to and with `after` left out. */
export interface ExpiredGrantsQuery {
  readonly from_ms: number
  readonly to_ms: number
  readonly after: ExpiredGrantsSlice['last']
  /** Most grants to look at. */
  readonly limit: number
}
export interface ExpiredGrantsSlice {
  readonly grants: readonly GrantRecord[]
  /** The last one that was looked at, for the next slice; null at the end. */
  readonly last: { readonly expires_at: number; readonly id: string } | null
}

/** Every tenant, project and grant as of `seq`, the number of the last change. */
export interface LoadedRecords {
  readonly seq: number
  readonly tenants: readonly TenantRecord[]
  readonly projects: readonly ProjectRecord[]
  readonly grants: readonly GrantRecord[]
}

/** Tenants, projects, keys, grants, routing and price versions. Every write appends its numbered change in the same transaction. */
export interface Records {
  /** Creates or replaces the record; resolves with the change's number. Throws {@link PublicSlugTaken}. */
  put(change: RecordChange): Promise<number>
  tenant(id: string): Promise<TenantRecord | null>
  tenants(): Promise<readonly TenantRecord[]>
  projects(tenant: string): Promise<readonly ProjectRecord[]>
  keys(tenant?: string): Promise<readonly KeyRecord[]>
  key(id: string): Promise<KeyRecord | null>
  grants(tenant?: string): Promise<readonly GrantRecord[]>
  routing(tenant: string): Promise<RoutingRecord | null>
  /** Looks at the next grants that expired in a period, by expiry, then id, and gives those of which the ledger still has something. */
  expiredGrants(query: ExpiredGrantsQuery): Promise<ExpiredGrantsSlice>
  /**
   * Reads everything: the keys page by page into `onKeys`, each once, in no promised order, and the rest as the result. A million keys
   * are never in one message. `seq` is read first, so pages may hold what was written later: apply `changesAfter(seq)`, which has all of
   * it, and of which what is there already may be applied again. Records that share a list may share the array.
   *
   * @param onRouting takes what tenants say of routing, likewise in pages; without it that is not read
   */
  load(onKeys: (keys: readonly KeyRecord[]) => void, onRouting?: (routing: readonly RoutingRecord[]) => void): Promise<LoadedRecords>
  /** Every provider key, removed ones included, by id. */
  providerKeys(): Promise<readonly ProviderKeyRecord[]>
  /** Routing comes as it is now, not as it was at its number: the log of changes keeps none of a tenant's texts. */
  changesAfter(seq: number, limit: number): Promise<readonly NumberedChange[]>
  /** Stores versions that are new. Throws {@link PriceVersionConflict} if an id exists with another body. */
  putPriceVersions(versions: readonly PriceVersionRecord[]): Promise<void>
  priceVersions(): Promise<readonly PriceVersionRecord[]>
}

/** Another tenant's page has this name. */
export class PublicSlugTaken extends Error {
  override name = 'PublicSlugTaken'
  constructor(slug: string) {
    super(`another tenant has the public slug ${slug}`)
  }
}

/** A price version was edited in place. Prices change by adding a version. */
export class PriceVersionConflict extends Error {
  override name = 'PriceVersionConflict'
  readonly id: string
  constructor(id: string) {
    super(`price version ${id} was changed after it had been published; add a new version instead`)
    this.id = id
  }
}
