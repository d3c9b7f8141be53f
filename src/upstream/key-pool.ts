import type { Capacity } from './capacity.ts'
import type { FailureKind } from './failure.ts'

/** One of several keys of a provider's account, or of several accounts. */
export interface ProviderKey {
  /** `<owner>/<name>`: what is known of it is kept by this. */
  readonly id: string
  /** How people call it. The only thing of it that is ever shown, with its id. */
  readonly name: string
  /** Never logged, never shown. */
  readonly secret: string
  readonly weight: number
  readonly capacity: Capacity | null
}

/** The keys that a request to an endpoint may use. Endpoints with the same pool share what is left of each key. */
export interface KeyPool {
  /** The provider, or the endpoint whose own keys they are. */
  readonly id: string
  readonly keys: readonly ProviderKey[]
}

/** How long a key that was refused is left alone. */
export interface KeyRules {
  /** First pause after `rate`; doubles with every refusal in a row. */
  readonly rate_cooldown_ms: number
  readonly rate_cooldown_cap_ms: number
  /** First pause after `auth`, `balance` or `quota`, which only an operator can mend; doubles likewise. */
  readonly account_cooldown_ms: number
  readonly account_cooldown_cap_ms: number
  /** Longest `Retry-After` that is believed. */
  readonly retry_after_cap_ms: number
  /** A try after a pause that has no outcome after this long is given up, so that a lost one cannot block the key. */
  readonly probe_lease_ms: number
}

export const KEY_RULES: KeyRules = Object.freeze({
  rate_cooldown_ms: 1_000,
  rate_cooldown_cap_ms: 60_000,
  account_cooldown_ms: 60_000,
  account_cooldown_cap_ms: 600_000,
  retry_after_cap_ms: 600_000,
  probe_lease_ms: 60_000,
})

/** What is known of one key, as a value. */
export interface KeyState {
  /** Refusals without an answer in between; those of requests that ran at the same time count once. */
  readonly refusals: number
  /** Left alone until then. */
  readonly until_ms: number
  /** One try is on its way to find out whether it is taken again; given up then. 0: none. */
  readonly probe_until_ms: number
}

export const freshKey: KeyState = Object.freeze({ refusals: 0, until_ms: 0, probe_until_ms: 0 })

export type KeyPhase = 'ready' | 'cooling' | 'probing'

/** Refusals of a key, not of a request: another key may be taken. */
const KEY_KINDS: ReadonlySet<FailureKind> = new Set(['auth', 'balance', 'quota', 'rate'])
/** The key was taken; what was refused is the request. */
const TAKEN_KINDS: ReadonlySet<FailureKind> = new Set(['content', 'invalid', 'context_length'])

/** Whether a failure says that the key was refused. */
export function refusesKey(kind: FailureKind): boolean {
  return KEY_KINDS.has(kind)
}

/** `cooling` takes no request, `probing` none beside the one on its way. */
export function phaseOf(state: KeyState, now_ms: number): KeyPhase {
  if (now_ms < state.until_ms) return 'cooling'
  return now_ms < state.probe_until_ms ? 'probing' : 'ready'
}

/** The state when a request takes the key, of which {@link phaseOf} said `ready`. */
export function afterTaking(state: KeyState, now_ms: number, rules: KeyRules = KEY_RULES): KeyState {
  return state.refusals === 0 ? state : { ...state, probe_until_ms: now_ms + rules.probe_lease_ms }
}

/**
 * The state after a failed try.
 *
 * @param now_ms wall clock, milliseconds since the epoch
 * @param retry_after_ms what the provider asked for, or null
 */
export function afterFailedTry(
  state: KeyState,
  kind: FailureKind,
  now_ms: number,
  retry_after_ms: number | null,
  rules: KeyRules = KEY_RULES,
): KeyState {
  if (TAKEN_KINDS.has(kind)) return afterAnswer(state, now_ms)
  // Nothing was learned of the key: the next request may find out.
  if (!KEY_KINDS.has(kind)) return state.probe_until_ms === 0 ? state : { ...state, probe_until_ms: 0 }
  const asked_ms = Math.min(retry_after_ms ?? 0, rules.retry_after_cap_ms)
  const cooling = now_ms < state.until_ms
  const refusals = cooling ? state.refusals : state.refusals + 1
  const pause_ms = Math.max(asked_ms, cooling ? 0 : pauseOf(kind, refusals, rules))
  return { refusals, until_ms: Math.max(state.until_ms, now_ms + pause_ms), probe_until_ms: 0 }
}

/** The state after an answer. While it is left alone it changes nothing: a request from before proves nothing. */
export function afterAnswer(state: KeyState, now_ms: number): KeyState {
  return now_ms < state.until_ms ? state : freshKey
}

function pauseOf(kind: FailureKind, refusals: number, rules: KeyRules): number {
  const [first_ms, cap_ms] =
    kind === 'rate' ? [rules.rate_cooldown_ms, rules.rate_cooldown_cap_ms] : [rules.account_cooldown_ms, rules.account_cooldown_cap_ms]
  return Math.min(first_ms * 2 ** Math.min(refusals - 1, 30), cap_ms)
}

/**
 * The same, but by chances that are the same whenever a conversation is: it stays with its key as long as that one can be used (weighted
 * rendezvous, as in routing/draw.ts).
 *
 * @param chance a number in (0, 1) for each key's id
 */
export function drawSteadily(keys: readonly ProviderKey[], chance: (id: string) => number): ProviderKey | null {
  let drawn: ProviderKey | null = null
  let best = -Infinity
  for (const key of keys) {
    const rank = Math.log(chance(key.id)) / key.weight
    if (drawn !== null && rank <= best) continue
    drawn = key
    best = rank
  }
  return drawn
}

/** Draws one of the keys by weight; null of none. @param random a number in [0, 1) */
export function drawKey(keys: readonly ProviderKey[], random: number): ProviderKey | null {
  const total = keys.reduce((sum, { weight }) => sum + weight, 0)
  let left = random * total
  for (const key of keys) {
    left -= key.weight
    if (left < 0) return key
  }
  return keys.at(-1) ?? null
}
