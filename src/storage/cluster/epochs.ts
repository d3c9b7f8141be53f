import type { SharedLedger, SharedLimits } from '../cluster-ports.ts'
import type { Forwarder } from './forward.ts'

export interface EpochFollowerDeps {
  readonly limits: SharedLimits
  readonly ledger: SharedLedger
  readonly forwarder: Forwarder
  /** Name of this process's journal. */
  readonly node: string
}

/**
 * This process's part when buckets are filled anew: everything that has ended is brought into the ledger, then what is open is
 * registered, then the node is reported. Whoever fills the buckets waits for it.
 */
export class EpochFollower {
  readonly #deps: EpochFollowerDeps
  /** The epoch that was reported last, by bucket. */
  readonly #reported = new Map<number, number>()

  #closed = 0

  constructor(deps: EpochFollowerDeps) {
    this.#deps = deps
  }

  /** Buckets that were closed at the last look. */
  get closed(): number {
    return this.#closed
  }

  /**
   * Looks once.
   * @returns whether buckets are closed: then look again soon
   * @throws LimitsUnavailable, LedgerUnavailable
   */
  async look(): Promise<boolean> {
    const { ledger, forwarder, limits, node } = this.#deps
    const epochs = await ledger.epochs()
    for (const { bucket, state } of epochs) if (state === 'open') forwarder.letGo(bucket)
    const closed = epochs.filter(({ state }) => state === 'closed')
    const waiting = closed.filter(({ bucket, epoch }) => epoch > 0 && this.#reported.get(bucket) !== epoch)
    if (waiting.length > 0) {
      await forwarder.holdBack(waiting.map(({ bucket }) => bucket))
      await forwarder.run(false)
      for (const { bucket, epoch } of waiting) {
        // Not yet: the server has not heard of the epoch. The next look reports.
        if (await limits.report(bucket, epoch, node)) this.#reported.set(bucket, epoch)
      }
    }
    this.#closed = closed.length
    return closed.length > 0
  }
}
