import { describe, expect, it } from 'vitest'
import {
  arrayElements,
  JsonSpanError,
  keyIs,
  objectMembers,
  removeMembers,
  rewriteMembers,
  spliceBytes,
} from '../../src/base/json-spans.ts'

const bytes = (text: string): Buffer => Buffer.from(text)
const values = (text: string): string[] =>
  objectMembers(bytes(text), 0).map((span) => bytes(text).toString('utf8', span.value_start, span.value_end))

describe('objectMembers', () => {
  it('finds members of every kind, nested ones skipped, duplicates reported', () => {
    expect(values(' { "a" : 1.5e-3 , "b":[{"a":"]}"},[]] ,"a":"x\\"\\\\", "c":{} , "d":null}')).toEqual([
      '1.5e-3',
      '[{"a":"]}"},[]]',
      '"x\\"\\\\"',
      '{}',
      'null',
    ])
    expect(values('{}')).toEqual([])
  })

  it('finds the end of long strings, whatever backslashes stand before the quote', () => {
    for (let length = 55; length < 75; length++) {
      for (const tail of ['', '\\\\', '\\"', '\\\\\\"', '\\"\\\\', '\\"'.repeat(100)]) {
        const text = `"${'x'.repeat(length)}${tail}"`
        expect(values(`{"a":${text},"b":1}`)).toEqual([text, '1'])
      }
    }
  })

  it.each([
    '',
    '[]',
    '{',
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{,}',
    '{"a":1 "b":2}',
    '{"a":[1,]}',
    '{"a":[1}}',
    '{"a":{"b":1]}',
    '{"a":tru}',
    '{"a":01}',
    '{"a":1.}',
    '{"a":-}',
    '{"a":1e}',
    '{"a":"x}',
    '{a:1}',
    '{"a":{"b"}}',
    '{"a":+1}',
  ])('refuses %j', (text) => {
    expect(() => objectMembers(bytes(text), 0)).toThrow(JsonSpanError)
  })

  it('bounds depth without recursion, and the number of members', () => {
    const nested = (depth: number): Buffer => bytes(`{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`)
    expect(objectMembers(nested(8), 0, { max_depth: 8 })).toHaveLength(1)
    expect(() => objectMembers(nested(9), 0, { max_depth: 8 })).toThrow('nested too deeply')
    expect(() => objectMembers(bytes(`{"a":${'[{"a":'.repeat(1_000_000)}`), 0, { max_depth: 10_000_000 })).toThrow(JsonSpanError)
    expect(() => objectMembers(bytes('{"a":1,"b":2}'), 0, { max_depth: 2, max_members: 1 })).toThrow('more than 1 members')
  })

  it('never quotes the input in its error', () => {
    expect(() => objectMembers(bytes('{"secret":secret}'), 0)).toThrow(/^malformed JSON at byte 10$/)
  })

  it('compares keys unescaped', () => {
    const text = bytes('{"mod\\u0065l":1,"model":2,"models":3,"\\u006d\\u006F\\u0064\\u0065\\u006c":4,"mode\\\\":5,"型":6}')
    const members = objectMembers(text, 0)
    expect(members.map((member) => keyIs(text, member, 'model'))).toEqual([true, true, false, true, false, false])
    expect(members.map((member) => keyIs(text, member, '型'))).toEqual([false, false, false, false, false, true])
  })
})

describe('arrayElements', () => {
  it('finds elements', () => {
    const text = bytes('x [ 1 , {"a":[]}, "," ]')
    expect(arrayElements(text, 1).map(({ start, end }) => text.toString('utf8', start, end))).toEqual(['1', '{"a":[]}', '","'])
    expect(arrayElements(bytes('[ ]'), 0)).toEqual([])
    expect(() => arrayElements(bytes('[1,]'), 0)).toThrow(JsonSpanError)
  })
})

describe('removeMembers', () => {
  it.each([
    ['{"a":1, "b":2 ,"c":3}', [0], '{"b":2 ,"c":3}'],
    ['{"a":1, "b":2 ,"c":3}', [1], '{"a":1, "c":3}'],
    ['{"a":1, "b":2 ,"c":3 }', [2], '{"a":1, "b":2 }'],
    ['{"a":1, "b":2 ,"c":3}', [0, 2], '{"b":2}'],
    ['{"a":1, "b":2 ,"c":3}', [1, 2], '{"a":1}'],
    ['{"a":1, "b":2 ,"c":3}', [0, 1], '{"c":3}'],
    ['{ "a":1, "b":2 ,"c":3 }', [0, 1, 2], '{  }'],
  ])('of %s at %j leaves %s', (text, indexes, expected) => {
    expect(spliceBytes(bytes(text), removeMembers(objectMembers(bytes(text), 0), indexes)).toString()).toBe(expected)
  })
})

describe('rewriteMembers', () => {
  it('replaces every occurrence, however the key is written, and leaves the rest byte by byte', () => {
    const body = bytes('{ "mod\\u0065l" : "x" ,"seed":12345678901234567890, "model":{"model":1},\t"nested":{"model":"keep"} }\n')
    const after = rewriteMembers(body, { model: bytes('"up"') })
    expect(after.toString()).toBe('{ "mod\\u0065l" : "up" ,"seed":12345678901234567890, "model":"up",\t"nested":{"model":"keep"} }\n')
  })

  it('appends what is missing', () => {
    expect(rewriteMembers(bytes('{"a":1 }'), { b: bytes('2'), c: bytes('{}') }).toString()).toBe('{"a":1,"b":2,"c":{} }')
    expect(rewriteMembers(bytes(' { } '), { b: bytes('2'), c: bytes('3') }).toString()).toBe(' {"b":2,"c":3 } ')
  })

  it('refuses what is not one object, and absurdly many duplicates', () => {
    expect(() => rewriteMembers(bytes('{"a":1} {}'), {})).toThrow('something follows the object')
    expect(() => rewriteMembers(bytes('[]'), {})).toThrow(JsonSpanError)
    expect(() => rewriteMembers(bytes(`{${'"model":1,'.repeat(1001)}"a":1}`), { model: bytes('2') })).toThrow('more than 1000 times')
  })

  it('reads a large hostile body once', () => {
    const text = `{"a":"${'\\"'.repeat(1_000_000)}","b":[${'"\\\\",'.repeat(200_000)}0],"model":"x"}`
    const after = rewriteMembers(bytes(text), { model: bytes('"y"') })
    expect(after.subarray(-13).toString()).toBe('],"model":"y"}'.slice(1))
  })
})
