/** How fast endpoints have begun to answer lately. Like the breakers: pure rules, and a board of one process. */

/** Weight of the newest figure in the moving average. */
const SMOOTHING = 0.2
/** What was seen longer ago than this says nothing about now. */
const FORGET_AFTER_MS = 10 * 60_000

export interface Latency {
  /** Moving average of the time to the first event. */
  readonly average_ms: number
  /** When it was seen last, wall clock. */
  readonly seen_at_ms: number
}

/** The state after one more answer, which began after `took_ms`. */
export function afterAnswer(before: Latency | null, took_ms: number, now_ms: number): Latency {
  const known = before !== null && isCurrent(before, now_ms)
  const average_ms = known ? before.average_ms + SMOOTHING * (took_ms - before.average_ms) : took_ms
  return { average_ms, seen_at_ms: now_ms }
}

function isCurrent({ seen_at_ms }: Latency, now_ms: number): boolean {
  return now_ms - seen_at_ms <= FORGET_AFTER_MS
}

/** Times to the first event of one process, by endpoint id. */
export class LatencyBoard {
  readonly #states = new Map<string, Latency>()

  /** A streamed answer has begun. Whole answers are not told: their time says how long they are. */
  answered(endpoint: string, took_ms: number, now_ms: number): void {
    this.#states.set(endpoint, afterAnswer(this.#states.get(endpoint) ?? null, took_ms, now_ms))
  }

  /** The average in ms, or null where nothing was seen lately. */
  of(endpoint: string, now_ms: number): number | null {
    const state = this.#states.get(endpoint)
    return state === undefined || !isCurrent(state, now_ms) ? null : state.average_ms
  }

  /** Forgets every endpoint that is not in the catalogue any more; call when the catalogue was swapped. */
  prune(known: ReadonlySet<string>): void {
    for (const endpoint of this.#states.keys()) if (!known.has(endpoint)) this.#states.delete(endpoint)
  }
}
