import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { answerOf, parseChatRequest } from '../../src/sandbox/answer.ts'
import { resolveDirectives, type PartialDirectives } from '../../src/sandbox/directives.ts'
import { rawItems, streamItems } from '../../src/sandbox/shapes.ts'
import { sharedData } from '../support/shared.ts'

const STAMP = { id: 'chatcmpl-1', model: 'm', created_s: 1_795_392_000 }
const USAGE = { prompt_tokens: 9, completion_tokens: 6, cached_tokens: 0, reasoning_tokens: 1 }
const TOOL = { type: 'function', function: { name: 'f', parameters: { properties: { a: {} }, required: ['a'] } } }

function items(given: PartialDirectives, body: Record<string, unknown> = {}, include_usage = true) {
  const directives = resolveDirectives([given])
  const request = parseChatRequest({ model: 'm', messages: [{ role: 'user', content: 'hi, "堰"' }], max_tokens: 6, ...body })
  return [...streamItems(answerOf(request, directives), USAGE, STAMP, directives, include_usage)]
}
const streamOf = (...given: Parameters<typeof items>): string =>
  items(...given)
    .map((item) => String(item.bytes))
    .join('')

/** JSON with its keys in order and its values replaced by their types: the layout and nothing else. */
function skeleton(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(skeleton).join()}]`
  if (typeof value !== 'object' || value === null) return value === '' ? 'empty' : value === null ? 'null' : typeof value
  return `{${Object.entries(value)
    .map(([key, member]) => `${key}:${skeleton(member)}`)
    .join()}}`
}

/** The distinct kinds of lines of a stream, in order of first appearance. */
function layoutOf(stream: string): string[] {
  const lines = stream.split('\n').filter((line) => line !== '')
  const kinds = lines.map((line) => {
    const [, field = '', value = ''] = /^(data: ?|: )(.*)$/.exec(line) ?? []
    return `${field}${value.startsWith('{') ? skeleton(JSON.parse(value)) : value}`
  })
  return [...new Set(kinds)]
}

const SAMPLES: readonly [string, PartialDirectives, Record<string, unknown>][] = [
  ['deepseek-reasoning-usage-in-finish-chunk.sse', { layout: 'deepseek', reasoning_tokens: 2, keep_alive: 2 }, {}],
  ['deepseek-toolcall.sse', { layout: 'deepseek', reasoning_tokens: 1, tool_call: 'always' }, { tools: [TOOL], max_tokens: 99 }],
  ['qwen-compatible-usage-in-empty-choices.sse', { layout: 'qwen', reasoning_tokens: 2 }, {}],
  ['qwen-compatible-toolcall-empty-id.sse', { layout: 'qwen', tool_call: 'always' }, { tools: [TOOL], max_tokens: 99 }],
  ['moonshot-usage-inside-choices0.sse', { layout: 'moonshot' }, {}],
  ['minimax-reasoning-details.sse', { layout: 'minimax', reasoning_tokens: 1 }, {}],
  ['stepfun-delta-reasoning.sse', { layout: 'stepfun', reasoning_tokens: 1 }, {}],
  ['vllm-continuous-usage-stats.sse', { layout: 'vllm', reasoning_tokens: 1 }, {}],
]

describe('a layout is that of the recorded stream', () => {
  const folder = sharedData('streams')
  test.skipIf(folder === null).each(SAMPLES)('%s', (name, given, body) => {
    const recorded = readFileSync(`${folder}/${name}`, 'utf8')
    // Thinking is reported in a detail of the usage or not at all, whichever the sample's answer had.
    const drop = (kinds: string[]) => kinds.map((kind) => kind.replace(/completion_tokens_details:\{reasoning_tokens:number\},?/, ''))
    expect(drop(layoutOf(streamOf(given, body)))).toEqual(drop(layoutOf(recorded)))
  })

  test.skipIf(folder === null)('baichuan-empty-finish-reason-no-done.sse, but for the finish having a chunk of its own', () => {
    const recorded = layoutOf(readFileSync(`${folder}/baichuan-empty-finish-reason-no-done.sse`, 'utf8'))
    const made = layoutOf(streamOf({ layout: 'baichuan' })).map((kind) => kind.replace('content:empty', 'content:string'))
    expect(made).toEqual(recorded)
  })
})

describe('a stream', () => {
  test('carries one token per chunk, or as many as asked for, and the same text', () => {
    const one = items({})
    expect(one.filter((item) => item.kind === 'token').map((item) => item.tokens)).toEqual([1, 1, 1, 1, 1, 1])
    const four = items({ tokens_per_chunk: 4 })
    expect(four.filter((item) => item.kind === 'token').map((item) => item.tokens)).toEqual([4, 2])
  })

  test('reports usage only where the shape has it', () => {
    const count = (given: PartialDirectives, asked: boolean) => streamOf(given, {}, asked).match(/"total_tokens":15/g)?.length ?? 0
    expect([count({ shape: 'own_chunk' }, true), count({ shape: 'own_chunk' }, false)]).toEqual([1, 0])
    expect([count({ shape: 'finish_chunk' }, true), count({ shape: 'finish_chunk' }, false)]).toEqual([1, 1])
    expect([count({ shape: 'choice' }, true), count({ shape: 'choice' }, false)]).toEqual([1, 1])
    expect([count({ shape: 'absent' }, true), count({ shape: 'absent' }, false)]).toEqual([0, 0])
    expect(streamOf({ shape: 'absent' })).not.toContain('usage')
  })

  test.each(['lf', 'crlf', 'cr'] as const)('ends its lines in %s', (line_end) => {
    const end = { lf: '\n', crlf: '\r\n', cr: '\r' }[line_end]
    const changed = streamOf({ line_end, keep_alive: 1 })
    expect(changed.split(end).join('\n')).toBe(streamOf({ keep_alive: 1 }))
    expect(changed).not.toContain(line_end === 'cr' ? '\n' : '\n\r\n\n')
  })

  test('may start with a byte order mark, spread its data over lines, and carry members nobody knows', () => {
    const stream = streamOf({ bom: true, multi_line: true, extra_fields: true })
    expect(stream.charCodeAt(0)).toBe(0xfeff)
    const events = stream
      .slice(1)
      .split('\n\n')
      .filter((event) => event !== '' && event !== 'data: [DONE]')
    for (const event of events) {
      const lines = event.split('\n')
      expect(lines).toHaveLength(3)
      const json = lines.map((line) => line.replace('data: ', '')).join('\n')
      expect(JSON.parse(json)).toMatchObject({ sandbox_extra: { twice: 2 } })
      expect(json).toContain('"big":9007199254740993,"price":1.50')
    }
  })

  test('has comments between its events where asked for', () => {
    expect(streamOf({ keep_alive_every: 3 }).match(/: keep-alive/g)).toHaveLength(3)
  })

  test('is padded per token in a member of its own', () => {
    const padded = items({ bytes_per_token: 100 }).filter((item) => item.kind === 'token')
    for (const item of padded) expect(String(item.bytes)).toContain(`"obfuscation":"${'x'.repeat(100)}"`)
  })

  test('of several choices names each of them and finishes each of them', () => {
    const stream = streamOf({}, { n: 3 })
    for (const index of [0, 1, 2])
      expect(stream).toMatch(new RegExp(`"index":${index},"delta":\\{\\},"logprobs":null,"finish_reason":"length"`))
  })
})

describe('a replay', () => {
  const body = Buffer.from('data: 堰\n\n')
  const cut = (split: PartialDirectives['split']) =>
    [...rawItems(body.toString('base64'), split ?? null)].map((item) => Buffer.from(item.bytes))

  test.each([[null], [[3]], [[9, 3, 3, 500]], [{ every: 1 }], [{ every: 7 }]])('cut by %j is the same bytes', (split) => {
    expect(Buffer.concat(cut(split))).toEqual(body)
  })

  test('is cut where asked for', () => {
    expect(cut([7, 3]).map((part) => part.length)).toEqual([3, 4, body.length - 7])
    expect(cut({ every: 1 })).toHaveLength(body.length)
  })
})
