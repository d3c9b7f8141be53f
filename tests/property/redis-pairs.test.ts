import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { unitsFor, tokensCovered } from '../../src/money/grant.ts'
import { REDIS_PROGRAM, type RedisServer, startRedis } from '../support/redis.ts'
import { REPO_ROOT } from '../support/root.ts'
import { propertyRuns, propertySeed } from '../support/seed.ts'

const LARGEST = 2n ** 63n - 1n
const EXACT = 2n ** 53n

function library(name: string): string {
  return readFileSync(join(REPO_ROOT, 'src/storage/redis/scripts/lib', `${name}.lua`), 'utf8')
}

/** Around the edges of doubles, of nine digits and of 64 bits, where mistakes are. */
const anyAmount: fc.Arbitrary<bigint> = fc
  .tuple(fc.constantFrom(0n, 10n ** 9n, 10n ** 15n, EXACT, 10n ** 18n, LARGEST / 2n), fc.bigInt({ min: -3n, max: 3n }), fc.boolean())
  .map(([edge, off, negative]) => (negative ? -edge - off : edge + off))
  .chain((edge) => fc.oneof(fc.constant(edge), fc.bigInt({ min: -LARGEST / 2n, max: LARGEST / 2n })))

describe.skipIf(REDIS_PROGRAM === null)('arithmetic of scripts', () => {
  let server: RedisServer
  beforeAll(async () => {
    server = await startRedis()
  })
  const evaluate = async (libraries: readonly string[], expressions: string, words: readonly bigint[]): Promise<unknown> =>
    await server.client.eval(`${libraries.map(library).join('\n')}\n${expressions}`, 0, ...words.map(String))

  it('amounts are exact, whatever their size and sign', async () => {
    const script = `local a, b = pair_of(ARGV[1]), pair_of(ARGV[2])
      local function yes(value) return value and 1 or 0 end
      return {text_of(a), text_of(a + b), text_of(a - b), text_of(smaller(a, b)), yes(a < b), yes(a <= b), yes(a == b), yes(a > ZERO)}`
    const property = fc.asyncProperty(anyAmount, anyAmount, async (a, b) => {
      const comparisons = [a < b, a <= b, a === b, a > 0n].map(Number)
      expect(await evaluate(['bucket', 'pairs'], script, [a, b])).toEqual([...[a, a + b, a - b, a < b ? a : b].map(String), ...comparisons])
    })
    await fc.assert(property, { seed: propertySeed(), numRuns: propertyRuns(300) })
  })

  it('tokens take and cover as many units of a grant as in the code', async () => {
    const script = `local tokens, units, weight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
      return {format('%d', units_for(tokens, weight)), format('%d', tokens_covered(units, weight))}`
    const count = (max: bigint) => fc.oneof(fc.bigInt({ min: 0n, max }), fc.bigInt({ min: max - 1000n, max }))
    const anyWeight = fc.oneof(
      fc.bigInt({ min: 1n, max: 100_000_000n }),
      fc.constantFrom(1n, 999_999n, 1_000_000n, 1_000_001n, 100_000_000n),
    )
    const property = fc.asyncProperty(count(80_000_000n), count(8_000_000_000n), anyWeight, async (tokens, units, weight) => {
      const expected = [unitsFor(tokens, Number(weight)), tokensCovered(units, Number(weight))].map(String)
      expect(await evaluate(['bucket', 'pairs', 'plan'], script, [tokens, units, weight])).toEqual(expected)
    })
    await fc.assert(property, { seed: propertySeed(), numRuns: propertyRuns(300) })
  })
})
