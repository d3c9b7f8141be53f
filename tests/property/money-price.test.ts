import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { charge, dearest, priceAt, windowOf } from '../../src/money/price.ts'
import type { PriceCondition, PriceRule, PriceVersion, TokenPrices, TradingCalendar } from '../../src/money/price.ts'
import type { PaidCalls, TokenUsage } from '../../src/money/usage.ts'
import { NO_CALLS } from '../../src/money/usage.ts'
import { propertySeed } from '../support/seed.ts'

const PARAMETERS = { seed: propertySeed(), numRuns: 500 }

const CALENDAR: TradingCalendar = {
  windows: new Map([
    [
      'peak',
      [
        { from_minute: 540, to_minute: 720 },
        { from_minute: 840, to_minute: 1080 },
      ],
    ],
  ]),
  holidays: new Set(['2026-10-01', '2026-10-02', '2026-10-05', '2026-10-06', '2026-10-07']),
  workdays: new Set(['2026-09-20', '2026-10-10']),
}

const price = fc.bigInt({ min: 0n, max: 10n ** 9n })
const prices: fc.Arbitrary<TokenPrices> = fc.record({ input: price, cached_input: price, cache_write: price, output: price })
const count = fc.oneof(fc.nat(50), fc.nat(2_000_000), fc.maxSafeNat())
const calls: fc.Arbitrary<PaidCalls> = fc.record({ search: fc.nat(20), image: fc.nat(20) })
const usage: fc.Arbitrary<TokenUsage> = fc.record({
  input: fc.nat(200_000),
  cached_input: fc.nat(200_000),
  cache_write: fc.nat(200_000),
  output: count,
  reasoning: fc.constant(0),
})
const condition: fc.Arbitrary<PriceCondition> = fc.record(
  {
    window: fc.constant('peak'),
    input_above: fc.nat(300_000),
    input_up_to: fc.nat(300_000),
    output_above: fc.nat(100),
    output_up_to: fc.nat(100),
    thinking: fc.boolean(),
  },
  { requiredKeys: [] },
)
const rule: fc.Arbitrary<PriceRule> = fc.record({
  name: fc.string(),
  when: condition,
  tokens: prices,
  calls: fc.record({ search: fc.bigInt({ min: 0n, max: 10n ** 12n }), image: fc.bigInt({ min: 0n, max: 10n ** 12n }) }),
})
const version: fc.Arbitrary<PriceVersion> = fc
  .tuple(fc.array(rule, { maxLength: 5 }), rule)
  .map(([rules, last]) => ({ id: 'v', effective_from: 0, source: '', as_of: '', rules: [...rules, { ...last, when: {} }] }))
const singleRule = version.map((book) => ({ ...book, rules: book.rules.slice(-1) }))
/** Minutes of September and October 2026, with their first and last milliseconds more often than chance. */
const instant = fc
  .tuple(fc.integer({ min: 0, max: 61 * 1440 - 1 }), fc.constantFrom(0, 1, 30_000, 59_999))
  .map(([minute, ms]) => Date.parse('2026-09-01T00:00:00+08:00') + minute * 60_000 + ms)
const facts = fc.record({ admitted_at: instant, thinking: fc.boolean() })

const SHANGHAI = new Intl.DateTimeFormat('sv-SE', { timeZone: 'Asia/Shanghai', dateStyle: 'short', timeStyle: 'medium' })
const WEEKDAY = new Intl.DateTimeFormat('en-US', { timeZone: 'Asia/Shanghai', weekday: 'short' })

/** The same question put to the time zone database and to text comparison. */
function isPeak(at_ms: number): boolean {
  const [date = '', time = ''] = SHANGHAI.format(at_ms).split(' ')
  const weekend = ['Sat', 'Sun'].includes(WEEKDAY.format(at_ms))
  const working = CALENDAR.workdays.has(date) || (!weekend && !CALENDAR.holidays.has(date))
  return working && ((time >= '09:00:00' && time < '12:00:00') || (time >= '14:00:00' && time < '18:00:00'))
}

/** A price as a fraction of CNY, summed term by term over a common denominator and rounded by comparing with the half. */
function slowCharge(applied: PriceRule, used: TokenUsage, paid: PaidCalls): bigint {
  const terms: [bigint, bigint][] = [
    [BigInt(used.input) * applied.tokens.input, 10n ** 12n],
    [BigInt(used.cached_input) * applied.tokens.cached_input, 10n ** 12n],
    [BigInt(used.cache_write) * applied.tokens.cache_write, 10n ** 12n],
    [BigInt(used.output) * applied.tokens.output, 10n ** 12n],
    [BigInt(paid.search) * applied.calls.search, 10n ** 9n],
    [BigInt(paid.image) * applied.calls.image, 10n ** 9n],
  ]
  let [numerator, denominator] = [0n, 1n]
  for (const [n, d] of terms) [numerator, denominator] = [numerator * d + n * denominator, denominator * d]
  const floor_nano = (numerator * 10n ** 9n) / denominator
  const rest = numerator * 10n ** 9n - floor_nano * denominator
  return rest * 2n >= denominator ? floor_nano + 1n : floor_nano
}

