import type { Clock } from '../../base/clock.ts'
import { grantDeltas } from '../accounts.ts'
import { bucketOf, LimitsUnavailable, type OutboxRow, type SharedLedger, type SharedLimits } from '../cluster-ports.ts'
import { termsOf } from '../grants.ts'
import type { Credits, GrantTerms, LedgerTransaction } from '../ports.ts'
import type { GrantRecord } from '../records.ts'

/** Rows of one tenant that are delivered in one step. */
const SLICE_ROWS = 500
/** Of all tenants: so many at one time, and so many rows of each. */
const SLICE_TENANTS = 50
const ROWS_EACH = 20
/** Rows that wait are counted no further. */
const MOST_COUNTED = 100_000
/** A bucket that took nothing is passed over for so long. */
const PASSED_OVER_MS = 2000

export interface OutboxDeps {
  readonly limits: Pick<SharedLimits, 'credit' | 'shift'>
  readonly ledger: Pick<SharedLedger, 'outbox' | 'outboxSlice' | 'outboxWaiting' | 'delivered' | 'tell'>
  readonly clock: Pick<Clock, 'monotonic_ms'>
  /** Hears that limits are away: they are told later. */
  readonly on_trouble: (error: Error) => void
}

/**
 * Brings the ledger's outbox to limits: rows of a tenant in the order of their numbers, each once, whichever process brings it. What
 * cannot be brought now waits in the ledger, in nobody else's way: tenants take their turns, and buckets that took nothing are passed
 * over for a while.
 */
export class Outbox {
  readonly #deps: OutboxDeps
  /** Where the turn of all tenants has come to. */
  #after = ''
  /** Until when buckets are passed over. */
  readonly #passed_over = new Map<number, number>()
  #waiting = 0

  constructor(deps: OutboxDeps) {
    this.#deps = deps
  }

  /** Rows that waited when those of all tenants were looked at last. */
  get waiting(): number {
    return this.#waiting
  }

  /**
   * Delivers the oldest rows of the tenants whose turn it is.
   * @returns whether there may be more that can be delivered
   * @throws LedgerUnavailable; LimitsUnavailable or what else was wrong with one, after the others were tried
   */
  async deliver(): Promise<boolean> {
    const { ledger } = this.#deps
    if (this.#after === '') this.#waiting = await ledger.outboxWaiting(MOST_COUNTED)
    const query = { after: this.#after, without: this.#bucketsPassedOver(), tenants: SLICE_TENANTS, rows_each: ROWS_EACH }
    const { rows, last } = await ledger.outboxSlice(query)
    this.#after = last ?? ''
    const unfinished = await this.#deliverEach(rows)
    return last !== null || unfinished
  }

  /** Delivers all that waits for one tenant. @throws LimitsUnavailable, LedgerUnavailable */
  async deliverTo(tenant: string): Promise<void> {
    for (;;) {
      const rows = await this.#deps.ledger.outbox(SLICE_ROWS, tenant)
      const done = await this.#deliverTenant(tenant, rows)
      if (rows.length < SLICE_ROWS || done !== rows.at(-1)?.seq) return
    }
  }

  #bucketsPassedOver(): readonly number[] {
    const now_ms = this.#deps.clock.monotonic_ms()
    for (const [bucket, until_ms] of this.#passed_over) if (until_ms <= now_ms) this.#passed_over.delete(bucket)
    return [...this.#passed_over.keys()]
  }

  /** @returns whether one who has taken all that was asked for may have more */
  async #deliverEach(rows: readonly OutboxRow[]): Promise<boolean> {
    const by_tenant = [...Map.groupBy(rows, (row) => row.tenant)]
    const failures: unknown[] = []
    let unfinished = false
    const one = async ([tenant, list]: (typeof by_tenant)[number]): Promise<void> => {
      try {
        const done = await this.#deliverTenant(tenant, list)
        if (list.length === ROWS_EACH && done === list.at(-1)?.seq) unfinished = true
      } catch (error) {
        failures.push(error)
        if (error instanceof LimitsUnavailable) this.#passed_over.set(bucketOf(tenant), this.#deps.clock.monotonic_ms() + PASSED_OVER_MS)
      }
    }
    await Promise.all(by_tenant.map(one))
    if (failures.length > 0) throw failures[0]
    return unfinished
  }

  /** @returns the number of the last row delivered, 0 for none */
  async #deliverTenant(tenant: string, rows: readonly OutboxRow[]): Promise<number> {
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
    return done
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

  async owes(tenant: string): Promise<boolean> {
    return (await this.#deps.ledger.outbox(1, tenant)).length > 0
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
      await this.#outbox.deliverTo(tenant)
    } catch (error) {
      // Limits that are away hear of it once they are back: the ledger has it.
      if (!(error instanceof LimitsUnavailable)) this.#deps.on_trouble(error instanceof Error ? error : new Error(String(error)))
    }
  }
}
