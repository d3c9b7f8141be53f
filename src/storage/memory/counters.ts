import { assert } from '../../base/assert.ts'
import type { LimitRule, LimitState, RateState } from '../ports.ts'

/** Bucket levels are kept in units × 60 000, so that refilling `limit` units a minute is exact in whole milliseconds. */
const SCALE = 60_000
/** The largest limit whose scaled level is still a safe integer; larger ones count as this. */
const MAX_RATE = Math.floor(Number.MAX_SAFE_INTEGER / SCALE / 2)
const FIVE_HOURS_MS = 5 * 3_600_000
const CONCURRENCY_RETRY_MS = 1000

/** Why a counter has no room. `frees_at_ms` is null when waiting does not help. */
export interface NoRoom {
  readonly available: bigint
  readonly held: bigint
  readonly frees_at_ms: number | null
}

/** A share of one counter that belongs to one hold. */
export interface Share {
  /** Takes more; room was checked before, or debt is allowed. */
  grow(amount: bigint): void
  /** Replaces what is held by what was used. Called again, it replaces the earlier figure (a late settle). */
  settle(used: bigint): void
  /** Gives everything back. */
  release(): void
}

/** One limit's state. `check` changes nothing. */
export interface Counter {
  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null
  take(rule: LimitRule, need: bigint, now_ms: number): Share
  standing(rule: LimitRule, now_ms: number): Omit<LimitState, 'rule'>
  /** True when forgetting this counter would change no answer. */
  idle(now_ms: number): boolean
}

/** A counter's name: one limit of one scope, also per model and per window. */
export function counterKey(rule: LimitRule): string {
  return `${rule.kind}\n${rule.scope}\n${rule.scope_id}\n${rule.model ?? ''}\n${rule.window?.name ?? ''}`
}

/** Makes the empty counter that a rule needs. */
export function counterFor(rule: LimitRule): Counter {
  if (rule.kind === 'requests_per_minute' || rule.kind === 'tokens_per_minute') return new RateCounter()
  if (rule.kind === 'concurrency') return new ConcurrencyCounter()
  return new MeterCounter()
}

