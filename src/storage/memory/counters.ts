import { assert } from '../../base/assert.ts'
import type { LimitRule, LimitState, RateState } from '../ports.ts'

/** Bucket levels are kept in units × 60 000, so that refilling `limit` units a minute is exact in whole milliseconds. */
export const SCALE = 60_000
/** The largest limit whose scaled level is still a safe integer; larger ones count as this. */
const MAX_RATE = Math.floor(Number.MAX_SAFE_INTEGER / SCALE / 2)
const FIVE_HOURS_MS = 5 * 3_600_000
export const CONCURRENCY_RETRY_MS = 1000
/** So long after a hold was closed by a sweep a late settle may still replace the sweep's charge (SEMANTICS 14). */
export const LATE_SETTLE_MS = 15 * 60_000

/** Why a counter has no room. `frees_at_ms` is null when waiting does not help. */
export interface NoRoom {
  readonly available: bigint
  readonly held: bigint
  readonly frees_at_ms: number | null
}

/** A share of one counter that belongs to one hold: in the window that the hold was admitted in, also when that one is over. */
export interface Share {
  /** Why it cannot grow by so much, or null. An answer that is running is not cut for a rate, which refills by itself. */
  check(more: bigint, now_ms: number): NoRoom | null
  /** Takes more; room was checked before, or debt is allowed. */
  grow(amount: bigint, now_ms: number): void
  /** Replaces what is held by what was used. Called again, it replaces the earlier figure (a late settle). */
  settle(used: bigint, now_ms: number): void
  /** Gives everything back. */
  release(now_ms: number): void
}

