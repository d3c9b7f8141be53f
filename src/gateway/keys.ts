import { prepareRouting, type TenantRouting } from '../routing/tenant.ts'
import type {
  KeyRecord,
  LoadedRecords,
  NumberedChange,
  ProjectRecord,
  RecordChange,
  Records,
  RoutingRecord,
  TenantRecord,
} from '../storage/records.ts'
import type { Caller } from './call.ts'

const FOLLOW_CHANGES = 1000

/** Keys, projects, tenants and their routing in memory, looked up by the hash of the key. Kept current by numbered changes. */
export class KeyTable {
  readonly #keys = new Map<string, KeyRecord>()
  readonly #projects = new Map<string, ProjectRecord>()
  readonly #tenants = new Map<string, TenantRecord>()
  readonly #routing = new Map<string, { readonly version: number; readonly prepared: TenantRouting | null }>()
  /** Public slug → tenant. */
  readonly #slugs = new Map<string, string>()
  #seq = 0
  #following: Promise<void> = Promise.resolve()
  /** Provider keys have changed, and whoever uses them has not been told with success. */
  #provider_keys_stale = false
  #onProviderKeys: (() => Promise<void>) | null = null

  /** The caller whose key has this SHA-256 (hex), or null. Expiry and revocation are the caller's to judge. */
  find(hash: string): Caller | null {
    const key = this.#keys.get(hash)
    if (key === undefined) return null
    const project = this.#projects.get(key.project)
    const tenant = this.#tenants.get(key.tenant)
    if (project === undefined || tenant === undefined) return null
    return { key, project, tenant, routing: this.#routing.get(tenant.id)?.prepared ?? null }
  }

  tenant(id: string): TenantRecord | null {
    return this.#tenants.get(id) ?? null
  }

  /** The tenant whose public page has this name, or null. */
  tenantOfPage(slug: string): TenantRecord | null {
    const id = this.#slugs.get(slug)
    return id === undefined ? null : this.tenant(id)
  }

  /** Number of the last change that it has. */
  get seq(): number {
    return this.#seq
  }

  get size(): number {
    return this.#keys.size
  }

  /**
   * Reads everything. Called at start and when a change is missing. What was written meanwhile is there in part: follow after it.
   *
   * @param onKeys sees every page of keys as well, for who needs them at the same time
   */
  async load(records: Pick<Records, 'load'>, onKeys: (keys: readonly KeyRecord[]) => void = () => {}): Promise<LoadedRecords> {
    const all = await records.load(
      (keys) => {
        for (const key of keys) this.#keys.set(key.hash, key)
        onKeys(keys)
      },
      (routing) => {
        for (const record of routing) this.#prepare(record)
      },
    )
    for (const tenant of all.tenants) this.#setTenant(tenant)
    for (const project of all.projects) this.#projects.set(project.id, project)
    this.#seq = all.seq
    return all
  }

  /** Called when keys of providers have changed, and waited for; called again by the next `follow` if it fails. */
  whenProviderKeysChange(listener: () => Promise<void>): void {
    this.#onProviderKeys = listener
  }

  /** Applies the changes after the last known one. Calls at the same time take their turns, so that none is applied twice. */
  follow(records: Records): Promise<void> {
    const turn = this.#following.then(() => this.#catchUp(records))
    this.#following = turn.catch(() => {})
    return turn
  }

  async #catchUp(records: Records): Promise<void> {
    for (;;) {
      const changes = await records.changesAfter(this.#seq, FOLLOW_CHANGES)
      if (this.#misses(changes)) {
        await this.load(records)
        this.#provider_keys_stale = true
        continue
      }
      for (const { seq, change } of changes) {
        if (change !== null) this.#apply(change)
        this.#seq = seq
      }
      if (changes.length < FOLLOW_CHANGES) break
    }
    if (!this.#provider_keys_stale) return
    await this.#onProviderKeys?.()
    this.#provider_keys_stale = false
  }

  #setTenant(tenant: TenantRecord): void {
    const before = this.#tenants.get(tenant.id)?.public_slug ?? null
    // It may be another tenant's by now, where changes are told again.
    if (before !== null && this.#slugs.get(before) === tenant.id) this.#slugs.delete(before)
    if (tenant.public_slug !== null) this.#slugs.set(tenant.public_slug, tenant.id)
    this.#tenants.set(tenant.id, tenant)
  }

  #misses(changes: readonly NumberedChange[]): boolean {
    return changes.some(({ seq }, index) => seq !== this.#seq + 1 + index)
  }

  #apply(change: RecordChange): void {
    if (change.kind === 'provider_key') this.#provider_keys_stale = true
    if (change.kind === 'tenant') this.#setTenant(change.record)
    if (change.kind === 'project') this.#projects.set(change.record.id, change.record)
    if (change.kind === 'key') this.#keys.set(change.record.hash, change.record)
    if (change.kind === 'routing') this.#prepare(change.record)
  }

  /** Once for each version: a change comes with the newest, which may be here already. */
  #prepare(record: RoutingRecord): void {
    const { tenant, version } = record
    if (this.#routing.get(tenant)?.version !== version) this.#routing.set(tenant, { version, prepared: prepareRouting(record) })
  }
}
