import { describe, expect, test } from 'vitest'
import { InvariantError } from '../../src/base/assert.ts'
import { charge, dearest, priceAt, rulesFor, windowOf } from '../../src/money/price.ts'
import type { PriceCondition, PriceRule, PriceVersion, TokenPrices, TradingCalendar } from '../../src/money/price.ts'
import { NO_CALLS, NO_TOKENS } from '../../src/money/usage.ts'

const at = (shanghai: string): number => Date.parse(`${shanghai}+08:00`)

const CALENDAR: TradingCalendar = {
  windows: new Map([
    [
      'peak',
      [
        { from_minute: 9 * 60, to_minute: 12 * 60 },
        { from_minute: 14 * 60, to_minute: 18 * 60 },
      ],
    ],
    ['all_day', [{ from_minute: 0, to_minute: 24 * 60 }]],
  ]),
  holidays: new Set(['2026-10-01']),
  workdays: new Set(['2026-10-10']),
}

const FREE: TokenPrices = { input: 0n, cached_input: 0n, cache_write: 0n, output: 0n }

function rule(name: string, when: PriceCondition, tokens: Partial<TokenPrices> = {}): PriceRule {
  return { name, when, tokens: { ...FREE, ...tokens }, calls: { search: 0n, image: 0n } }
}

function version(id: string, effective_from: number, rules: readonly PriceRule[]): PriceVersion {
  return { id, effective_from, rules, source: 'price list', as_of: '2026-08-17' }
}

describe('the price version in force', () => {
  const old = version('old', 1000, [])
  const current = version('current', 2000, [])

  test.each([[[old, current]], [[current, old]]])('is the newest that has begun, in whatever order they are listed', (versions) => {
    expect([999, 1000, 1999, 2000, 9999].map((ms) => priceAt(versions, ms)?.id ?? null)).toEqual([null, 'old', 'old', 'current', 'current'])
  })

  test('is none where there are none', () => {
    expect(priceAt([], 5000)).toBeNull()
  })
})

describe('a time window', () => {
  test.each([
    ['2026-09-21T08:59:59.999', false],
    ['2026-09-21T09:00:00.000', true],
    ['2026-09-21T11:59:59.999', true],
    ['2026-09-21T12:00:00.000', false],
    ['2026-09-21T13:59:59.999', false],
    ['2026-09-21T14:00:00.000', true],
    ['2026-09-21T17:59:59.999', true],
    ['2026-09-21T18:00:00.000', false],
  ])('on a Monday contains its start and not its end: %s is %s', (time, inside) => {
    expect(windowOf(CALENDAR, at(time), 'peak')).toBe(inside)
  })

  test.each([
    ['a Thursday that is a holiday', '2026-10-01T10:00:00', false],
    ['the Friday after it', '2026-10-02T10:00:00', true],
    ['an ordinary Saturday', '2026-09-26T10:00:00', false],
    ['an ordinary Sunday', '2026-09-27T10:00:00', false],
    ['a Saturday that makes up for a holiday', '2026-10-10T10:00:00', true],
    ['the evening of that Saturday', '2026-10-10T18:00:00', false],
  ])('%s (%s): %s', (_, time, inside) => {
    expect(windowOf(CALENDAR, at(time), 'peak')).toBe(inside)
  })

  test.each([
    ['2026-09-27T23:59:59.999', false],
    ['2026-09-28T00:00:00.000', true],
    ['2026-10-02T23:59:59.999', true],
    ['2026-10-03T00:00:00.000', false],
  ])('begins and ends its days at midnight in Shanghai, not in UTC: %s is %s', (time, inside) => {
    expect(windowOf(CALENDAR, at(time), 'all_day')).toBe(inside)
  })

  test('that the calendar does not have is a broken invariant', () => {
    expect(() => windowOf(CALENDAR, at('2026-09-21T10:00:00'), 'night')).toThrow(InvariantError)
  })
})