/** One limit's state. Only `take` and what its share does change it: a refusal leaves no trace, not even of a new limit. */
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
  #open = 0
  #closed_ms = 0

  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null {
    const limit = rateLimit(rule)
    const level = this.#levelAt(limit, now_ms)
    const missing = Number(need) * SCALE - level
    if (missing <= 0) return null
    const never = Number(need) > limit || limit === 0
    const frees_at_ms = never ? null : now_ms + Math.ceil(missing / limit)
    return { available: BigInt(Math.max(0, Math.floor(level / SCALE))), held: 0n, frees_at_ms }
  }

  take(rule: LimitRule, need: bigint, now_ms: number): Share {
    let taken = 0n
    let open = true
    const move = (amount: bigint, limit: number, at_ms: number): void => {
      const level = this.#levelAt(limit, at_ms) - Number(amount) * SCALE
      this.#limit = limit
      this.#level = Math.min(limit * SCALE, level)
      this.#at_ms = at_ms
      taken += amount
    }
    const end = (used: bigint, at_ms: number): void => {
      move(used - taken, this.#limit, at_ms)
      if (open) this.#open -= 1
      open = false
      this.#closed_ms = at_ms
    }
    this.#open += 1
    move(need, rateLimit(rule), now_ms)
    return {
      check: () => null,
      grow: (amount, at_ms) => move(amount, this.#limit, at_ms),
      settle: end,
      release: (at_ms) => end(0n, at_ms),
    }
  }

  state(rule: LimitRule, now_ms: number): RateState {
    const limit = rateLimit(rule)
    const level = this.#levelAt(limit, now_ms)
    const remaining = Math.max(0, Math.floor(level / SCALE))
    const reset_ms = limit === 0 ? 0 : Math.ceil((limit * SCALE - level) / limit)
    return { limit, remaining, reset_ms }
  }

  standing(rule: LimitRule, now_ms: number): Omit<LimitState, 'rule'> {
    const { limit, remaining, reset_ms } = this.state(rule, now_ms)
    return { available: BigInt(remaining), held: 0n, used: null, resets_at_ms: limit === 0 ? null : now_ms + reset_ms }
  }

  idle(now_ms: number): boolean {
    const full = this.#levelAt(this.#limit, now_ms) >= this.#limit * SCALE
    return full && this.#open === 0 && now_ms - this.#closed_ms >= LATE_SETTLE_MS
  }

  /** Refilled until now; a changed limit keeps what was used (SEMANTICS 12). */
  #levelAt(limit: number, now_ms: number): number {
    const refilled = Math.min(this.#limit * SCALE, this.#level + this.#limit * (now_ms - this.#at_ms))
    return refilled + (limit - this.#limit) * SCALE
  }
}

export function rateLimit(rule: LimitRule): number {
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
    return { check: () => null, grow: () => undefined, settle: end, release: end }
  }

  standing(rule: LimitRule): Omit<LimitState, 'rule'> {
    return { available: positive(rule.limit - this.#held), held: this.#held, used: null, resets_at_ms: null }
  }

  idle(): boolean {
    return this.#held === 0n
  }
}

export interface MeterWindow {
  /** `Infinity` for a budget without a window. */
  readonly end_ms: number
  used: bigint
  held: bigint
}

/** Used and held units of one window, or of all time where the rule has no window. A window that is over lives on in its shares. */
export class MeterCounter implements Counter {
  #window: MeterWindow | null = null
  #open = 0
  #closed_ms = 0

  check(rule: LimitRule, need: bigint, now_ms: number): NoRoom | null {
    return noRoom(this.#at(rule, now_ms), rule.limit, need, now_ms)
  }

  /** Units of the limit that are neither used nor held. */
  room(rule: LimitRule, now_ms: number): bigint {
    const { used, held } = this.#at(rule, now_ms)
    return positive(rule.limit - used - held)
  }

  take(rule: LimitRule, need: bigint, now_ms: number): Share {
    const window = this.#at(rule, now_ms)
    this.#window = window
    let held = 0n
    let used = 0n
    const change = (new_held: bigint, new_used: bigint): void => {
      window.held += new_held - held
      window.used += new_used - used
      assert(window.held >= 0n, 'held in a window below zero')
      held = new_held
      used = new_used
    }
    let open = true
    const end = (new_used: bigint, at_ms: number): void => {
      change(0n, new_used)
      if (open) this.#open -= 1
      open = false
      this.#closed_ms = at_ms
    }
    this.#open += 1
    change(need, 0n)
    return {
      check: (more, at_ms) => noRoom(window, rule.limit, more, at_ms),
      grow: (amount) => change(held + amount, used),
      settle: end,
      release: (at_ms) => end(0n, at_ms),
    }
  }

  /** Start of the `5h` window that was taken from last. */
  get begun_ms(): number {
    return (this.#window?.end_ms ?? 0) - FIVE_HOURS_MS
  }

  standing(rule: LimitRule, now_ms: number): Omit<LimitState, 'rule'> {
    const window = this.#at(rule, now_ms)
    const { used, held, end_ms } = window
    const started = rule.window?.name !== '5h' || window === this.#window
    const resets_at_ms = end_ms === Infinity || !started ? null : end_ms
    return { available: positive(rule.limit - used - held), held, used, resets_at_ms }
  }

  /** Corrects what was used in the window that ends at `end_ms`, beside whatever is held there. Changes nothing if that window is over. */
  shift(rule: LimitRule, delta: bigint, end_ms: number, now_ms: number): void {
    const window = this.#at(rule, now_ms)
    if (window.end_ms !== end_ms) return
    window.used += delta
    this.#window = window
  }

  /** Sets what events say was used before this process started. */
  restore(used: bigint, end_ms: number): void {
    this.#window = { end_ms, used, held: 0n }
  }

  idle(now_ms: number): boolean {
    const window = this.#window
    if (window === null || now_ms >= window.end_ms) return true
    // A window that has begun is kept: `5h` must end when it would have.
    if (window.end_ms !== Infinity) return false
    return window.used === 0n && this.#open === 0 && now_ms - this.#closed_ms >= LATE_SETTLE_MS
  }

  /** The window that now is in: the one that is known, or a fresh one that nobody has used yet. */
  #at(rule: LimitRule, now_ms: number): MeterWindow {
    if (this.#window !== null && now_ms < this.#window.end_ms) return this.#window
    return { end_ms: windowEnd(rule, now_ms), used: 0n, held: 0n }
  }
}

export function noRoom({ used, held, end_ms }: MeterWindow, limit: bigint, need: bigint, now_ms: number): NoRoom | null {
  if (used + held + need <= limit) return null
  const frees = need <= limit && end_ms !== Infinity && end_ms > now_ms
  return { available: positive(limit - used - held), held, frees_at_ms: frees ? end_ms : null }
}

/** The driver's clock selects between the two calendar windows that the caller gave; `5h` starts now, at its first use. */
export function windowEnd(rule: LimitRule, now_ms: number): number {
  const window = rule.window
  if (window === null) return Infinity
  if (window.name === '5h') return now_ms + FIVE_HOURS_MS
  return now_ms < window.end_ms ? window.end_ms : window.next_end_ms
}

export function positive(value: bigint): bigint {
  return value > 0n ? value : 0n
}
