import type { HoldReceipt } from '../../money/event.ts'
import type { LimitRule } from '../ports.ts'

/** Open holds that a process remembers; beyond it the oldest ones are not registered again when Redis has lost them. */
const MAX_OWN = 200_000
/** Holds of others that it has taken over to close. */
const MAX_TAKEN = 20_000

/**
 * `open` until it is being closed. `unsettled`: its settle has failed, so that it may still be open; it keeps what it has reserved until
 * it is settled again, or forgotten. `releasing`: nothing is to be reserved for it any more, whatever comes of that.
 */
type OwnPhase = 'open' | 'settling' | 'unsettled' | 'releasing'

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
  phase: OwnPhase
}

/** Holds of this process, from their admission until they are closed, and the counters of those that it closes for others. */
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

  turn(id: string, phase: OwnPhase): void {
    const own = this.#own.get(id)
    if (own !== undefined) own.phase = phase
  }

  /** It was closed, but not by its request, whose own settle may still come and take the place of that. */
  closedForAnother(id: string): void {
    const counters = this.counters(id)
    this.forget(id)
    this.take(id, counters)
  }

  /** Whether it is open or being settled. */
  isMine(id: string): boolean {
    const phase = this.#own.get(id)?.phase
    return phase === 'open' || phase === 'settling'
  }

  forget(id: string): void {
    this.#own.delete(id)
    this.#taken.delete(id)
  }

  /** Names of a hold's counters, or empty where they are not known here. */
  counters(id: string): string {
    return this.#own.get(id)?.counters ?? this.#taken.get(id) ?? ''
  }

  /**
   * Those of a bucket for which something is reserved. One that is being settled is among them: were its settle applied before the bucket
   * was closed, its answer would have come before the news of that.
   */
  inBucket(bucket: number): readonly OwnHold[] {
    return [...this.#own.values()].filter((hold) => hold.bucket === bucket && hold.phase !== 'releasing')
  }
}

function put<Value>(map: Map<string, Value>, id: string, value: Value, most: number): void {
  if (map.size >= most && !map.has(id)) {
    const [oldest] = map.keys()
    if (oldest !== undefined) map.delete(oldest)
  }
  map.set(id, value)
}