describe('the rule that applies', () => {
  const tiers = version('tiers', 0, [
    rule('thinking', { thinking: true }),
    rule('short', { input_up_to: 32_000, output_up_to: 200 }),
    rule('middle', { input_above: 0, input_up_to: 32_000, output_above: 200 }),
    rule('peak', { window: 'peak' }),
    rule('base', {}),
  ])
  const name = (input_total: number, output: number, thinking = false, time = '2026-09-21T20:00:00'): string =>
    rulesFor(tiers, { admitted_at: at(time), input_total, output, thinking }, CALENDAR).name

  test('is the first whose condition holds; above excludes its bound and up_to includes it', () => {
    expect(name(32_000, 200)).toBe('short')
    expect(name(32_000, 201)).toBe('middle')
    expect(name(0, 201)).toBe('base')
    expect(name(32_001, 200)).toBe('base')
    expect(name(32_001, 200, false, '2026-09-21T09:00:00')).toBe('peak')
    expect(name(1, 1, true)).toBe('thinking')
  })

  test('may ask for thinking to be off', () => {
    const off = version('off', 0, [rule('plain', { thinking: false }), rule('base', {})])
    const named = (thinking: boolean): string => rulesFor(off, { admitted_at: 0, input_total: 1, output: 1, thinking }, CALENDAR).name
    expect([named(false), named(true)]).toEqual(['plain', 'base'])
  })

  test('is a broken invariant where none applies', () => {
    const gap = version('gap', 0, [rule('long', { input_above: 10 })])
    expect(() => rulesFor(gap, { admitted_at: 0, input_total: 10, output: 0, thinking: false }, CALENDAR)).toThrow(InvariantError)
  })
})

describe('the charge', () => {
  const facts = { admitted_at: at('2026-09-21T20:00:00'), thinking: false }
  const prices: TokenPrices = { input: 2_000_000n, cached_input: 200_000n, cache_write: 2_500_000n, output: 3_000_001n }

  test('sums the classes and rounds once', () => {
    const book = version('v', 0, [rule('base', {}, prices)])
    const usage = { input: 1000, cached_input: 500, cache_write: 10, output: 333, reasoning: 300 }
    // 2 000 000 000 + 100 000 000 + 25 000 000 + 999 000 333 pico-yuan
    expect(charge(book, usage, NO_CALLS, facts, CALENDAR)).toEqual({ amount_nano: 3_124_000n, rule: 'base' })
    const thirds = version('v', 0, [rule('base', {}, { input: 300n, cached_input: 300n })])
    expect(charge(thirds, { ...NO_TOKENS, input: 1, cached_input: 1 }, NO_CALLS, facts, CALENDAR).amount_nano).toBe(1n)
  })

  test('does not count reasoning a second time', () => {
    const book = version('v', 0, [rule('base', {}, prices)])
    const plain = charge(book, { ...NO_TOKENS, output: 50 }, NO_CALLS, facts, CALENDAR)
    expect(charge(book, { ...NO_TOKENS, output: 50, reasoning: 50 }, NO_CALLS, facts, CALENDAR)).toEqual(plain)
  })

  test('counts cached and written input for the length tier', () => {
    const book = version('v', 0, [rule('short', { input_up_to: 100 }), rule('long', {})])
    const ruleAt = (cache_write: number): string =>
      charge(book, { ...NO_TOKENS, input: 40, cached_input: 40, cache_write }, NO_CALLS, facts, CALENDAR).rule
    expect([ruleAt(20), ruleAt(21)]).toEqual(['short', 'long'])
  })

  test('adds paid calls', () => {
    const book = version('v', 0, [{ ...rule('base', {}, { input: 499n }), calls: { search: 30_000_000n, image: 7n } }])
    expect(charge(book, { ...NO_TOKENS, input: 1 }, { search: 2, image: 3 }, facts, CALENDAR).amount_nano).toBe(60_000_021n)
  })

  test('stays exact beyond 2^53', () => {
    const book = version('v', 0, [rule('base', {}, { output: 1_000_001n })])
    const output = Number.MAX_SAFE_INTEGER
    expect(charge(book, { ...NO_TOKENS, output }, NO_CALLS, facts, CALENDAR).amount_nano).toBe((BigInt(output) * 1_000_001n + 500n) / 1000n)
  })

  test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])('refuses a count of %s', (count) => {
    const book = version('v', 0, [rule('base', {}, prices)])
    expect(() => charge(book, { ...NO_TOKENS, output: count }, NO_CALLS, facts, CALENDAR)).toThrow(InvariantError)
    expect(() => dearest(book, { input: count, output: 0 })).toThrow(InvariantError)
  })
})

describe('the dearest price', () => {
  test('takes the dearest rule, and input at its dearest class', () => {
    const book = version('v', 0, [
      rule('cheap', { input_up_to: 10 }, { input: 1000n, output: 9000n }),
      rule('dear', {}, { input: 1000n, cached_input: 100n, cache_write: 5000n, output: 2000n }),
    ])
    expect(dearest(book, { input: 10, output: 0 })).toBe(50n)
    expect(dearest(book, { input: 0, output: 10 })).toBe(90n)
    expect(dearest(book, { input: 0, output: 0 })).toBe(0n)
  })
})
