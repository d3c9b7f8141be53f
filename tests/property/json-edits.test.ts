import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ObjectEdits } from '../../src/base/json-edits.ts'
import { spliceBytes } from '../../src/base/json-spans.ts'
import type { Edit } from '../../src/base/json-spans.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()

const name = fc.constantFrom('a', 'b', 'c', 'd', '"q"', '你')
const value = fc.jsonValue({ maxDepth: 2 })
const change = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), name, value }),
  fc.record({ kind: fc.constant('remove' as const), name }),
)

it('sets, removes and appends members as a map would, and leaves the others and their order alone', () => {
  const changes = fc.uniqueArray(change, { selector: (one) => one.name, maxLength: 5 })
  const property = fc.property(
    fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key }),
    changes,
    fc.constantFrom('', ' ', '\n  '),
    (members, wanted, space) => {
      const text = `{${space}${members.map(([key, member]) => `${JSON.stringify(key)}${space}:${JSON.stringify(member)}`).join(`,${space}`)}${space}}`
      const bytes = Buffer.from(text)
      const object = new ObjectEdits(bytes, 0, { max_depth: 64 })
      const model = new Map(members)
      for (const one of wanted) {
        if (one.kind === 'set') {
          object.set(one.name, JSON.stringify(one.value))
          model.set(one.name, one.value)
        } else {
          object.remove(one.name)
          model.delete(one.name)
        }
      }
      const edits: Edit[] = []
      object.finish(edits)
      const edited = spliceBytes(bytes, edits).toString()
      const plain = [...model].map(([key, member]) => [key, JSON.parse(JSON.stringify(member)) as unknown])
      expect(JSON.parse(edited)).toEqual(Object.fromEntries(plain))
      expect(Object.keys(JSON.parse(edited) as object)).toEqual([...model.keys()])
      if (wanted.length === 0) expect(edited).toBe(text)
    },
  )
  fc.assert(property, { seed, numRuns: 1000 })
})

it('changes every occurrence of a key that is there twice, and reads the last', () => {
  const bytes = Buffer.from('{"a":1,"b":2,"a":3}')
  const object = new ObjectEdits(bytes, 0, { max_depth: 4 })
  expect(object.raw('a')?.toString()).toBe('3')
  object.set('a', '9')
  object.rename('b', 'c')
  const edits: Edit[] = []
  object.finish(edits)
  expect(spliceBytes(bytes, edits).toString()).toBe('{"a":9,"c":2,"a":9}')
})
