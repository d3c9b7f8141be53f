import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { confidentDomain, createDomainClassifier } from '../../src/routing/domain.ts'
import { REPO_ROOT } from '../support/root.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()
const classifier = createDomainClassifier(readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin')))

/** Any string, lone surrogates too, and strings of what prompts are made of. */
const text = fc.oneof(
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)), maxLength: 3000 }),
  fc.string({ unit: fc.constantFrom(...Array.from('银行医院学校退货合同 设备ab12，。\n')), maxLength: 3000 }),
)
const input = fc.record({ system: fc.option(text), turns: fc.array(text, { maxLength: 5 }) })

test('any prompt has scores from 0 to 1 that sum to 1, and its likeliest domain as the guess', () => {
  fc.assert(
    fc.property(input, (prompt) => {
      const { domain, confidence, scores } = classifier.classify(prompt)
      const values = Object.values(scores)
      expect(values.every((value) => value >= 0 && value <= 1)).toBe(true)
      expect(values.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9)
      expect(confidence).toBe(Math.max(...values))
      expect(scores[domain]).toBe(confidence)
      expect([domain, 'general']).toContain(confidentDomain({ domain, confidence, scores }))
    }),
    { seed, numRuns: 500 },
  )
})

test('a prompt is judged the same whatever was judged before it', () => {
  fc.assert(
    fc.property(input, input, (before, prompt) => {
      const first = classifier.classify(prompt)
      classifier.classify(before)
      expect(classifier.classify(prompt)).toEqual(first)
    }),
    { seed, numRuns: 200 },
  )
})
