import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { JsonSpanError, objectMembers, removeMembers, rewriteMembers, spliceBytes } from '../../src/base/json-spans.ts'
import { propertySeed } from '../support/seed.ts'

const check = { seed: propertySeed(), numRuns: 300 }

const space = fc.stringMatching(/^[ \t\r\n]{0,2}$/)
const key = fc.oneof(fc.constantFrom('model', 'stream_options', 'max_tokens', 'a'), fc.string({ unit: 'binary', maxLength: 6 }))

/** A key as JSON, some characters written as escapes. */
const keyText = fc.tuple(key, fc.array(fc.boolean(), { maxLength: 20 })).map(([text, escaped]) => {
  const units = Array.from({ length: text.length }, (_, index) => {
    const unit = text.charCodeAt(index)
    const plain = JSON.stringify(text[index]).slice(1, -1)
    const surrogate = unit >= 0xd800 && unit <= 0xdfff
    return escaped[index] === true || surrogate ? `\\u${unit.toString(16).padStart(4, '0')}` : plain
  })
  return `"${units.join('')}"`
})
const number = fc.constantFrom('0', '-0', '12345678901234567890', '1e400', '-1.50E+2')
const value = fc.oneof(
  number,
  fc.json({ maxDepth: 4 }),
  fc.json({ maxDepth: 3 }).map((text) => JSON.stringify(JSON.parse(text), null, 1)),
)

interface Member {
  readonly key: string
  readonly value: string
}
const members: fc.Arbitrary<Member[]> = fc.array(fc.record({ key: keyText, value }), { maxLength: 8 })
const spaced = fc.tuple(members, fc.array(space, { minLength: 40, maxLength: 40 }))

function write(list: readonly Member[], spaces: readonly string[]): string {
  const gap = (index: number): string => spaces[index] ?? ''
  const texts = list.map(
    (member, index) => `${gap(index)}${member.key}${gap(index + 8)}:${gap(index + 16)}${member.value}${gap(index + 24)}`,
  )
  return `${gap(33)}{${texts.join(',')}${list.length === 0 ? gap(34) : ''}}${gap(35)}`
}

describe('json spans', () => {
  it('rewriting sets exactly what was asked and keeps all other bytes', () => {
    const set = { model: Buffer.from('"新"'), max_tokens: Buffer.from('[1]') }
    fc.assert(
      fc.property(spaced, ([list, spaces]) => {
        const before = write(list, spaces)
        const after = rewriteMembers(Buffer.from(before), set).toString()
        const names = list.map((member) => String(JSON.parse(member.key)))
        const replaced = list.map((member, index) => {
          const name = names[index]
          return name === 'model' || name === 'max_tokens' ? { key: member.key, value: set[name].toString() } : member
        })
        const missing = (['model', 'max_tokens'] as const).filter((name) => !names.includes(name))
        const expected: unknown = { ...JSON.parse(before), model: '新', max_tokens: [1] }
        expect(JSON.parse(after)).toEqual(expected)
        expect(after).toBe(
          appended(
            write(replaced, spaces),
            missing.map((name) => `"${name}":${set[name].toString()}`),
            list.length === 0,
          ),
        )
      }),
      check,
    )
  })

  it('removing any members leaves the others, well-formed and byte-identical', () => {
    fc.assert(
      fc.property(spaced, fc.infiniteStream(fc.boolean()), ([list, spaces], choose) => {
        const before = Buffer.from(write(list, spaces))
        const spans = objectMembers(before, 0)
        const removed = list.map((_, index) => index).filter(() => choose.next().value)
        const after = spliceBytes(before, removeMembers(spans, removed))
        const kept = list.filter((_, index) => !removed.includes(index))
        const texts = objectMembers(after, 0).map((span) => [
          after.toString('utf8', span.key_start, span.key_end),
          after.toString('utf8', span.value_start, span.value_end),
        ])
        expect(texts).toEqual(kept.map((member) => [member.key, member.value]))
        JSON.parse(after.toString())
      }),
      check,
    )
  })

  it('refuses damaged JSON that JSON.parse refuses, unless the damage is inside a string', () => {
    fc.assert(
      fc.property(spaced, fc.nat(), fc.constantFrom('', ',', ':', '{', ']', '"', '0', 'e'), ([list, spaces], at, put) => {
        const whole = write(list, spaces)
        const position = at % whole.length
        const damaged = whole.slice(0, position) + put + whole.slice(position + 1)
        const accepted = accepts(() => rewriteMembers(Buffer.from(damaged), {}))
        const valid = accepts(() => JSON.parse(damaged))
        const inside_string = !valid && damaged.split('').some((character) => character === '\\' || character < ' ')
        expect(accepted === valid || inside_string || !damaged.trimStart().startsWith('{')).toBe(true)
      }),
      check,
    )
  })
})

/** The object with members put behind its last one; none of the test's strings ends in white space and a brace. */
function appended(object: string, missing: readonly string[], empty: boolean): string {
  if (missing.length === 0) return object
  if (empty) return object.replace('{', `{${missing.join(',')}`)
  const closing = /\s*\}\s*$/.exec(object)?.index ?? object.length
  return `${object.slice(0, closing)},${missing.join(',')}${object.slice(closing)}`
}

function accepts(work: () => unknown): boolean {
  try {
    work()
    return true
  } catch (error) {
    if (error instanceof JsonSpanError || error instanceof SyntaxError) return false
    throw error
  }
}
