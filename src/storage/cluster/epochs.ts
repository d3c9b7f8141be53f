import { setTimeout as sleep } from 'node:timers/promises'
import { type BucketEpoch, ofEachBucket, type SharedLedger, type SharedLimits, throwFirst } from '../cluster-ports.ts'
import type { Forwarder } from './forward.ts'

/** What has ended is brought into the ledger before the report, in so much of the time that others wait for it. */
const FORWARD_MS = 5000

export interface EpochFollowerDeps {
  readonly limits: Pick<SharedLimits, 'report'>
  readonly ledger: Pick<SharedLedger, 'epochs'>
  readonly forwarder: Forwarder
  /** Name of this process's journal. */
  readonly node: string
  /** Hears that not all of it could be brought: that is made up for. */
  readonly on_trouble: (error: Error) => void
}

/**
 * This process's part when buckets are filled anew: everything that has ended is brought into the ledger, then what is open is
 * registered, then the node is reported. Whoever fills the buckets waits for it.
 */
export class EpochFollower {
  readonly #deps: EpochFollowerDeps
  /** The epoch that was reported last, by bucket. */
  readonly #reported = new Map<number, number>()

  #forwarding: Promise<unknown> | null = null
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
   * @throws LedgerUnavailable; what kept one bucket from being reported, once the others were
   */
  async look(): Promise<boolean> {
    const { ledger, forwarder } = this.#deps
    const epochs = await ledger.epochs()
    for (const { bucket, state } of epochs) if (state === 'open') forwarder.letGo(bucket)
    const closed = epochs.filter(({ state }) => state === 'closed')
    this.#closed = closed.length
    const waiting = closed.filter(({ bucket, epoch }) => epoch > 0 && this.#reported.get(bucket) !== epoch)
    if (waiting.length > 0) await this.#report(waiting)
    return closed.length > 0
  }

  async #report(waiting: readonly BucketEpoch[]): Promise<void> {
    const { forwarder, limits, node } = this.#deps
    const epochs = new Map(waiting.map(({ bucket, epoch }) => [bucket, epoch]))
    await forwarder.holdBack([...epochs.keys()])
    await this.#forward(new Set(epochs.keys()))
    const { failures } = await ofEachBucket([...epochs.keys()], async (bucket) => {
      const epoch = epochs.get(bucket) ?? 0
      // Not yet: the server has not heard of the epoch. The next look reports.
      if (await limits.report(bucket, epoch, node)) this.#reported.set(bucket, epoch)
    })
    throwFirst(failures)
  }

  /**
   * A long backlog, or a bucket to which nothing can be posted now, must not keep what is open from being registered: its requests would
   * lapse. What is posted later is charged by the outbox.
   */
  async #forward(buckets: ReadonlySet<number>): Promise<void> {
    const { forwarder, on_trouble } = this.#deps
    this.#forwarding ??= forwarder
      .run(false, buckets)
      .catch((error: unknown) => on_trouble(error instanceof Error ? error : new Error(String(error))))
      .finally(() => (this.#forwarding = null))
    const over = new AbortController()
    await Promise.race([this.#forwarding, sleep(FORWARD_MS, undefined, { signal: over.signal }).catch(() => undefined)])
    over.abort()
  }
}
