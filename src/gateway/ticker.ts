import { Bag } from '../base/bag.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../observe/log.ts'
import type { CheckpointRow, ExtendRequest, Limits, UsageLog } from '../storage/ports.ts'
import type { Lease } from './lease.ts'

/** Checkpoints, lease renewals and extensions of every open request leave together, this often. */
export const TICK_MS = 1000

/** One batch per process and second for all open requests, and at once when a stream has used up what it holds. */
export class StreamTicker {
  readonly #leases = new Bag<Lease>()
  readonly #limits: Limits
  readonly #log: UsageLog
  readonly #clock: Clock
  readonly #logger: Logger
  #timer: NodeJS.Timeout | null = null
  #flushing = false
  #flush_queued = false

  constructor(limits: Limits, log: UsageLog, clock: Clock, logger: Logger) {
    this.#limits = limits
    this.#log = log
    this.#clock = clock
    this.#logger = logger
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS)
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  add(lease: Lease): void {
    this.#leases.add(lease)
  }

  remove(lease: Lease): void {
    this.#leases.delete(lease)
  }

  /** Sends the batch of extensions now rather than at the next tick. Calls within one turn of the loop share it. */
  flushSoon(): void {
    if (this.#flush_queued) return
    this.#flush_queued = true
    setImmediate(() => {
      this.#flush_queued = false
      void this.#extend()
    })
  }

  /** Writes the first checkpoint of an answer with the journal's next batch: from here on a kill leaves a trace of it. */
  checkpointNow(lease: Lease): void {
    const row = lease.dueCheckpoint(this.#clock.now_ms())
    if (row !== null) this.#log.checkpoint([row])
  }

  #tick(): void {
    const now_ms = this.#clock.now_ms()
    const rows: CheckpointRow[] = []
    for (const lease of this.#leases.all()) {
      lease.tick(now_ms)
      const row = lease.dueCheckpoint(now_ms)
      if (row !== null) rows.push(row)
    }
    if (rows.length > 0) this.#log.checkpoint(rows)
    void this.#extend()
  }

  async #extend(): Promise<void> {
    // One batch in flight at a time: a lease must not be asked about twice before its first answer.
    if (this.#flushing) return
    this.#flushing = true
    const now_ms = this.#clock.now_ms()
    const requests: ExtendRequest[] = []
    for (const lease of this.#leases.all()) {
      const request = lease.dueExtension(now_ms)
      if (request !== null) requests.push(request)
    }
    try {
      if (requests.length > 0) await this.#apply(requests, now_ms)
    } catch (error) {
      this.#logger.error({ err: error, extensions: requests.length }, 'extending holds failed; asking again at the next tick')
    } finally {
      this.#flushing = false
    }
  }

  async #apply(requests: readonly ExtendRequest[], now_ms: number): Promise<void> {
    const byId = new Map(this.#leases.all().map((lease) => [lease.id, lease]))
    for (const result of await this.#limits.extend(requests)) byId.get(result.id)?.extended(result, now_ms)
  }
}
