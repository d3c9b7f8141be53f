import { describe, expect, test } from 'vitest'
import { InvariantError } from '../../src/base/assert.ts'
import { MAX_GRANT_TOKENS, tokensCovered, tokensOfParts, unitsFor, weightMicroOf } from '../../src/money/grant.ts'

describe('a weight', () => {
  test.each([
    ['1', 1_000_000],
    ['0.5', 500_000],
    ['2.000001', 2_000_001],
    ['0.000001', 1],
    ['100', 100_000_000],
    ['100.000000', 100_000_000],
    ['007.5', 7_500_000],
  ])('%s is read exactly', (text, weight_micro) => {
    expect(weightMicroOf(text)).toBe(weight_micro)
  })

  test.each([
    '',
    '0',
    '0.000000',
    '-1',
    '+1',
    '100.000001',
    '101',
    '1000',
    '0.0000001',
    '.5',
    '1.',
    '1e1',
    ' 1',
    '1,5',
    '٣',
    '9'.repeat(99),
  ])('%j is refused', (text) => {
    expect(() => weightMicroOf(text)).toThrow(RangeError)
  })
})

describe('units of a grant', () => {
  test('are rounded up, and what they cover is rounded down', () => {
    expect([1n, 2n, 3n].map((tokens) => unitsFor(tokens, 500_000))).toEqual([1n, 1n, 2n])
    expect([1n, 2n, 3n].map((tokens) => unitsFor(tokens, 1_500_000))).toEqual([2n, 3n, 5n])
    expect([1n, 2n, 3n].map((units) => tokensCovered(units, 1_500_000))).toEqual([0n, 1n, 2n])
    expect(tokensCovered(1n, 1)).toBe(1_000_000n)
    expect(unitsFor(0n, 100_000_000)).toBe(0n)
  })

  test('stay exact in doubles up to the most tokens that a grant covers', () => {
    const most = BigInt(MAX_GRANT_TOKENS)
    expect(most * 100_000_000n + 999_999n < 2n ** 53n).toBe(true)
    const units = unitsFor(most, 99_999_999)
    expect(units).toBe(BigInt(Math.ceil((MAX_GRANT_TOKENS * 99_999_999) / 1_000_000)))
    expect(units * 1_000_000n < 2n ** 53n).toBe(true)
    expect(tokensCovered(units, 99_999_999)).toBe(most)
  })

  test.each([0, -1, 1.5, 100_000_001, NaN])('a weight of %d micro is a broken invariant', (weight_micro) => {
    expect(() => unitsFor(1n, weight_micro)).toThrow(InvariantError)
    expect(() => tokensCovered(1n, weight_micro)).toThrow(InvariantError)
  })

  test('of a hold are summed part by part', () => {
    const tokens = { grant: 'pack', unit: 'tokens' } as const
    const parts = [
      { ...tokens, amount: 5n },
      { ...tokens, amount: 5n, weight_micro: 2_000_000 },
    ]
    expect(tokensOfParts([...parts, { grant: 'wallet', unit: 'nano_cny', amount: 99n }])).toBe(7n)
  })
})
