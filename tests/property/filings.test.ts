import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readFilingList } from '../../src/config/filing-list.ts'
import { formatFilings, readFilings } from '../../src/config/filings-file.ts'
import { IssueList } from '../../src/config/document.ts'
import { type FilingRow, findFiling, makeRegistry, mergeFilings, parseFilingNumber, sameNumber } from '../../src/routing/filings.ts'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { propertySeed } from '../support/seed.ts'
import { tempDir } from '../support/temp.ts'

const seed = propertySeed()

const letters = (least: number, most: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...'abcdefgxyzABCDEFGXYZ'.split('')), minLength: least, maxLength: most })
const digits = (count: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...'0123456789'.split('')), minLength: count, maxLength: count })
const name = fc.string({ unit: fc.constantFrom(...'abcXYZ019-._'.split('')), minLength: 1, maxLength: 20 })
const tail = fc.oneof(
  fc.constant(''),
  digits(4),
  digits(6),
  fc.tuple(fc.constantFrom('s', 'S'), digits(4)).map((parts) => parts.join('')),
)
const number = fc.tuple(letters(1, 12), name, digits(8), tail).map(([prefix, middle, date, rest]) => `${prefix}-${middle}-${date}${rest}`)
const cell = fc
  .string({ unit: fc.constantFrom(...'云雀模型（）(),"\'; #AB1\t'.split('')), maxLength: 12 })
  .map((text) => text.replaceAll('\t', ' ').trim())
const day = fc
  .date({ min: new Date('2023-01-01'), max: new Date('2027-12-31'), noInvalidDate: true })
  .map((date) => date.toISOString().slice(0, 10))
const row = fc.record({ number, name: cell, entity: cell, province: cell, filed_on: fc.oneof(fc.constant(''), day), source: cell })
const rows = fc
  .uniqueArray(row, { maxLength: 12, selector: (one) => one.number.toLowerCase() })
  .map((list) => list.map((one): FilingRow => ({ ...one, kind: /s\d{4}$/i.test(one.number) ? 'registered' : 'filed' })))

function respelled(text: string, upper: readonly boolean[]): string {
  return [...text].map((letter, index) => (upper[index % upper.length] === true ? letter.toUpperCase() : letter.toLowerCase())).join('')
}

describe('numbers', () => {
  it('are the same however their letters are written, and are found so', () => {
    const property = fc.property(number, fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }), (text, upper) => {
      const other = respelled(text, upper)
      expect(parseFilingNumber(other)?.folded).toBe(parseFilingNumber(text)?.folded)
      expect(parseFilingNumber(text)).not.toBeNull()
      expect(sameNumber(text, other)).toBe(true)
      const filed: FilingRow = { number: text, kind: 'filed', name: '', entity: '', province: '', filed_on: '', source: '' }
      expect(findFiling(makeRegistry('2026-08-24', [filed]), other)).toBe(filed)
    })
    fc.assert(property, { seed, numRuns: 2000 })
  })

  it('differ where anything but case differs', () => {
    const property = fc.property(number, number, (left, right) => {
      expect(sameNumber(left, right)).toBe(left.toLowerCase() === right.toLowerCase())
    })
    fc.assert(property, { seed, numRuns: 2000 })
  })
})

describe('the registry', () => {
  it('reads back from its file as it was', () => {
    const dir = tempDir()
    const property = fc.property(rows, day, (list, as_of) => {
      const registry = makeRegistry(as_of, list)
      writeFileSync(join(dir, 'filings.csv'), formatFilings(registry))
      const issues = new IssueList()
      const read = readFilings(dir, issues)
      expect(issues.issues).toEqual([])
      expect(read.registry).toEqual(registry)
    })
    fc.assert(property, { seed, numRuns: 300 })
  })

  it('loses no number by a merge, whatever the list, and a second merge of it changes nothing', () => {
    const property = fc.property(rows, rows, day, day, (known, list, known_as_of, list_as_of) => {
      const before = makeRegistry(known_as_of, known)
      const merged = mergeFilings(before, makeRegistry(list_as_of, list))
      const numbers = new Set([...known, ...list].map((one) => one.number.toLowerCase()))
      expect(new Set(merged.registry.rows.keys())).toEqual(numbers)
      expect(merged.added.length + merged.changed.length + merged.unchanged).toBe(list.length)
      expect(merged.not_in_list).toBe(numbers.size - list.length)
      expect(merged.registry.as_of).toBe([known_as_of, list_as_of].toSorted().at(-1))
      const again = mergeFilings(merged.registry, makeRegistry(list_as_of, list))
      expect([again.added, again.changed, again.registry]).toEqual([[], [], merged.registry])
    })
    fc.assert(property, { seed, numRuns: 500 })
  })
})

const ENCODINGS = ['utf8', 'utf8-bom', 'utf16le-bom'] as const

function encoded(text: string, encoding: (typeof ENCODINGS)[number]): Buffer {
  if (encoding === 'utf16le-bom') return Buffer.from(`\ufeff${text}`, 'utf16le')
  return Buffer.from(encoding === 'utf8-bom' ? `\ufeff${text}` : text)
}

describe('a list', () => {
  it('is read the same in any order of columns, encoding, separator, line end and case, between other columns, with rows twice', () => {
    const columns = ['filing_number', 'name', '备案单位', '属地', '备案时间', 'remark'] as const
    const form = fc.record({
      order: fc.shuffledSubarray([...columns], { minLength: columns.length, maxLength: columns.length }),
      encoding: fc.constantFrom(...ENCODINGS),
      separator: fc.constantFrom(',', '\t', ';'),
      line_end: fc.constantFrom('\n', '\r\n'),
      upper: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
    })
    const property = fc.property(rows, form, (list, { order, encoding, separator, line_end, upper }) => {
      const plain = (text: string): string => text.replaceAll(/\s+/g, ' ')
      const wanted = list.map((one) => ({
        ...one,
        name: plain(one.name),
        entity: plain(one.entity),
        province: plain(one.province),
        source: '',
      }))
      const cells = (one: FilingRow): Readonly<Record<(typeof columns)[number], string>> => ({
        filing_number: one.number,
        name: one.name,
        备案单位: one.entity,
        属地: one.province,
        备案时间: one.filed_on.replaceAll('-', '/'),
        remark: 'x',
      })
      const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`
      const line = (one: FilingRow): string => order.map((column) => quoted(cells(one)[column])).join(separator)
      const again = wanted.map((one) => ({ ...one, number: respelled(one.number, upper) }))
      const text = [order.join(separator), ...wanted.map(line), '', ...again.map(line)].map((one) => one + line_end).join('')
      const found = readFilingList(encoded(text, encoding))
      expect(found.rows).toEqual(wanted)
      expect([found.duplicates, found.problems]).toEqual([list.length, []])
    })
    fc.assert(property, { seed, numRuns: 300 })
  })

  it('never makes reading fail with anything but its own error, whatever the bytes', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      try {
        readFilingList(Buffer.concat([Buffer.from('number,name\n'), bytes]))
      } catch (error) {
        expect((error as Error).name).toBe('ListUnreadable')
      }
    })
    fc.assert(property, { seed, numRuns: 1000 })
  })
})