function slowRule(book: PriceVersion, used: TokenUsage, at_ms: number, thinking: boolean): PriceRule | undefined {
  const input = used.input + used.cached_input + used.cache_write
  const { output } = used
  return book.rules.find(({ when }) => {
    const required = [
      when.window === undefined || isPeak(at_ms),
      input > (when.input_above ?? -1),
      input <= (when.input_up_to ?? Infinity),
      output > (when.output_above ?? -1),
      output <= (when.output_up_to ?? Infinity),
      thinking === (when.thinking ?? thinking),
    ]
    return required.every(Boolean)
  })
}

function magnitude(value: bigint): bigint {
  return value < 0n ? -value : value
}

describe('the charge', () => {
  test('equals a slow reference in rationals, rule included', () => {
    fc.assert(
      fc.property(version, usage, calls, facts, (book, used, paid, known) => {
        const expected = slowRule(book, used, known.admitted_at, known.thinking)
        expect(expected).toBeDefined()
        if (expected === undefined) return
        expect(charge(book, used, paid, known, CALENDAR)).toEqual({ amount_nano: slowCharge(expected, used, paid), rule: expected.name })
      }),
      PARAMETERS,
    )
  })

  test('of parts sums to the charge of the whole, up to half a nano-yuan for each rounding', () => {
    const small: fc.Arbitrary<TokenUsage> = fc.record({
      input: fc.nat(100_000),
      cached_input: fc.nat(100_000),
      cache_write: fc.nat(100_000),
      output: fc.nat(100_000),
      reasoning: fc.constant(0),
    })
    const parts = fc.array(fc.tuple(small, calls), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(singleRule, parts, facts, (book, list, known) => {
        const sum = list.reduce((total, [used, paid]) => total + charge(book, used, paid, known, CALENDAR).amount_nano, 0n)
        const [used, paid] = list.reduce((a, b) => [
          addUsage(a[0], b[0]),
          { search: a[1].search + b[1].search, image: a[1].image + b[1].image },
        ])
        const whole = charge(book, used, paid, known, CALENDAR).amount_nano
        expect(magnitude(sum - whole) * 2n <= BigInt(list.length) + 1n).toBe(true)
      }),
      PARAMETERS,
    )
  })

  test('never falls when a count rises, within a rule', () => {
    const member = fc.constantFrom('input', 'cached_input', 'cache_write', 'output')
    fc.assert(
      fc.property(singleRule, usage, calls, facts, member, fc.nat(1000), (book, used, paid, known, name, more) => {
        const grown = { ...used, [name]: Math.min(used[name] + more, Number.MAX_SAFE_INTEGER) }
        const before = charge(book, used, paid, known, CALENDAR).amount_nano
        expect(charge(book, grown, paid, known, CALENDAR).amount_nano >= before).toBe(true)
        const searched = charge(book, used, { ...paid, search: paid.search + 1 }, known, CALENDAR).amount_nano
        expect(searched >= before).toBe(true)
      }),
      PARAMETERS,
    )
  })

  test('never exceeds the dearest price of a bound that covers it, and the bound grows with its counts', () => {
    fc.assert(
      fc.property(version, usage, facts, fc.nat(1000), (book, used, known, slack) => {
        const input = used.input + used.cached_input + used.cache_write + slack
        const bound = dearest(book, { input, output: used.output })
        expect(charge(book, used, NO_CALLS, known, CALENDAR).amount_nano <= bound).toBe(true)
        expect(dearest(book, { input: input + 1, output: used.output }) >= bound).toBe(true)
      }),
      PARAMETERS,
    )
  })
})

describe('the calendar', () => {
  test('agrees with the time zone database at every kind of instant', () => {
    fc.assert(
      fc.property(instant, (at_ms) => {
        expect(windowOf(CALENDAR, at_ms, 'peak')).toBe(isPeak(at_ms))
      }),
      { ...PARAMETERS, numRuns: 2000 },
    )
  })
})

describe('the version in force', () => {
  test('is the newest that has begun, whatever the order', () => {
    const starts = fc.uniqueArray(fc.nat(1000), { maxLength: 10 })
    fc.assert(
      fc.property(starts, fc.nat(1000), (from, at_ms) => {
        const versions = from.map((effective_from) => ({ id: String(effective_from), effective_from, rules: [], source: '', as_of: '' }))
        const begun = from.filter((start) => start <= at_ms)
        expect(priceAt(versions, at_ms)?.effective_from ?? null).toBe(begun.length === 0 ? null : Math.max(...begun))
      }),
      PARAMETERS,
    )
  })
})

function addUsage(a: TokenUsage, b: TokenUsage): TokenUsage {
  return {
    input: a.input + b.input,
    cached_input: a.cached_input + b.cached_input,
    cache_write: a.cache_write + b.cache_write,
    output: a.output + b.output,
    reasoning: a.reasoning + b.reasoning,
  }
}
