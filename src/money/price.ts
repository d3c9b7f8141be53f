import { assert, InvariantError } from '../base/assert.ts'
import { dayOf, SHANGHAI_OFFSET_MS } from '../base/clock.ts'
import { maxBig, PICO_PER_NANO, roundPicoToNano } from './amount.ts'
import type { PaidCalls, TokenUsage } from './usage.ts'

/** Prices are integer pico-yuan (1e-12 CNY) per token, so six decimals of CNY per million tokens are exact. */
export interface TokenPrices {
  readonly input: bigint
  readonly cached_input: bigint
  readonly cache_write: bigint
  readonly output: bigint
}
/** Nano-yuan per paid call. */
export interface CallPrices {
  readonly search: bigint
  readonly image: bigint
}

/** What must hold for a rule to apply. Absent members always hold. Lengths are token counts. */
export interface PriceCondition {
  /** Name of a window of the calendar, e.g. `peak`; judged at `admitted_at`. */
  readonly window?: string
  readonly input_above?: number
  readonly input_up_to?: number
  readonly output_above?: number
  readonly output_up_to?: number
  readonly thinking?: boolean
}
export interface PriceRule {
  readonly name: string
  readonly when: PriceCondition
  readonly tokens: TokenPrices
  readonly calls: CallPrices
}
/** One published version: never changed, only superseded. The last rule has no condition. */
export interface PriceVersion {
  readonly id: string
  readonly effective_from: number
  readonly rules: readonly PriceRule[]
  readonly source: string
  readonly as_of: string
}

/** Times of day (minutes after midnight, Asia/Shanghai) on working days; holidays and make-up days are data. */
export interface TradingCalendar {
  readonly windows: ReadonlyMap<string, readonly { readonly from_minute: number; readonly to_minute: number }[]>
  /** `2026-10-01` style dates that are no working days although the weekday says so. */
  readonly holidays: ReadonlySet<string>
  /** Weekend dates that are worked. */
  readonly workdays: ReadonlySet<string>
}

/** What is known of a request once it was answered, as far as a price may depend on it. Times in Unix ms, lengths in tokens. */
export interface PricedFacts {
  readonly admitted_at: number
  /** Every input class: input + cached_input + cache_write. */
  readonly input_total: number
  readonly output: number
  readonly thinking: boolean
}

/** What an answer costs, and the name of the rule that said so. */
export interface Charge {
  readonly amount_nano: bigint
  readonly rule: string
}

/**
 * The version in force at an instant: the newest whose `effective_from` is not later, or null if none is in force yet.
 * Takes the versions in any order.
 */
export function priceAt(versions: readonly PriceVersion[], at_ms: number): PriceVersion | null {
  let newest: PriceVersion | null = null
  for (const version of versions) {
    if (version.effective_from > at_ms) continue
    if (newest === null || version.effective_from > newest.effective_from) newest = version
  }
  return newest
}

/**
 * The first rule of a version whose condition holds. `above` is exclusive, `up_to` inclusive.
 * @throws InvariantError if no rule holds, which the configuration rules out by asking for a last rule without a condition
 */
export function rulesFor(version: PriceVersion, facts: PricedFacts, calendar: TradingCalendar): PriceRule {
  for (const rule of version.rules) {
    if (holds(rule.when, facts, calendar)) return rule
  }
  throw new InvariantError(`price version ${version.id} has no rule without a condition`)
}

function holds(when: PriceCondition, facts: PricedFacts, calendar: TradingCalendar): boolean {
  if (when.thinking !== undefined && when.thinking !== facts.thinking) return false
  if (when.input_above !== undefined && facts.input_total <= when.input_above) return false
  if (when.input_up_to !== undefined && facts.input_total > when.input_up_to) return false
  if (when.output_above !== undefined && facts.output <= when.output_above) return false
  if (when.output_up_to !== undefined && facts.output > when.output_up_to) return false
  return when.window === undefined || windowOf(calendar, facts.admitted_at, when.window)
}

const MINUTE_MS = 60_000
const MINUTES_PER_DAY = 1440

/**
 * Whether an instant (Unix ms) lies in a named window of the calendar: on a working day of Asia/Shanghai, within one of the
 * window's times of day, start included and end excluded. Working days are Monday to Friday without the holidays,
 * and the make-up days that the State Council's holiday schedule puts on weekends. Windows do not run past midnight.
 * @throws InvariantError for a window that the calendar does not have
 */
export function windowOf(calendar: TradingCalendar, at_ms: number, name: string): boolean {
  const spans = calendar.windows.get(name)
  assert(spans !== undefined, `the price calendar has no window named ${name}`)
  const minutes = Math.floor((at_ms + SHANGHAI_OFFSET_MS) / MINUTE_MS)
  const minute_of_day = ((minutes % MINUTES_PER_DAY) + MINUTES_PER_DAY) % MINUTES_PER_DAY
  // The time of day first: it is cheaper than the date, and most instants fail it.
  return spans.some((span) => span.from_minute <= minute_of_day && minute_of_day < span.to_minute) && isWorkingDay(calendar, at_ms)
}

function isWorkingDay(calendar: TradingCalendar, at_ms: number): boolean {
  const date = dayOf(at_ms)
  if (calendar.workdays.has(date)) return true
  const weekday = new Date(at_ms + SHANGHAI_OFFSET_MS).getUTCDay()
  return weekday !== 0 && weekday !== 6 && !calendar.holidays.has(date)
}

/**
 * The price of one answer in nano-yuan under the rule that applies to it. Pico-yuan are summed over all token classes and
 * paid calls and rounded once, half up. The same function serves the sell side and the cost side.
 * @throws InvariantError if a count is not a non-negative safe integer
 */
export function charge(
  version: PriceVersion,
  usage: TokenUsage,
  calls: PaidCalls,
  facts: Pick<PricedFacts, 'admitted_at' | 'thinking'>,
  calendar: TradingCalendar,
): Charge {
  const input_total = usage.input + usage.cached_input + usage.cache_write
  const rule = rulesFor(version, { ...facts, input_total, output: usage.output }, calendar)
  const prices = rule.tokens
  const tokens_pico =
    countOf(usage.input) * prices.input +
    countOf(usage.cached_input) * prices.cached_input +
    countOf(usage.cache_write) * prices.cache_write +
    countOf(usage.output) * prices.output
  const calls_nano = countOf(calls.search) * rule.calls.search + countOf(calls.image) * rule.calls.image
  return { amount_nano: roundPicoToNano(tokens_pico + calls_nano * PICO_PER_NANO), rule: rule.name }
}

/**
 * An upper bound in nano-yuan of what {@link charge} can ask for at most `bound.input` input tokens of whichever class and
 * `bound.output` output tokens, whichever rule turns out to apply. Paid calls are not in it.
 * @throws InvariantError if a count is not a non-negative safe integer
 */
export function dearest(version: PriceVersion, bound: { readonly input: number; readonly output: number }): bigint {
  const input = countOf(bound.input)
  const output = countOf(bound.output)
  let dearest_pico = 0n
  for (const { tokens } of version.rules) {
    const input_price = maxBig(tokens.input, maxBig(tokens.cached_input, tokens.cache_write))
    dearest_pico = maxBig(dearest_pico, input * input_price + output * tokens.output)
  }
  return roundPicoToNano(dearest_pico)
}

function countOf(count: number): bigint {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new InvariantError(`a count of tokens or calls must be a non-negative safe integer, not ${count}`)
  }
  return BigInt(count)
}
