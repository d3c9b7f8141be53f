import { FAILURES } from './failure.ts'
import type { FailureKind } from './failure.ts'

/** When a breaker opens and for how long. All limits written, all in ms but the count. */
export interface BreakerRules {
  /** Consecutive breaking failures that open it: enough that a lone target is not shut for a handful of odd requests. */
  readonly failures_to_open: number
  /** First cool-down; doubles with every failed probe. */
  readonly cooldown_ms: number
  readonly cooldown_cap_ms: number
  /** First cool-down after `auth`, `balance` or `quota`, which only an operator can mend; doubles likewise. */
  readonly account_cooldown_ms: number
  readonly account_cooldown_cap_ms: number
  /** Longest `Retry-After` that is believed. */
  readonly retry_after_cap_ms: number
  /** A probe without an outcome after this long is given up, so that a lost one cannot block the endpoint. */
  readonly probe_lease_ms: number
}

export const BREAKER_RULES: BreakerRules = Object.freeze({
  failures_to_open: 10,
  cooldown_ms: 5_000,
  cooldown_cap_ms: 120_000,
  account_cooldown_ms: 60_000,
  account_cooldown_cap_ms: 600_000,
  retry_after_cap_ms: 600_000,
  probe_lease_ms: 60_000,
})

/** The health of one endpoint, as a value. `closed` takes traffic, `open` none, `half_open` waits for one probe. */
export interface BreakerState {
  readonly phase: 'closed' | 'open' | 'half_open'
  /** Consecutive breaking failures while closed. */
  readonly failures: number
  /** Times it has opened without closing in between: what makes the cool-down grow. */
  readonly openings: number
  /** `open`: when a probe may go. `half_open`: when the probe is given up. 0 while closed. */
  readonly until_ms: number
  /** The upstream asked to be left alone until then. Independent of the phase. */
  readonly cooling_until_ms: number
}

export const initialBreaker: BreakerState = Object.freeze({ phase: 'closed', failures: 0, openings: 0, until_ms: 0, cooling_until_ms: 0 })

/** Failures of the account, not of one request: nothing gets better by trying again soon. */
const ACCOUNT_KINDS: ReadonlySet<FailureKind> = new Set(['auth', 'balance', 'quota'])
/** The upstream answered properly, so it is alive; the fault is the caller's or the pace's. */
const ALIVE_KINDS: ReadonlySet<FailureKind> = new Set(['rate', 'content', 'invalid', 'context_length'])

/**
 * The state after a failure.
 *
 * @param now_ms wall clock, milliseconds since the epoch
 * @param retry_after_ms what the upstream asked for, or null; respected for every kind, without opening
 */
export function afterFailure(
  state: BreakerState,
  kind: FailureKind,
  now_ms: number,
  retry_after_ms: number | null,
  rules: BreakerRules = BREAKER_RULES,
): BreakerState {
  const next = afterKind(state, kind, now_ms, rules)
  if (retry_after_ms === null || retry_after_ms <= 0) return next
  const cooling_until_ms = now_ms + Math.min(retry_after_ms, rules.retry_after_cap_ms)
  return cooling_until_ms > next.cooling_until_ms ? { ...next, cooling_until_ms } : next
}

function afterKind(state: BreakerState, kind: FailureKind, now_ms: number, rules: BreakerRules): BreakerState {
  if (ACCOUNT_KINDS.has(kind)) return opened(state, now_ms, rules.account_cooldown_ms, rules.account_cooldown_cap_ms)
  if (ALIVE_KINDS.has(kind)) return afterSuccess(state)
  // Neither good nor bad news of the upstream: a probe that ended so is given back for the next request.
  if (!FAILURES[kind].breaks) return state.phase === 'half_open' ? { ...state, phase: 'open', until_ms: now_ms } : state
  // Requests that were already running when it opened say nothing new.
  if (state.phase === 'open') return state
  const failures = state.failures + 1
  if (state.phase === 'closed' && failures < rules.failures_to_open) return { ...state, failures }
  return opened(state, now_ms, rules.cooldown_ms, rules.cooldown_cap_ms)
}

