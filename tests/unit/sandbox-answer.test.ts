import { describe, expect, test } from 'vitest'
import { answerOf, parseChatRequest, RequestError, tokensOf } from '../../src/sandbox/answer.ts'
import { DirectiveError, parseDirectives, resolveDirectives, type PartialDirectives } from '../../src/sandbox/directives.ts'
import { embed } from '../../src/sandbox/embed.ts'
import { sampleOf } from '../../src/sandbox/sample.ts'
import { Tally } from '../../src/sandbox/tally.ts'

const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Current weather of a city',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, unit: { enum: ['celsius', 'fahrenheit'] }, days: { type: 'integer', minimum: 2 } },
      required: ['city', 'unit'],
    },
  },
}
const CLOCK = { type: 'function', function: { name: 'get_time', parameters: { type: 'object', properties: {} } } }

function answer(body: Record<string, unknown>, directives: PartialDirectives = {}) {
  return answerOf(parseChatRequest({ model: 'm', ...body }), resolveDirectives([directives]))
}
const user = (content: unknown) => ({ messages: [{ role: 'user', content }] })
const textOf = (choice: { content: readonly string[] } | undefined) => choice?.content.join('')

describe('the sandbox answers', () => {
  test('in the language of the prompt, quoting it, the same every time', () => {
    const chinese = textOf(answer(user('发票抬头怎么改？'))[0])
    expect(chinese).toContain('发票抬头怎么改？')
    expect(chinese).toContain('沙箱')
    expect(textOf(answer(user('发票抬头怎么改？'))[0])).toBe(chinese)
    const english = textOf(answer(user([{ type: 'text', text: 'How do I change the title?' }]))[0])
    expect(english).toContain('"How do I change the title?"')
  })

  test('a long prompt with a quotation, not in full', () => {
    expect(textOf(answer(user('堰'.repeat(5_000)))[0])?.length).toBeLessThan(400)
    expect(textOf(answer(user('🀄'.repeat(5_000)))[0])?.length).toBeLessThan(700)
  })

  test('with as many choices as asked for, each its own', () => {
    const choices = answer({ ...user('hello'), n: 3 })
    expect(new Set(choices.map(textOf)).size).toBe(3)
  })

  test('within the token limit, thinking included, and says so', () => {
    const [choice] = answer({ ...user('hello'), max_completion_tokens: 5 }, { reasoning_tokens: 3 })
    expect(choice).toMatchObject({ finish_reason: 'length' })
    expect(choice?.reasoning).toHaveLength(3)
    expect(choice?.content).toHaveLength(2)
    expect(answer({ ...user('hello'), max_tokens: 500 })[0]?.finish_reason).toBe('stop')
  })

  test('up to a stop sequence, without it', () => {
    const [choice] = answer({ ...user('hello'), stop: ['sandbox', 'model'] })
    expect(textOf(choice)).toBe('Hello from the Weir ')
    expect(choice?.finish_reason).toBe('stop')
  })

  test('with exactly the number of tokens that was asked for', () => {
    for (const tokens of [0, 1, 7, 64, 1_000]) {
      const [choice] = answer(user('你好 world'), { tokens })
      expect(choice && tokensOf(choice)).toBe(tokens)
    }
  })

  test('in JSON where JSON was asked for', () => {
    const object = answer({ ...user('hi'), response_format: { type: 'json_object' } })
    expect(JSON.parse(textOf(object[0]) ?? '')).toMatchObject({ language: 'en' })
    const schema = { type: 'object', properties: { name: { type: 'string' }, ok: { type: 'boolean' } } }
    const format = { type: 'json_schema', json_schema: { name: 'x', schema } }
    const structured = answer({ ...user('Meet Alice'), response_format: format })
    expect(JSON.parse(textOf(structured[0]) ?? '')).toEqual({ name: 'Alice', ok: true })
  })

  test.each([
    ['a required tool', { tools: [WEATHER], tool_choice: 'required', ...user('hello') }, 'get_weather'],
    [
      'a named tool',
      { tools: [WEATHER, CLOCK], tool_choice: { type: 'function', function: { name: 'get_time' } }, ...user('x') },
      'get_time',
    ],
    ['a tool the prompt names', { tools: [WEATHER, CLOCK], ...user('please call get_time') }, 'get_time'],
    ['a weather tool when the prompt is about the weather', { tools: [CLOCK, WEATHER], ...user('苏州天气如何') }, 'get_weather'],
  ])('by calling %s', (_, body, name) => {
    const [choice] = answer(body)
    expect(choice?.tool_calls.map((call) => call.name)).toEqual([name])
    expect(choice?.finish_reason).toBe('tool_calls')
  })

  test('with arguments that fit the schema and come from the prompt', () => {
    const call = answer({ tools: [WEATHER], ...user('Weather in Paris, in fahrenheit?') })[0]?.tool_calls[0]
    expect(JSON.parse(call?.arguments.join('') ?? '')).toEqual({ city: 'Paris', unit: 'celsius' })
  })

  test.each([
    ['no reason to call one', { tools: [WEATHER], ...user('hello') }],
    ['tool_choice none', { tools: [WEATHER], tool_choice: 'none', ...user('weather?') }],
  ])('in words, although there are tools, with %s', (_, body) => {
    expect(answer(body)[0]).toMatchObject({ tool_calls: [], finish_reason: 'stop' })
  })

  test('with the result of a tool once it has come', () => {
    const messages = [
      { role: 'user', content: 'weather in Paris?' },
      { role: 'assistant', content: null, tool_calls: [] },
      { role: 'tool', tool_call_id: 'c', content: '21 degrees' },
    ]
    const [choice] = answer({ messages, tools: [WEATHER] })
    expect(choice?.tool_calls).toEqual([])
    expect(textOf(choice)).toContain('21 degrees')
  })

  test.each([[{}], [{ model: 'm' }], [{ model: 'm', messages: [] }], [{ model: 'm', messages: [{}], n: 0 }]])(
    'no request as wrong as %j',
    (body) => {
      expect(() => parseChatRequest(body)).toThrow(RequestError)
    },
  )
})

