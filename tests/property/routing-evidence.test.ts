import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createFeatureScanner } from '../../src/routing/features.ts'
import { FOLDED } from '../../src/routing/fold.ts'
import { foldKeyword, indexKeywords, type FoundKeyword, type KeywordRule } from '../../src/routing/keywords.ts'
import { indexSamples, LEAST_LIKENESS } from '../../src/routing/samples.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()

/** Few characters, so that keywords are found, overlap and begin alike; of words, of Chinese and of neither. */
const few = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...Array.from('abA银行１1+ \u200b')), maxLength })
const rule: fc.Arbitrary<KeywordRule> = fc.record({ domain: fc.constantFrom('one', 'two'), keywords: fc.array(few(4), { maxLength: 6 }) })

const isOfWord = (character: string | undefined): boolean => {
  const folded = FOLDED[character?.charCodeAt(0) ?? 0x20] ?? 0
  return folded >= 0x30 && folded < 0x3040
}

/** One keyword after the other, at one place after the other. */
function plainly(rules: readonly KeywordRule[], text: string): FoundKeyword | null {
  const folded = foldKeyword(text)
  for (const { domain, keywords } of rules) {
    for (const keyword of keywords) {
      const wanted = foldKeyword(keyword)
      const places = Array.from({ length: folded.length }, (_, at) => at).filter((at) => wanted !== '' && folded.startsWith(wanted, at))
      const whole = places.some((at) => {
        const end = at + wanted.length
        return !(isOfWord(folded[at - 1]) && isOfWord(folded[at])) && !(isOfWord(folded[end - 1]) && isOfWord(folded[end]))
      })
      if (whole) return { domain, keyword }
    }
  }
  return null
}

test('the keyword that is found is the first of the first rule that has one in the text', () => {
  let found = 0
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 5 }), few(20), (rules, text) => {
      const expected = plainly(rules, text)
      if (expected !== null) found += 1
      expect(indexKeywords(rules).find(text)).toEqual(expected)
    }),
    { seed, numRuns: 2000 },
  )
  expect(found).toBeGreaterThan(200)
})

/** Cosine of two texts' features, by maps. */
function cosines(texts: readonly string[], text: string): readonly number[] {
  const scanner = createFeatureScanner()
  const counted = [...texts, text].map((one) => {
    scanner.scan({ system: null, turns: [one] })
    const counts = new Map<number, number>()
    for (const { start, end } of scanner.spans)
      for (const hash of scanner.hashes.slice(start, end)) counts.set(hash, (counts.get(hash) ?? 0) + 1)
    return counts
  })
  const having = (hash: number): number => counted.slice(0, -1).filter((counts) => counts.has(hash)).length
  const vectors = counted.map((counts) => {
    const weights = [...counts].map(
      ([hash, count]) => [hash, Math.sqrt(count) * Math.log(1 + texts.length / Math.max(1, having(hash)))] as const,
    )
    const length = Math.hypot(...weights.map(([, weight]) => weight))
    return new Map(weights.map(([hash, weight]) => [hash, weight / length]))
  })
  const asked = vectors.at(-1) ?? new Map<number, number>()
  return vectors.slice(0, -1).map((vector) => [...vector].reduce((sum, [hash, weight]) => sum + weight * (asked.get(hash) ?? 0), 0))
}

const words = (maxLength: number): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom('银行', '贷款', '退货', 'parcel', 'tracking', 'loan', '，', ' ', '7'), { maxLength })
    .map((parts) => parts.join(''))

test('the sample that is found is the likest, by the cosine of rare features', () => {
  let found = 0
  fc.assert(
    fc.property(fc.array(words(8), { minLength: 1, maxLength: 12 }), words(8), (texts, text) => {
      const samples = texts.map((one, at) => ({ text: one, domain: `d${at}` }))
      const match = indexSamples(samples).find({ system: null, turns: ['before', text] })
      const expected = cosines(texts, text)
      const most = Math.max(...expected)
      if (match === null) {
        expect(most).toBeLessThan(LEAST_LIKENESS + 1e-5)
        return
      }
      found += 1
      expect(match.likeness).toBeCloseTo(most, 5)
      expect(expected[match.sample]).toBeCloseTo(most, 5)
      expect(match.domain).toBe(`d${match.sample}`)
    }),
    { seed, numRuns: 500 },
  )
  expect(found).toBeGreaterThan(50)
})
