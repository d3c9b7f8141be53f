import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cut, framesOf, merged } from '../support/frames.ts'
import { propertySeed } from '../support/seed.ts'

const check = { seed: propertySeed(), numRuns: 500 }

const line = fc.oneof(
  fc.constantFrom(
    '',
    '',
    'data',
    'data:',
    'data: ',
    'data:x',
    'data: {"a":1}',
    'event: error',
    'event:',
    ': comment',
    ':',
    'id: 3',
    'retry:1',
    'dat',
    'data : x',
    'data:: y',
    '\ufeff',
  ),
  fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => `data: ${text.replaceAll(/[\r\n]/g, '')}`),
)
const stream = fc
  .tuple(
    fc.constantFrom('', '\ufeff'),
    fc.array(fc.tuple(line, fc.constantFrom('\n', '\r', '\r\n')), { maxLength: 20 }),
    fc.constantFrom('', 'data: x', ': y'),
  )
  .map(([bom, lines, rest]) => Buffer.from(bom + lines.map(([text, end]) => text + end).join('') + rest))

describe('framer', () => {
  it('gives the same frames for every split, and every byte once', () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 12 }), (bytes, cuts) => {
        const split = framesOf(
          cut(
            bytes,
            cuts.map((at) => at % (bytes.length + 1)),
          ),
          1 << 16,
        )
        expect(merged(split)).toEqual(merged(framesOf([bytes], 1 << 16)))
        const input = bytes.subarray(0, 3).equals(Buffer.from('\ufeff')) ? bytes.subarray(3) : bytes
        expect(Buffer.concat(split.map((frame) => frame.raw)).equals(input)).toBe(true)
      }),
      check,
    )
  })

  it('sees the events that the standard sees', () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        const events = framesOf([bytes], 1 << 16).filter((frame) => frame.complete && frame.data !== null)
        expect(events.map((frame) => [frame.event ?? '', frame.data?.toString()])).toEqual(dispatched(bytes.toString()))
      }),
      check,
    )
  })
})

/** The standard's interpretation, written as it reads there. */
function dispatched(text: string): [string, string][] {
  const events: [string, string][] = []
  let data = ''
  let type = ''
  const lines = text.replace(/^\ufeff/, '').split(/\r\n|\r|\n/)
  for (const each of lines.slice(0, -1)) {
    const colon = each.indexOf(':')
    const field = colon === -1 ? each : each.slice(0, colon)
    const value = colon === -1 ? '' : each.slice(colon + 1).replace(/^ /, '')
    if (each === '') {
      if (data !== '') events.push([type, data.slice(0, -1)])
      data = type = ''
    } else if (field === 'data') data += `${value}\n`
    else if (field === 'event') type = value
  }
  return events
}
