import { describe, expect, test } from 'vitest'
import {
  cnyFromNano,
  cnyPerMillionFromPico,
  divideHalfUp,
  fenFromNano,
  maxBig,
  minBig,
  nanoFromCny,
  picoFromCnyPerMillion,
  roundPicoToNano,
} from '../../src/money/amount.ts'

describe('an amount in CNY', () => {
  test.each([
    ['12.345678901', 12_345_678_901n],
    ['0', 0n],
    ['-0', 0n],
    ['007.10', 7_100_000_000n],
    ['+1', 1_000_000_000n],
    ['-0.000000001', -1n],
    ['9223372036.854775807', 9_223_372_036_854_775_807n],
    ['9007199.254740993', 9_007_199_254_740_993n],
  ])('reads %s exactly', (text, nano) => {
    expect(nanoFromCny(text)).toBe(nano)
  })

  test.each([
    '',
    ' ',
    ' 1',
    '1 ',
    '1\n',
    '1e3',
    '1E-3',
    '.5',
    '5.',
    '1,000',
    '1_000',
    '0x10',
    '--1',
    '+-1',
    '1.2.3',
    'NaN',
    '¥1',
    '１',
    '0.0000000001',
  ])('refuses %j', (text) => {
    expect(() => nanoFromCny(text)).toThrow(RangeError)
    expect(() => nanoFromCny(text)).toThrow('is not an amount in CNY')
  })

  test.each(['9223372036.854775808', '-9223372036.854775808', '1'.repeat(40)])('refuses %s, which no ledger column holds', (text) => {
    expect(() => nanoFromCny(text)).toThrow('more than the largest amount')
  })

  test('quotes no more than the start of what was wrong', () => {
    expect(() => nanoFromCny('x'.repeat(100_000))).toThrow(/^"x{40}…" is not an amount/)
  })

  test.each([
    [1234n, '0.000001234'],
    [0n, '0'],
    [5_000_000_000n, '5'],
    [100_000_000_000n, '100'],
    [-1n, '-0.000000001'],
    [-1_500_000_000n, '-1.5'],
    [9_007_199_254_740_993n, '9007199.254740993'],
    [10n ** 30n, `1${'0'.repeat(21)}`],
  ])('%s nano-yuan are written %s', (nano, text) => {
    expect(cnyFromNano(nano)).toBe(text)
  })
})

describe('a price in CNY per million tokens', () => {
  test.each([
    ['0.02', 20_000n],
    ['0', 0n],
    ['1', 1_000_000n],
    ['0.000001', 1n],
    ['12.345678', 12_345_678n],
  ])('reads and writes %s exactly', (text, pico) => {
    expect(picoFromCnyPerMillion(text)).toBe(pico)
    expect(cnyPerMillionFromPico(pico)).toBe(text)
  })

  test.each(['', '-1', '+1', '0.0000001', '1e-3', ' 1', '1 ', '.5', '5.', '1'.repeat(13)])('refuses %j', (text) => {
    expect(() => picoFromCnyPerMillion(text)).toThrow(RangeError)
    expect(() => picoFromCnyPerMillion(text)).toThrow('is not a price in CNY per million tokens')
  })
})

describe('rounding', () => {
  test.each([
    [0n, 0n],
    [499n, 0n],
    [500n, 1n],
    [1499n, 1n],
    [1500n, 2n],
    [2500n, 3n],
    [-499n, 0n],
    [-500n, -1n],
    [-1500n, -2n],
    [9_007_199_254_740_993_500n, 9_007_199_254_740_994n],
  ])('%s pico-yuan are %s nano-yuan', (pico, nano) => {
    expect(roundPicoToNano(pico)).toBe(nano)
  })

  test.each([
    [4_999_999n, 0n, 4_999_999n],
    [5_000_000n, 1n, -5_000_000n],
    [14_999_999n, 1n, 4_999_999n],
    [-5_000_000n, -1n, 5_000_000n],
    [120_000_000n, 12n, 0n],
  ])('%s nano-yuan are %s fen and a carry of %s', (nano, fen, carry_nano) => {
    expect(fenFromNano(nano)).toEqual({ fen, carry_nano })
  })

  test('an odd divisor has no half', () => {
    expect([3n, 4n, 5n, 10n, 11n].map((value) => divideHalfUp(value, 7n))).toEqual([0n, 1n, 1n, 1n, 2n])
  })

  test('the smaller and the larger', () => {
    expect([minBig(-1n, 2n), minBig(2n, -1n), maxBig(-1n, 2n), maxBig(2n, -1n)]).toEqual([-1n, -1n, 2n, 2n])
  })
})