describe('a value made from a schema', () => {
  test('follows references, choices and bounds, and ends where the schema does not', () => {
    const schema = {
      $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } }, required: ['next'] } },
      type: 'object',
      properties: {
        list: { type: 'array', items: { type: 'number', minimum: 5 }, minItems: 2 },
        either: { anyOf: [{ type: 'null' }, { type: 'string' }] },
        day: { type: 'string', format: 'date' },
        short: { type: 'string', maxLength: 3 },
        deep: { $ref: '#/$defs/node' },
      },
    }
    const made = sampleOf(schema, 'words', true)
    expect(made).toMatchObject({ list: [5, 5], either: null, day: '2026-11-23', short: 'wor' })
    expect(JSON.stringify(made)).toContain('null}')
  })
})

describe('directives', () => {
  test('given later win, a fault as a whole', () => {
    const resolved = resolveDirectives([{ tokens: 5, fail: { kind: 'rate' } }, { tokens: 6 }, { fail: null }])
    expect(resolved).toMatchObject({ tokens: 6, fail: null, shape: 'own_chunk', layout: 'openai' })
    expect(resolveDirectives([{ fail: { kind: 'rate' } }]).fail).toMatchObject({ status: 429, retry_after: null, times: null })
  })

  test('take the layout a shape is known from, and the shape a layout has', () => {
    expect(resolveDirectives([{ shape: 'choice' }]).layout).toBe('moonshot')
    expect(resolveDirectives([{ layout: 'baichuan' }])).toMatchObject({ shape: 'finish_chunk', done: false, data_space: false })
    expect(resolveDirectives([{ layout: 'baichuan', done: true }]).done).toBe(true)
  })

  test.each([
    [{ shap: 'own_chunk' }, /not "shap"/],
    [{ shape: 'ring' }, /shape: one of own_chunk/],
    [{ tokens: -1 }, /tokens: a whole number/],
    [{ token_delay_ms: 600_001 }, /600000/],
    [{ fail: { at: 3 } }, /with a kind/],
    [{ fail: { kind: 'refuse', status: 200 } }, /status: a whole number from 400/],
    [{ split: [0] }, /byte offsets/],
    [[], /must be an object/],
  ])('that are none are refused with a reason: %j', (given, message) => {
    expect(() => parseDirectives(given)).toThrow(DirectiveError)
    expect(() => parseDirectives(given)).toThrow(message)
  })
})

describe('embeddings', () => {
  test('are unit vectors, the same for the same text, different for different texts', () => {
    const first = embed('发票', 1_024)
    expect(Math.hypot(...first)).toBeCloseTo(1, 5)
    expect(embed('发票', 1_024)).toEqual(first)
    expect(embed('税票', 1_024)).not.toEqual(first)
  })
})

describe('the tally', () => {
  test('keeps the latest rows and the totals of all', () => {
    const tally = new Tally(3)
    for (let sent = 0; sent < 5; sent += 1) Object.assign(tally.open(`r${sent}`, 1, '/', 0), { sent_tokens: 10, ended_at: 1 })
    const page = tally.page()
    expect(page.served.map((row) => row.request_id)).toEqual(['r2', 'r3', 'r4'])
    expect(page).toMatchObject({ oldest: 2, next: null, totals: { requests: 5, sent_tokens: 50, open: 0 } })
  })

  test('is read page by page and by request id', () => {
    const tally = new Tally()
    for (let sent = 0; sent < 5; sent += 1) tally.open(sent === 3 ? 'x' : 'y', 1, '/', 0)
    const first = tally.page({ limit: 2 })
    expect(first).toMatchObject({ next: 2, served: [{ index: 0 }, { index: 1 }] })
    expect(tally.page({ since: 4, limit: 2 })).toMatchObject({ next: null, served: [{ index: 4 }] })
    expect(tally.page({ request_id: 'x' }).served).toMatchObject([{ index: 3 }])
    tally.reset()
    expect(tally.page()).toMatchObject({ served: [], totals: { requests: 0 } })
  })
})
