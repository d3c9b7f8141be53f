import type { KeyRecord, ProjectRecord, RecordChange, Records, TenantRecord } from '../storage/ports.ts'
import type { Caller } from './call.ts'

/** Keys, projects and tenants in memory, looked up by the hash of the key. Kept current by numbered changes. */
export class KeyTable {
  readonly #keys = new Map<string, KeyRecord>()
  readonly #projects = new Map<string, ProjectRecord>()
  readonly #tenants = new Map<string, TenantRecord>()
  #seq = 0
  #following: Promise<void> = Promise.resolve()

  /** The caller whose key has this SHA-256 (hex), or null. Expiry and revocation are the caller's to judge. */
  find(hash: string): Caller | null {
    const key = this.#keys.get(hash)
    if (key === undefined) return null
    const project = this.#projects.get(key.project)
    const tenant = this.#tenants.get(key.tenant)
    return project === undefined || tenant === undefined ? null : { key, project, tenant }
  }

  tenant(id: string): TenantRecord | null {
    return this.#tenants.get(id) ?? null
  }

  get size(): number {
    return this.#keys.size
  }

  /** Reads everything. Called at start and when a change is missing. */
  async load(records: Records): Promise<void> {
    const all = await records.load()
    for (const tenant of all.tenants) this.#tenants.set(tenant.id, tenant)
    for (const project of all.projects) this.#projects.set(project.id, project)
    for (const key of all.keys) this.#keys.set(key.hash, key)
    this.#seq = all.seq
  }

  /** Applies the changes after the last known one. Calls at the same time take their turns, so that none is applied twice. */
  follow(records: Records): Promise<void> {
    const turn = this.#following.then(() => this.#catchUp(records))
    this.#following = turn.catch(() => {})
    return turn
  }

  async #catchUp(records: Records): Promise<void> {
    for (;;) {
      const changes = await records.changesAfter(this.#seq, 1000)
      for (const { seq, change } of changes) {
        if (seq !== this.#seq + 1) return this.load(records)
        this.#apply(change)
        this.#seq = seq
      }
      if (changes.length < 1000) return
    }
  }

  #apply(change: RecordChange): void {
    if (change.kind === 'tenant') this.#tenants.set(change.record.id, change.record)
    if (change.kind === 'project') this.#projects.set(change.record.id, change.record)
    if (change.kind === 'key') this.#keys.set(change.record.hash, change.record)
  }
}
