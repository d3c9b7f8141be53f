import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  cnyFromNano,
  cnyPerMillionFromPico,
  divideHalfUp,
  fenFromNano,
  nanoFromCny,
  picoFromCnyPerMillion,
  roundPicoToNano,
} from '../../src/money/amount.ts'
import { propertySeed } from '../support/seed.ts'

const PARAMETERS = { seed: propertySeed(), numRuns: 500 }

const nano = fc.bigInt({ min: -(2n ** 63n) + 1n, max: 2n ** 63n - 1n })

describe('amounts', () => {
  test('written and read again are the same, and written one way only', () => {
    fc.assert(
      fc.property(nano, (amount) => {
        const text = cnyFromNano(amount)
        expect(text).toMatch(/^(0|-?(0|[1-9]\d*)(\.\d{0,8}[1-9])?)$/)
        expect(nanoFromCny(text)).toBe(amount)
      }),
      PARAMETERS,
    )
  })

  test('read from any short decimal have the value that the number has', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[-+]?[0-9]{1,6}(\.[0-9]{1,9})?$/), (text) => {
        // Adding 0 turns the -0 of JavaScript's numbers into 0.
        expect(Number(cnyFromNano(nanoFromCny(text)))).toBe(Number(text) + 0)
      }),
      PARAMETERS,
    )
  })

  test('are never read from anything else', () => {
    const other = fc.oneof(fc.string(), fc.stringMatching(/^[-+0-9.e ]{0,12}$/)).filter((text) => !/^[-+]?\d+(\.\d{1,9})?$/.test(text))
    fc.assert(
      fc.property(other, (text) => {
        expect(() => nanoFromCny(text)).toThrow(RangeError)
        expect(() => picoFromCnyPerMillion(text)).toThrow(RangeError)
      }),
      PARAMETERS,
    )
  })

  test('prices written and read again are the same', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 10n ** 18n - 1n }), (pico) => {
        expect(picoFromCnyPerMillion(cnyPerMillionFromPico(pico))).toBe(pico)
      }),
      PARAMETERS,
    )
  })
})

describe('rounding', () => {
  test('is off by at most half a unit, and mirrors negatives', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }), fc.bigInt({ min: 1n, max: 10n ** 12n }), (value, divisor) => {
        const twice_error = 2n * (divideHalfUp(value, divisor) * divisor - value)
        expect(twice_error <= divisor && -twice_error <= divisor).toBe(true)
        expect(divideHalfUp(-value, divisor)).toBe(-divideHalfUp(value, divisor))
        expect(roundPicoToNano(-value)).toBe(-roundPicoToNano(value))
      }),
      PARAMETERS,
    )
  })

  test('to fen, with the carry taken along, loses nothing over any number of lines', () => {
    fc.assert(
      fc.property(fc.array(nano, { maxLength: 50 }), (lines) => {
        let carry_nano = 0n
        let fen = 0n
        for (const line of lines) {
          const rounded = fenFromNano(line + carry_nano)
          fen += rounded.fen
          carry_nano = rounded.carry_nano
        }
        expect(fen * 10_000_000n + carry_nano).toBe(lines.reduce((sum, line) => sum + line, 0n))
        expect(carry_nano <= 5_000_000n && carry_nano >= -5_000_000n).toBe(true)
      }),
      PARAMETERS,
    )
  })
})