/** A token bucket: capacity is the limit, refilled by limit ÷ 60 each second. Debt left by a settle is paid by refilling. */
export class RateCounter implements Counter {
  #limit = 0
  #level = 0
  #at_ms = 0
  #shares = 0

  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null {
    this.#refill(rateLimit(rule), now_ms)
    const missing = Number(need) * SCALE - this.#level
    if (missing <= 0) return null
    const never = Number(need) > this.#limit || this.#limit === 0
    const frees_at_ms = never ? null : now_ms + Math.ceil(missing / this.#limit)
    return { available: BigInt(Math.max(0, Math.floor(this.#level / SCALE))), held: 0n, frees_at_ms }
  }

  take(rule: LimitRule, need: bigint, now_ms: number): Share {
    this.#refill(rateLimit(rule), now_ms)
    this.#shares += 1
    let taken = 0n
    let open = true
    const move = (amount: bigint): void => {
      this.#level = Math.min(this.#limit * SCALE, this.#level - Number(amount) * SCALE)
      taken += amount
    }
    const end = (): void => {
      if (open) this.#shares -= 1
      open = false
    }
    move(need)
    return {
      grow: move,
      settle: (used) => {
        // A request stays one request however it ended; only tokens have an actual figure.
        if (rule.kind === 'tokens_per_minute') move(used - taken)
        end()
      },
      release: () => {
        move(-taken)
        end()
      },
    }
  }

  state(rule: LimitRule, now_ms: number): RateState {
    this.#refill(rateLimit(rule), now_ms)
    const remaining = Math.max(0, Math.floor(this.#level / SCALE))
    const reset_ms = this.#limit === 0 ? 0 : Math.ceil((this.#limit * SCALE - this.#level) / this.#limit)
    return { limit: this.#limit, remaining, reset_ms }
  }

  standing(rule: LimitRule, now_ms: number): Omit<LimitState, 'rule'> {
    const { limit, remaining, reset_ms } = this.state(rule, now_ms)
    return { available: BigInt(remaining), held: 0n, used: null, resets_at_ms: limit === 0 ? null : now_ms + reset_ms }
  }

  idle(now_ms: number): boolean {
    return this.#shares === 0 && this.#level + this.#limit * (now_ms - this.#at_ms) >= this.#limit * SCALE
  }

  /** A changed limit keeps what was used (SEMANTICS 12). */
  #refill(limit: number, now_ms: number): void {
    this.#level = Math.min(this.#limit * SCALE, this.#level + this.#limit * (now_ms - this.#at_ms))
    this.#at_ms = now_ms
    if (limit === this.#limit) return
    this.#level += (limit - this.#limit) * SCALE
    this.#limit = limit
  }
}

function rateLimit(rule: LimitRule): number {
  return Math.min(MAX_RATE, Number(rule.limit))
}

class ConcurrencyCounter implements Counter {
  #held = 0n

  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null {
    if (this.#held + need <= rule.limit) return null
    // `available` is the limit itself: the message says how many run and how many may.
    const frees_at_ms = rule.limit < need ? null : now_ms + CONCURRENCY_RETRY_MS
    return { available: rule.limit, held: this.#held, frees_at_ms }
  }

  take(_rule: LimitRule, need: bigint): Share {
    let held = need
    this.#held += need
    const end = (): void => {
      this.#held -= held
      held = 0n
      assert(this.#held >= 0n, 'concurrency below zero')
    }
    return { grow: () => undefined, settle: end, release: end }
  }

  standing(rule: LimitRule): Omit<LimitState, 'rule'> {
    return { available: positive(rule.limit - this.#held), held: this.#held, used: null, resets_at_ms: null }
  }

  idle(): boolean {
    return this.#held === 0n
  }
}

/** Used and held units of one window, or of all time where the rule has no window. */
export class MeterCounter implements Counter {
  /** End of the window that `used` belongs to; `Infinity` for a budget without one. */
  #end_ms = 0
  #used = 0n
  #held = 0n

  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null {
    const { used, held, end_ms } = this.#at(rule, now_ms)
    if (used + held + need <= rule.limit) return null
    const frees_at_ms = need > rule.limit || end_ms === Infinity ? null : end_ms
    return { available: positive(rule.limit - used - held), held, frees_at_ms }
  }

  /** Units of the limit that are neither used nor held. */
  room(rule: LimitRule, now_ms: number): bigint {
    const { used, held } = this.#at(rule, now_ms)
    return positive(rule.limit - used - held)
  }

  take(rule: LimitRule, need: bigint, now_ms: number): Share {
    this.#roll(rule, now_ms)
    const end_ms = this.#end_ms
    let held = need
    let used = 0n
    this.#held += need
    const change = (new_held: bigint, new_used: bigint): void => {
      // A window belongs to the admission: once it has rolled on, this hold is no longer in it.
      if (this.#end_ms === end_ms) {
        this.#held += new_held - held
        this.#used += new_used - used
        assert(this.#held >= 0n, 'held in a window below zero')
      }
      held = new_held
      used = new_used
    }
    return {
      grow: (amount) => change(held + amount, used),
      settle: (actual) => change(0n, actual),
      release: () => change(0n, 0n),
    }
  }

  standing(rule: LimitRule, now_ms: number): Omit<LimitState, 'rule'> {
    const { used, held, end_ms } = this.#at(rule, now_ms)
    const started = rule.window?.name !== '5h' || now_ms < this.#end_ms
    const resets_at_ms = end_ms === Infinity || !started ? null : end_ms
    return { available: positive(rule.limit - used - held), held, used, resets_at_ms }
  }

  /** Sets what events say was used before this process started. */
  restore(used: bigint, end_ms: number): void {
    this.#used = used
    this.#end_ms = end_ms
  }

  idle(now_ms: number): boolean {
    return this.#held === 0n && (this.#used === 0n || now_ms >= this.#end_ms)
  }

  #at(rule: LimitRule, now_ms: number): { used: bigint; held: bigint; end_ms: number } {
    if (now_ms < this.#end_ms) return { used: this.#used, held: this.#held, end_ms: this.#end_ms }
    return { used: 0n, held: 0n, end_ms: windowEnd(rule, now_ms) }
  }

  #roll(rule: LimitRule, now_ms: number): void {
    if (now_ms < this.#end_ms) return
    this.#used = 0n
    this.#held = 0n
    this.#end_ms = windowEnd(rule, now_ms)
  }
}

/** The driver's clock selects between the two calendar windows that the caller gave; `5h` starts now, at its first use. */
function windowEnd(rule: LimitRule, now_ms: number): number {
  const window = rule.window
  if (window === null) return Infinity
  if (window.name === '5h') return now_ms + FIVE_HOURS_MS
  return now_ms < window.end_ms ? window.end_ms : window.next_end_ms
}

function positive(value: bigint): bigint {
  return value > 0n ? value : 0n
}
