import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GrowingText } from '../../src/upstream/dialects/sent-text.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()

function joined(texts: readonly string[]): string {
  const growing = new GrowingText()
  return texts.map((text) => growing.take(text)).join('') + growing.flush()
}

describe('texts that come in pieces or grow', () => {
  it('are put together right where each repeats what came before it', () => {
    const property = fc.property(
      fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 8 }),
      (pieces) => {
        const grown = pieces.map((_, index) => pieces.slice(0, index + 1).join(''))
        expect(joined([...grown, grown.at(-1) ?? ''])).toBe(pieces.join(''))
      },
    )
    fc.assert(property, { seed, numRuns: 1000 })
  })

  it('are put together right where they are pieces, unless one begins with all that came before', () => {
    const property = fc.property(
      fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 6 }), { minLength: 2, maxLength: 8 }),
      (pieces) => {
        fc.pre(pieces[1]?.startsWith(pieces[0] ?? '') === false)
        expect(joined(pieces)).toBe(pieces.join(''))
      },
    )
    fc.assert(property, { seed, numRuns: 1000 })
  })

  it.each([
    [['哈', '哈哈', '，对'], '哈哈哈，对'],
    [['好', '好的', '好的，我'], '好的，我'],
    [['杭州', '杭州今天'], '杭州今天'],
    [['一', '二'], '一二'],
    [['好的，', '', '好的，走'], '好的，走'],
  ])('%j is %s', (texts, whole) => {
    expect(joined(texts)).toBe(whole)
  })
})
