import { assert } from '../../base/assert.ts'
import type { HeldPart } from '../../money/grant.ts'
import type { HoldRequest, LimitRule, RateState, RateStates } from '../ports.ts'
import { limitName } from '../rules.ts'
import { type Counter, MeterCounter, RateCounter } from './counters.ts'

/** A rule of a request beside the counter that it is counted by. */
export interface CheckedRule {
  readonly rule: LimitRule
  readonly counter: Counter
}

/** What one request needs of a limit, in the limit's unit. */
export function needOf(rule: LimitRule, tokens: number, amount_nano: bigint): bigint {
  switch (rule.kind) {
    case 'requests_per_minute':
    case 'requests_window':
    case 'concurrency':
      return 1n
    case 'tokens_per_minute':
    case 'tokens_window':
      return BigInt(tokens)
    case 'amount_window':
    case 'budget':
      return amount_nano
  }
}

/** What must be covered at least; something that costs money is never admitted on nothing. */
export function leastAmount(request: HoldRequest): bigint {
  const { amount_nano, minimum_nano } = request
  if (amount_nano === 0n) return 0n
  if (minimum_nano <= 0n) return 1n
  return minimum_nano < amount_nano ? minimum_nano : amount_nano
}

/** As much of an amount as every budget and money window has room for. */
export function capByBudgets(amount_nano: bigint, rules: readonly CheckedRule[], now_ms: number): bigint {
  let cap = amount_nano
  for (const { rule, counter } of rules) {
    if (rule.kind !== 'budget' && rule.kind !== 'amount_window') continue
    assert(counter instanceof MeterCounter, 'a budget without its meter')
    const room = counter.room(rule, now_ms)
    if (room < cap) cap = room
  }
  return cap
}

/** The tightest rate of each unit. */
export function ratesOf(rules: readonly CheckedRule[], now_ms: number): RateStates {
  let requests: RateState | null = null
  let tokens: RateState | null = null
  for (const { rule, counter } of rules) {
    if (!(counter instanceof RateCounter)) continue
    const state = counter.state(rule, now_ms)
    if (rule.kind === 'requests_per_minute') requests = tighter(requests, state)
    else tokens = tighter(tokens, state)
  }
  return { requests, tokens }
}

export function tighter(known: RateState | null, other: RateState): RateState {
  if (known === null) return other
  return other.remaining * known.limit < known.remaining * other.limit ? other : known
}

/** Parts after an extension: what a grant reserves more joins the part that it has. */
export function joined(parts: readonly HeldPart[], added: readonly HeldPart[]): readonly HeldPart[] {
  const sum = parts.map((part) => ({ ...part }))
  for (const more of added) {
    const known = sum.find((part) => part.grant === more.grant && part.unit === more.unit)
    if (known === undefined) sum.push({ ...more })
    else known.amount += more.amount
  }
  return sum
}

/** When the `5h` windows among `rules` began that a hold has just been counted in, by {@link limitName}; null without one. */
export function begunOf(rules: readonly CheckedRule[]): Readonly<Record<string, number>> | null {
  let begun: Record<string, number> | null = null
  for (const { rule, counter } of rules) {
    if (rule.window?.name !== '5h' || !(counter instanceof MeterCounter)) continue
    begun ??= {}
    begun[limitName(rule)] = counter.begun_ms
  }
  return begun
}
