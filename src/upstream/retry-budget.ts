/**
 * How many second tries a process may make: where everything fails, more tries make it worse. Counted over the last minute, in steps of a
 * second; the clock is passed in.
 */
import { assert } from '../base/assert.ts'

/** Second and later tries, as a part of the requests of the last minute. */
export const RETRY_PERCENT = 10
/** As many are allowed in a minute however few requests there were: one failure of a quiet hour is retried. */
export const RETRY_FLOOR = 10
const WINDOW_S = 60

interface Second {
  requests: number
  retries: number
}

export class RetryBudget {
  readonly #seconds: readonly Second[] = Array.from({ length: WINDOW_S }, () => ({ requests: 0, retries: 0 }))
  #newest_s = -1
  #requests = 0
  #retries = 0

  /** A request was admitted for the first time. */
  request(now_ms: number): void {
    this.#at(now_ms).requests += 1
    this.#requests += 1
  }

  /** Whether one more try is within the budget. Changes nothing. */
  allows(now_ms: number): boolean {
    this.#at(now_ms)
    return this.#retries < Math.max(RETRY_FLOOR, Math.floor((this.#requests * RETRY_PERCENT) / 100))
  }

  /** Takes one try out of the budget, if it is within it. */
  take(now_ms: number): boolean {
    if (!this.allows(now_ms)) return false
    this.#at(now_ms).retries += 1
    this.#retries += 1
    return true
  }

  /** The second of `now_ms`, after what is older than a minute was forgotten. A clock that steps back counts in the newest second. */
  #at(now_ms: number): Second {
    const now_s = Math.max(this.#newest_s, Math.floor(now_ms / 1000))
    if (now_s - this.#newest_s >= WINDOW_S) this.#forgetAll()
    else for (let at_s = this.#newest_s + 1; at_s <= now_s; at_s++) this.#clear(this.#slot(at_s))
    this.#newest_s = now_s
    return this.#slot(now_s)
  }

  #slot(at_s: number): Second {
    const second = this.#seconds[at_s % WINDOW_S]
    assert(second !== undefined, 'a second that is in no slot')
    return second
  }

  #clear(second: Second): void {
    this.#requests -= second.requests
    this.#retries -= second.retries
    second.requests = 0
    second.retries = 0
  }

  #forgetAll(): void {
    for (const second of this.#seconds) this.#clear(second)
  }
}
