import { assert } from '../../base/assert.ts'
import { CONCURRENCY_RETRY_MS, noRoom, type NoRoom, positive, rateLimit, SCALE, windowEnd } from '../memory/counters.ts'
import { tighter } from '../memory/needs.ts'
import type { LimitRule, LimitState, RateState, RateStates } from '../ports.ts'
import { isRate } from './keys.ts'
import { amountOf, listOf, numberOf, type Reply } from './replies.ts'

/** A token bucket as it was at one time (`scripts/lib/rates.lua`). */
interface Bucket {
  readonly limit: number
  readonly level: number
  readonly at_ms: number
}
const UNUSED: Bucket = { limit: 0, level: 0, at_ms: 0 }

function bucketOf(value: unknown): Bucket {
  if (value === null) return UNUSED
  const [limit, level, at_ms] = listOf(value)
  return { limit: numberOf(limit), level: numberOf(level), at_ms: numberOf(at_ms) }
}

/** Refilled until now; a changed limit keeps what was used. */
function levelAt(bucket: Bucket, limit: number, now_ms: number): number {
  const refilled = Math.min(bucket.limit * SCALE, bucket.level + bucket.limit * (now_ms - bucket.at_ms))
  return refilled + (limit - bucket.limit) * SCALE
}

function rateState(rule: LimitRule, value: unknown, now_ms: number): RateState {
  const limit = rateLimit(rule)
  const level = levelAt(bucketOf(value), limit, now_ms)
  const remaining = Math.max(0, Math.floor(level / SCALE))
  return { limit, remaining, reset_ms: limit === 0 ? 0 : Math.ceil((limit * SCALE - level) / limit) }
}

/** The tightest rate of each unit; `values` are the counters of the rates among `rules`, in their order. */
export function ratesOf(rules: readonly LimitRule[], values: Reply, now_ms: number): RateStates {
  let requests: RateState | null = null
  let tokens: RateState | null = null
  for (const [index, rule] of rules.filter(isRate).entries()) {
    const state = rateState(rule, values[index], now_ms)
    if (rule.kind === 'requests_per_minute') requests = tighter(requests, state)
    else tokens = tighter(tokens, state)
  }
  return { requests, tokens }
}

/** Why a limit has no room, from what its counter had to say. */
export function roomOf(rule: LimitRule, value: unknown, need: bigint, now_ms: number): NoRoom {
  if (isRate(rule)) return rateRoom(rule, bucketOf(value), need, now_ms)
  if (rule.kind === 'concurrency') {
    // `available` is the limit itself: the message says how many run and how many may.
    const frees_at_ms = rule.limit < need ? null : now_ms + CONCURRENCY_RETRY_MS
    return { available: rule.limit, held: amountOf(value), frees_at_ms }
  }
  const [used, held, end] = listOf(value)
  const window = { used: amountOf(used), held: amountOf(held), end_ms: endOf(end) }
  const room = noRoom(window, rule.limit, need, now_ms)
  assert(room !== null, 'a limit that has room was said to have none')
  return room
}

function rateRoom(rule: LimitRule, bucket: Bucket, need: bigint, now_ms: number): NoRoom {
  const limit = rateLimit(rule)
  const level = levelAt(bucket, limit, now_ms)
  const never = Number(need) > limit || limit === 0
  const frees_at_ms = never ? null : now_ms + Math.ceil((Number(need) * SCALE - level) / limit)
  return { available: BigInt(Math.max(0, Math.floor(level / SCALE))), held: 0n, frees_at_ms }
}

/** Where a limit stands, from its counter; null where nobody has used it. */
export function standingOf(rule: LimitRule, value: unknown, now_ms: number): LimitState {
  if (isRate(rule)) {
    const { limit, remaining, reset_ms } = rateState(rule, value, now_ms)
    return { rule, available: BigInt(remaining), held: 0n, used: null, resets_at_ms: limit === 0 ? null : now_ms + reset_ms }
  }
  if (rule.kind === 'concurrency') {
    const held = value === null ? 0n : amountOf(value)
    return { rule, available: positive(rule.limit - held), held, used: null, resets_at_ms: null }
  }
  return meterStanding(rule, value, now_ms)
}

function meterStanding(rule: LimitRule, value: unknown, now_ms: number): LimitState {
  const [end, used, held] = value === null ? [null, null, null] : listOf(value)
  if (end === null || endOf(end) <= now_ms) {
    const end_ms = windowEnd(rule, now_ms)
    const resets_at_ms = end_ms === Infinity || rule.window?.name === '5h' ? null : end_ms
    return { rule, available: positive(rule.limit), held: 0n, used: 0n, resets_at_ms }
  }
  const window = { used: amountOf(used), held: amountOf(held) }
  const end_ms = endOf(end)
  return { rule, available: positive(rule.limit - window.used - window.held), ...window, resets_at_ms: end_ms === Infinity ? null : end_ms }
}

/** The end of a window, which is `-` where there is none. */
function endOf(value: unknown): number {
  return value === '-' ? Infinity : numberOf(value)
}