function opened(state: BreakerState, now_ms: number, first_ms: number, cap_ms: number): BreakerState {
  // Only a failed probe makes the cool-down grow: a hundred requests that fail together are one piece of news.
  const openings = state.phase === 'open' ? state.openings : state.openings + 1
  const cooldown_ms = Math.min(first_ms * 2 ** (openings - 1), cap_ms)
  return {
    ...state,
    phase: 'open',
    failures: 0,
    openings,
    until_ms: Math.max(state.phase === 'open' ? state.until_ms : 0, now_ms + cooldown_ms),
  }
}

/** The state after an answer. While open it changes nothing: a request from before the opening proves nothing, the probe decides. */
export function afterSuccess(state: BreakerState): BreakerState {
  if (state.phase === 'open') return state
  if (state.phase === 'closed' && state.failures === 0 && state.openings === 0) return state
  return { ...initialBreaker, cooling_until_ms: state.cooling_until_ms }
}

/** May a request go now? `probe` means only as the one probe, after {@link takeProbe}. */
export function mayTry(state: BreakerState, now_ms: number): 'yes' | 'probe' | 'no' {
  if (now_ms < state.cooling_until_ms || now_ms < state.until_ms) return 'no'
  return state.phase === 'closed' ? 'yes' : 'probe'
}

/** The state once the probe is on its way. Call only when {@link mayTry} said `probe`. */
export function takeProbe(state: BreakerState, now_ms: number, rules: BreakerRules = BREAKER_RULES): BreakerState {
  return { ...state, phase: 'half_open', until_ms: now_ms + rules.probe_lease_ms }
}

/** When a request may go again, ms since the epoch; 0 if nothing holds it back. */
export function retryAt(state: BreakerState): number {
  return Math.max(state.until_ms, state.cooling_until_ms)
}

/** The breakers of one process, by endpoint id. Healthy endpoints take no room. */
export class BreakerBoard {
  readonly #rules: BreakerRules
  readonly #states = new Map<string, BreakerState>()

  constructor(rules: BreakerRules = BREAKER_RULES) {
    this.#rules = rules
  }

  /** Could a request go to the endpoint now, if only as a probe? Changes nothing. */
  mayTry(endpoint: string, now_ms: number): boolean {
    const state = this.#states.get(endpoint)
    return state === undefined || mayTry(state, now_ms) !== 'no'
  }

  /** Call right before a try. False: skip the endpoint. True: go, and tell the outcome by `success` or `failure`, whatever it is. */
  begin(endpoint: string, now_ms: number): boolean {
    const state = this.#states.get(endpoint)
    if (state === undefined) return true
    const answer = mayTry(state, now_ms)
    if (answer === 'probe') this.#states.set(endpoint, takeProbe(state, now_ms, this.#rules))
    return answer !== 'no'
  }

  failure(endpoint: string, kind: FailureKind, now_ms: number, retry_after_ms: number | null): void {
    const state = this.#states.get(endpoint) ?? initialBreaker
    this.#keep(endpoint, state, afterFailure(state, kind, now_ms, retry_after_ms, this.#rules))
  }

  /** A try that `begin` let go has taught nothing of the endpoint: a probe is given back. */
  inconclusive(endpoint: string, now_ms: number): void {
    const state = this.#states.get(endpoint)
    if (state?.phase === 'half_open') this.#states.set(endpoint, { ...state, phase: 'open', until_ms: now_ms })
  }

  success(endpoint: string): void {
    const state = this.#states.get(endpoint)
    if (state !== undefined) this.#keep(endpoint, state, afterSuccess(state))
  }

  /** When the endpoint may be tried again, ms since the epoch; 0 if nothing holds it back. */
  retryAt(endpoint: string): number {
    return retryAt(this.stateOf(endpoint))
  }

  stateOf(endpoint: string): BreakerState {
    return this.#states.get(endpoint) ?? initialBreaker
  }

  /** Forgets every endpoint that is not in the catalogue any more; call when the catalogue was swapped. */
  prune(known: ReadonlySet<string>): void {
    for (const endpoint of this.#states.keys()) {
      if (!known.has(endpoint)) this.#states.delete(endpoint)
    }
  }

  /** Number of endpoints with a remembered state, at most those of the catalogue. */
  get size(): number {
    return this.#states.size
  }

  #keep(endpoint: string, before: BreakerState, after: BreakerState): void {
    if (after === before) return
    const healthy = after.phase === 'closed' && after.failures === 0 && after.cooling_until_ms === 0
    if (healthy) this.#states.delete(endpoint)
    else this.#states.set(endpoint, after)
  }
}
