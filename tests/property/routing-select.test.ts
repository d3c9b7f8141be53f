import fc from 'fast-check'
import { expect, test } from 'vitest'
import { chanceOf, drawOrder, unitOf } from '../../src/routing/draw.ts'
import { needsOf } from '../../src/routing/needs.ts'
import { promptOf } from '../../src/routing/prompt.ts'
import { type Candidate, OBSTACLES, orderCandidates } from '../../src/routing/select.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()

const id = fc.string({ minLength: 1, maxLength: 12 })
const weighted = fc.uniqueArray(fc.record({ id, weight: fc.integer({ min: 0, max: 1000 }) }), { selector: (item) => item.id, maxLength: 8 })
const candidate: fc.Arbitrary<Candidate> = fc.record({
  id,
  domain: fc.constantFrom('general', 'legal', 'finance'),
  weight: fc.integer({ min: 0, max: 1000 }),
  quality: fc.integer({ min: 0, max: 100 }),
  obstacle: fc.option(fc.constantFrom(...OBSTACLES), { freq: 2 }),
  tight: fc.boolean(),
  price_nano: fc.option(fc.bigInt({ min: 0n, max: 10n ** 12n })),
  latency_ms: fc.option(fc.integer({ min: 0, max: 100_000 })),
})
const candidates = fc.uniqueArray(candidate, { selector: (item) => item.id, maxLength: 10 })
const domain = fc.constantFrom('general', 'legal', 'finance', 'retail')
const policy = fc.record({
  prefer: fc.constantFrom('balanced', 'cost', 'quality', 'latency'),
  canary: fc.option(fc.record({ model: id, percent: fc.integer({ min: 0, max: 100 }) })),
})

test('a draw has every item once, and one that goes away moves nobody else', () => {
  fc.assert(
    fc.property(weighted, fc.string(), fc.nat(), (items, key, at) => {
      const drawn = drawOrder(items, chanceOf(key))
      expect(drawn.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(items.toSorted((a, b) => (a.id < b.id ? -1 : 1)))
      const gone = items[at % Math.max(1, items.length)]
      const left = items.filter((item) => item !== gone)
      expect(drawOrder(left, chanceOf(key))).toEqual(drawn.filter((item) => item !== gone))
    }),
    { seed, numRuns: 500 },
  )
})

test('what can serve is in the order once, what cannot is not, whatever is preferred and whichever is the canary', () => {
  fc.assert(
    fc.property(candidates, domain, policy, fc.string(), (all, about, given, key) => {
      const { order } = orderCandidates(all, about, given, chanceOf(key))
      const able = all.filter((one) => one.obstacle === null && (one.domain === about || one.domain === 'general'))
      expect(new Set(order)).toEqual(new Set(able))
      expect(order.length).toBe(able.length)
      expect(orderCandidates(all, about, given, chanceOf(key)).order).toEqual(order)
    }),
    { seed, numRuns: 500 },
  )
})

test('where nothing is tight a model of the domain is before every general one, whatever the canary', () => {
  fc.assert(
    fc.property(candidates, policy, fc.string(), (all, given, key) => {
      const loose = all.map((one) => ({ ...one, tight: false }))
      const { order } = orderCandidates(loose, 'legal', given, chanceOf(key))
      const kinds = order.map((one) => one.domain)
      expect(kinds).toEqual([...kinds.filter((kind) => kind === 'legal'), ...kinds.filter((kind) => kind === 'general')])
    }),
    { seed, numRuns: 300 },
  )
})

test('conversations are spread by weight, within five standard deviations, and a canary gets its share', () => {
  const conversations = 20_000
  const share = (wins: number, expected: number): void => {
    const deviation = Math.sqrt(conversations * expected * (1 - expected))
    expect(Math.abs(wins - conversations * expected)).toBeLessThan(5 * deviation + 1)
  }
  const items = [
    { id: 'a', weight: 1 },
    { id: 'b', weight: 2 },
    { id: 'c', weight: 7 },
  ]
  const wins = new Map<string, number>()
  let canaries = 0
  for (let conversation = 0; conversation < conversations; conversation += 1) {
    const chance = chanceOf(`tenant\0${seed}\0opening ${conversation}`)
    const first = drawOrder(items, chance)[0]?.id ?? ''
    wins.set(first, (wins.get(first) ?? 0) + 1)
    if (chance('canary x') * 100 < 5) canaries += 1
  }
  for (const { id: name, weight } of items) share(wins.get(name) ?? 0, weight / 10)
  share(canaries, 0.05)
})

test('a text gives a number between 0 and 1, the same each time', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(unitOf(text)).toBe(unitOf(text))
      expect(unitOf(text)).toBeGreaterThan(0)
      expect(unitOf(text)).toBeLessThan(1)
    }),
    { seed, numRuns: 300 },
  )
})

test('anything may be in the messages of a body', () => {
  fc.assert(
    fc.property(
      fc.anything(),
      fc.array(fc.record({ role: fc.constantFrom('user', 'system', 7), content: fc.anything() })),
      (odd, messages) => {
        for (const given of [odd, messages]) {
          const { turns } = promptOf(given)
          expect(turns.length).toBeLessThanOrEqual(3)
          expect(turns.every((turn) => turn.length <= 2001)).toBe(true)
          expect(needsOf({ messages: given, tools: odd, response_format: odd })).toBeInstanceOf(Array)
        }
      },
    ),
    { seed, numRuns: 500 },
  )
})
