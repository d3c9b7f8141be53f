import { grantDeltas, type GrantDelta } from '../accounts.ts'
import { termsFor, termsOf } from '../grants.ts'
import type { Credits, GrantTerms, Ledger, LedgerTransaction, Turns } from '../ports.ts'
import type { Records } from '../records.ts'
import type { MemoryLimits } from './limits.ts'

/** A credit is numbered by what was applied before it; this often the number is read again when another credit came first. */
const MAX_TRIES = 10
/** Most transactions remembered of which it is unknown whether they are in the ledger, or which limits lack. */
const MAX_UNFINISHED = 10_000

export interface MemoryCreditsDeps {
  readonly limits: MemoryLimits
  readonly records: Pick<Records, 'grants'>
  readonly ledger: Pick<Ledger, 'transaction'>
  readonly turns: Turns
}

/**
 * {@link Credits} of one process. The ledger is the truth: what limits would miss after a crash is there again when they are rebuilt at
 * the next start, so what is lacking is remembered in memory only.
 */
export class MemoryCredits implements Credits {
  readonly #deps: MemoryCreditsDeps
  /** What limits still lack of transactions that are, or may be, in the ledger; by the id of the transaction. */
  readonly #unfinished = new Map<string, readonly GrantDelta[]>()

  constructor(deps: MemoryCreditsDeps) {
    this.#deps = deps
  }

  async deliver({ id, entries }: LedgerTransaction): Promise<void> {
    this.#unfinished.set(id, grantDeltas(entries))
    await this.makeUp(id)
  }

  doubt({ id, entries }: LedgerTransaction): void {
    if (this.#unfinished.size < MAX_UNFINISHED) this.#unfinished.set(id, grantDeltas(entries))
  }

  /** Applies what is lacking change by change: one that fails is tried again, those before it are not. */
  async makeUp(id: string): Promise<void> {
    for (let deltas = this.#unfinished.get(id) ?? []; deltas.length > 0; deltas = deltas.slice(1)) {
      this.#unfinished.set(id, deltas)
      const [first] = deltas
      if (first !== undefined) await this.correct(await termsFor(first, this.#deps.records), first.delta)
    }
    this.#unfinished.delete(id)
  }

  async makeUpAll(): Promise<void> {
    const { ledger, turns } = this.#deps
    for (const [id, deltas] of this.#unfinished) {
      await turns.run(deltas[0]?.tenant ?? '', async () => {
        if ((await ledger.transaction(id)) !== null) await this.makeUp(id)
      })
    }
  }

  /** They are told in the same turn; where that failed, {@link makeUpAll} has told them before anybody relies on it. */
  async owes(): Promise<boolean> {
    return false
  }

  async changeTerms(grant: Parameters<Credits['changeTerms']>[0]): Promise<void> {
    await this.correct(termsOf(grant), 0n)
  }

  async correct(terms: GrantTerms, delta: bigint): Promise<void> {
    const { limits } = this.#deps
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const seq = limits.appliedSeq(terms.tenant) + 1
      if ((await limits.credit({ grant: terms, delta, seq })) === 'applied') return
    }
    throw new Error(`a change of ${terms.id} could not be applied to the limits: others came first ${MAX_TRIES} times`)
  }

  async correctMeter({ rule, to_ms }: Parameters<Credits['correctMeter']>[0], delta: bigint): Promise<void> {
    this.#deps.limits.shift(rule, delta, to_ms)
  }
}
