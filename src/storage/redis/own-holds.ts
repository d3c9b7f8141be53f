import type { HoldReceipt } from '../../money/event.ts'
import type { LimitRule } from '../ports.ts'

/** Open holds that a process remembers; beyond it the oldest ones are not registered again when Redis has lost them. */
const MAX_OWN = 200_000
/** Holds of others that it has taken over to close. */
const MAX_TAKEN = 20_000

/** A hold of this process, with all that it takes to register it anew. */
export interface OwnHold {
  readonly bucket: number
  readonly credit_line_nano: bigint
  readonly rules: readonly LimitRule[]
  /** Names of their counters, as `countersText` gives them. */
  readonly counters: string
  /** The end of the window that the hold counts in, for each rule; empty for what is no meter. */
  readonly ends: readonly string[]
  lease_ms: number
  receipt: HoldReceipt
  /** JSON, or empty. */
  context: string
  /** JSON of the latest, or empty. */
  checkpoint: string
  closing: boolean
}

/** Open holds of this process, from their admission until they are closed, and the counters of those that it closes for others. */
export class OwnHolds {
  readonly #own = new Map<string, OwnHold>()
  readonly #taken = new Map<string, string>()

  get(id: string): OwnHold | undefined {
    return this.#own.get(id)
  }

  add(hold: OwnHold): void {
    put(this.#own, hold.receipt.id, hold, MAX_OWN)
  }

  /** A hold that was swept, perhaps another process's: whoever closes it needs the names of its counters. */
  take(id: string, counters: string): void {
    if (!this.#own.has(id)) put(this.#taken, id, counters, MAX_TAKEN)
  }

  /** It is being closed, whatever comes of it: from here on it is not registered any more. */
  closing(id: string): void {
    const own = this.#own.get(id)
    if (own !== undefined) own.closing = true
  }

  /** A sweep has closed it; its own settle may still come, and then takes the place of the sweep's. */
  closedBySweep(id: string): void {
    const counters = this.counters(id)
    this.forget(id)
    this.take(id, counters)
  }

  forget(id: string): void {
    this.#own.delete(id)
    this.#taken.delete(id)
  }

  /** Names of a hold's counters, or empty where they are not known here. */
  counters(id: string): string {
    return this.#own.get(id)?.counters ?? this.#taken.get(id) ?? ''
  }

  /** Those of a bucket that are not being closed. */
  inBucket(bucket: number): readonly OwnHold[] {
    return [...this.#own.values()].filter((hold) => hold.bucket === bucket && !hold.closing)
  }
}

function put<Value>(map: Map<string, Value>, id: string, value: Value, most: number): void {
  if (map.size >= most && !map.has(id)) {
    const [oldest] = map.keys()
    if (oldest !== undefined) map.delete(oldest)
  }
  map.set(id, value)
}
