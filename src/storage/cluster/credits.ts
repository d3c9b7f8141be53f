import { grantDeltas } from '../accounts.ts'
import { LimitsUnavailable, type OutboxRow, type SharedLedger, type SharedLimits } from '../cluster-ports.ts'
import { termsOf } from '../grants.ts'
import type { Credits, GrantTerms, LedgerTransaction } from '../ports.ts'
import type { GrantRecord } from '../records.ts'

/** Rows delivered in one step. */
const SLICE_ROWS = 500

export interface OutboxDeps {
  readonly limits: SharedLimits
  readonly ledger: SharedLedger
  /** Hears that limits are away: they are told later. */
  readonly on_trouble: (error: Error) => void
}

/**
 * Brings the ledger's outbox to limits: rows of a tenant in the order of their numbers, each once, whichever process brings it. What
 * cannot be brought now waits in the ledger.
 */
export class Outbox {
  readonly #deps: OutboxDeps

  #waiting = 0

  constructor(deps: OutboxDeps) {
    this.#deps = deps
  }

  /** Rows that waited when those of all tenants were looked at last, at most one slice. */
  get waiting(): number {
    return this.#waiting
  }

  /**
   * Delivers what waits, of one tenant or of all, at most one slice.
   * @returns whether there may be more
   * @throws LimitsUnavailable, LedgerUnavailable
   */
  async deliver(tenant?: string): Promise<boolean> {
    const rows = await this.#deps.ledger.outbox(SLICE_ROWS, tenant)
    if (tenant === undefined) this.#waiting = rows.length
    const by_tenant = [...Map.groupBy(rows, (row) => row.tenant)]
    const outcomes = await Promise.allSettled(by_tenant.map(([of, list]) => this.#deliverTenant(of, list)))
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    return rows.length === SLICE_ROWS
  }

  async #deliverTenant(tenant: string, rows: readonly OutboxRow[]): Promise<void> {
    let done = 0
    try {
      for (const { grant, delta, seq } of rows) {
        const state = await this.#deps.limits.credit({ grant, delta, seq })
        // Limits that have not come so far are being filled again, with what the ledger says then.
        if (state === 'gap') break
        done = seq
      }
    } finally {
      if (done > 0) await this.#deps.ledger.delivered(tenant, done)
    }
  }
}

/** {@link Credits} of cluster mode: the ledger's transaction has put them into the outbox; this brings them at once where that can be. */
export class OutboxCredits implements Credits {
  readonly #deps: OutboxDeps
  readonly #outbox: Outbox

  constructor(deps: OutboxDeps, outbox: Outbox) {
    this.#deps = deps
    this.#outbox = outbox
  }

  async deliver({ entries }: LedgerTransaction): Promise<void> {
    for (const tenant of new Set(grantDeltas(entries).map((delta) => delta.tenant))) await this.#bring(tenant)
  }

  doubt(): void {
    // The transaction and its rows are in the ledger together, or neither is.
  }

  async makeUp(): Promise<void> {
    // Whoever looks after the outbox does.
  }

  async makeUpAll(): Promise<void> {
    // As above.
  }

  async changeTerms(grant: GrantRecord): Promise<void> {
    await this.correct(termsOf(grant), 0n)
  }

  async correct(terms: GrantTerms, delta: bigint): Promise<void> {
    await this.#deps.ledger.tell(terms, delta)
    await this.#bring(terms.tenant)
  }

  async correctMeter({ tenant, rule, to_ms }: Parameters<Credits['correctMeter']>[0], delta: bigint): Promise<void> {
    await this.#deps.limits.shift(tenant, rule, delta, to_ms === Infinity ? null : to_ms)
  }

  async #bring(tenant: string): Promise<void> {
    try {
      while (await this.#outbox.deliver(tenant));
    } catch (error) {
      // Limits that are away hear of it once they are back: the ledger has it.
      if (!(error instanceof LimitsUnavailable)) this.#deps.on_trouble(error instanceof Error ? error : new Error(String(error)))
    }
  }
}
