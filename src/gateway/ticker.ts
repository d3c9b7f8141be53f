import { Bag } from '../base/bag.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../observe/log.ts'
import type { CheckpointRow, ExtendRequest, Limits, UsageLog } from '../storage/ports.ts'
import type { Lease } from './lease.ts'

/** Checkpoints, lease renewals and extensions of every open request leave together, this often. */
export const TICK_MS = 1000
const NO_ROWS: ReadonlyMap<string, CheckpointRow> = new Map()

/** One batch per process and second for all open requests, and at once when a stream has used up what it holds. */
export class StreamTicker {
  readonly #leases = new Bag<Lease>()
  readonly #limits: Limits
  readonly #log: UsageLog
  readonly #clock: Clock
  readonly #logger: Logger
  #timer: NodeJS.Timeout | null = null
  #flushing = false
  /** Those that wait for the next turn of the loop; the first one has asked for it. */
  #asking: Lease[] = []

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

  /** Asks for a lease's extension now rather than at the next tick. Calls within one turn of the loop share a batch, and cost what they are. */
  extendSoon(lease: Lease): void {
    this.#asking.push(lease)
    if (this.#asking.length > 1) return
    setImmediate(() => {
      // Some may have ended meanwhile.
      const asking = this.#asking.filter((one) => this.#leases.has(one))
      this.#asking = []
      void this.#extend(asking)
    })
  }

  /** Writes the first checkpoint of an answer with the journal's next batch: from here on a kill leaves a trace of it. */
  checkpointNow(lease: Lease): void {
    const row = lease.dueCheckpoint(this.#clock.now_ms())
    if (row !== null) this.#log.checkpoint([row])
  }

  #tick(): void {
    const now_ms = this.#clock.now_ms()
    const rows = new Map<string, CheckpointRow>()
    for (const lease of this.#leases.all()) {
      lease.tick(now_ms)
      const row = lease.dueCheckpoint(now_ms)
      if (row !== null) rows.set(lease.id, row)
    }
    if (rows.size > 0) this.#log.checkpoint([...rows.values()])
    void this.#extend(this.#leases.all(), this.#limits.outlives === true ? rows : NO_ROWS)
  }

  async #extend(leases: readonly Lease[], checkpoints: ReadonlyMap<string, CheckpointRow> = NO_ROWS): Promise<void> {
    // One batch in flight at a time: a lease must not be asked about twice before its first answer.
    if (this.#flushing) return
    this.#flushing = true
    const now_ms = this.#clock.now_ms()
    const requests: ExtendRequest[] = []
    const asked = new Map<string, Lease>()
    for (const lease of leases) {
      const request = lease.dueExtension(now_ms, checkpoints.get(lease.id) ?? null)
      if (request === null) continue
      requests.push(request)
      asked.set(lease.id, lease)
    }
    try {
      if (requests.length > 0) for (const result of await this.#limits.extend(requests)) asked.get(result.id)?.extended(result, now_ms)
    } catch (error) {
      this.#logger.error({ err: error, extensions: requests.length }, 'extending holds failed; asking again at the next tick')
    } finally {
      this.#flushing = false
    }
  }
}
