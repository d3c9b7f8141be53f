import { describe, expect, it } from 'vitest'
import { openaiDialect } from '../../src/upstream/dialects/openai.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'
import { chunksOf, meaningOf } from '../support/meaning.ts'
import { answerContext, everySplit, translate } from '../support/streams.ts'

/** What a client is to make of a stream, whatever its shape. */
interface Meant {
  readonly content?: string
  readonly reasoning?: string
  readonly calls?: readonly (readonly [name: string, given: string])[]
  readonly finish?: string | null
  readonly native?: string
  readonly failure?: FailureKind
  /** Input and output as reported; null for nothing reported. */
  readonly usage?: readonly [number, number] | null
}

const data = (...values: readonly unknown[]): string => values.map((value) => `data: ${JSON.stringify(value)}\n\n`).join('')
const DONE = 'data: [DONE]\n\n'
const choice = (delta: unknown, finish_reason: unknown = null): object => ({
  id: 'c',
  model: 'up',
  choices: [{ index: 0, delta, finish_reason }],
})
const HI = choice({ role: 'assistant', content: 'Hi ' })
const THERE = choice({ content: 'there' })
const STOP = choice({}, 'stop')
const USED = { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 }
const call = (fragment: unknown): object => choice({ tool_calls: [fragment] })

/** Shapes that somebody's server sends, or might. Each ends like any stream. */
const SHAPES: readonly (readonly [what: string, stream: string, meant: Meant])[] = [
  ['carriage returns and no blanks', `data:${JSON.stringify(HI)}\r\n\r\ndata:${JSON.stringify(THERE)}\r\n\r\n${data(STOP)}`, {}],
  ['a byte order mark', `\uFEFF${data(HI, THERE, STOP)}`, {}],
  [
    'comments with text, ids, retries and event names',
    `: queue 3\n\nid: 7\nretry: 5\nevent: message\n${data(HI)}event: completion\n${data(THERE, STOP)}`,
    {},
  ],
  [
    'heartbeats as empty data, empty objects, pings and named events',
    `data:\n\ndata: {}\n\nevent: ping\ndata: {"type":"ping"}\n\nevent: heartbeat\ndata: 1\n\n${data(HI, THERE, STOP)}`,
    {},
  ],
  [
    'JSON over several lines of data',
    `data: {"id":"c","choices":\ndata: [{"index":0,"delta":{"role":"assistant","content":"Hi there"},\ndata: "finish_reason":"stop"}]}\n\n`,
    {},
  ],
  [
    'events that end with one line feed',
    `data: ${JSON.stringify(HI)}\ndata: ${JSON.stringify(THERE)}\ndata: ${JSON.stringify(STOP)}\ndata: [DONE]\n\n`,
    {},
  ],
  ['several chunks in one event', data([HI, THERE], [STOP]), {}],
  [
    'no index',
    data({ choices: [{ delta: { role: 'assistant', content: 'Hi there' } }] }, { choices: [{ delta: {}, finish_reason: 'stop' }] }),
    {},
  ],
  [
    'indexes as text',
    data({ choices: [{ index: '0', delta: { content: 'Hi there' } }] }, { choices: [{ index: '0', delta: {}, finish_reason: 'stop' }] }),
    {},
  ],
  ['choices as an object', data({ choices: { index: 0, delta: { content: 'Hi there' }, finish_reason: 'stop' } }), {}],
  [
    'choices: null at first and at last',
    data({ id: 'c', choices: null }, HI, THERE, STOP, { choices: null, usage: USED }),
    { usage: [7, 3] },
  ],
  ['no choices beside usage', data(HI, THERE, STOP, { id: 'c', usage: USED }), { usage: [7, 3] }],
  ['usage with other members beside it', data(HI, THERE, STOP, { choices: [], usage: USED, search_info: { n: 1 } }), { usage: [7, 3] }],
  ['usage in text', data(HI, THERE, STOP, { choices: [], usage: { prompt_tokens: '7', completion_tokens: '3' } }), { usage: [7, 3] }],
  [
    'usage under the names of another API',
    data(HI, THERE, STOP, { choices: [], usage: { input_tokens: 7, output_tokens: 3 } }),
    { usage: [7, 3] },
  ],
  ['usage: null everywhere', data({ ...HI, usage: null }, { ...THERE, usage: null }, { ...STOP, usage: null }), { usage: null }],
  [
    'an explicit zero',
    data(HI, THERE, STOP, { choices: [], usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } }),
    { usage: [0, 0] },
  ],
  [
    'running usage: the last counts',
    data(
      { ...HI, usage: { ...USED, completion_tokens: 1 } },
      { ...THERE, usage: { ...USED, completion_tokens: 2 } },
      { ...STOP, usage: USED },
    ),
    { usage: [7, 3] },
  ],
  ['delta: null', data(choice(null), HI, THERE, choice(null, 'stop')), {}],
  ['no delta', data(HI, THERE, { choices: [{ index: 0, finish_reason: 'stop' }] }), {}],
  ['content: null and a role alone', data(choice({ role: 'assistant', content: null }), HI, THERE, STOP), {}],
  ['the role again and again', data(HI, choice({ role: 'assistant', content: 'there' }), choice({ role: 'assistant' }, 'stop')), {}],
  [
    'finish_reason as the text null',
    data(choice({ role: 'assistant', content: 'Hi ' }, 'null'), choice({ content: 'there' }, ''), STOP),
    {},
  ],
  ['finish chunks twice', data(HI, THERE, STOP, STOP), {}],
  ['a finish reason in capitals', data(HI, THERE, choice({}, 'STOP')), { native: 'STOP' }],
  ["Anthropic's words for the end", data(HI, THERE, choice({}, 'max_tokens')), { finish: 'length', native: 'max_tokens' }],
  ['a word for the end that nobody knows', data(HI, THERE, choice({}, 'eos_token')), { native: 'eos_token' }],
  [
    'message instead of delta, in pieces',
    data(
      { choices: [{ index: 0, message: { role: 'assistant', content: 'Hi ' } }] },
      { choices: [{ index: 0, message: { content: 'there' }, finish_reason: 'stop' }] },
    ),
    {},
  ],
  [
    'message instead of delta, growing',
    data(...['H', 'Hi', 'Hi ', 'Hi there'].map((content) => ({ choices: [{ message: { role: 'assistant', content } }] })), {
      choices: [{ message: { content: 'Hi there' }, finish_reason: 'stop' }],
    }),
    {},
  ],
  [
    'text instead of delta',
    data({ choices: [{ index: 0, text: 'Hi ' }] }, { choices: [{ index: 0, text: 'there', finish_reason: 'stop' }] }),
    {},
  ],
  [
    'content in parts',
    data(
      choice({ role: 'assistant', content: [{ type: 'thinking', thinking: 'Hm' }] }),
      choice({
        content: [
          { type: 'text', text: 'Hi ' },
          { type: 'text', text: 'there' },
        ],
      }),
      STOP,
    ),
    { reasoning: 'Hm' },
  ],
  ['the whole text again in the last chunk', data(HI, THERE, choice({ content: 'Hi there' }, 'stop')), {}],
  [
    'the whole answer again as a message',
    data(HI, THERE, {
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: 'Hi there' }, finish_reason: 'stop' }],
      usage: USED,
    }),
    { usage: [7, 3] },
  ],
  ['is_end instead of a finish reason', data(HI, { ...THERE, is_end: true }), {}],
  ['is_end of a text that was cut', data(HI, { ...THERE, is_end: true, is_truncated: true }), { finish: 'length' }],
  ['[DONE] after usage instead of a finish reason', data(HI, { ...THERE, usage: USED }) + DONE, { usage: [7, 3] }],
  ['an event named done', `${data(HI, THERE, STOP)}event: done\ndata: {}\n\n`, {}],
  ['reasoning', data(choice({ role: 'assistant', reasoning: 'Hm' }), HI, THERE, STOP), { reasoning: 'Hm' }],
  ['reasoning twice', data(choice({ reasoning: 'Hm', reasoning_content: 'Hm' }), HI, THERE, STOP), { reasoning: 'Hm' }],
  [
    'reasoning beside an empty reasoning_content',
    data(choice({ reasoning: 'Hm', reasoning_content: null }), choice({ reasoning: ', so', reasoning_content: '' }), HI, THERE, STOP),
    { reasoning: 'Hm, so' },
  ],
  [
    'reasoning in details',
    data(choice({ reasoning_details: [{ type: 'reasoning.text', index: 0, text: 'H' }, { text: 'm' }] }), HI, THERE, STOP),
    { reasoning: 'Hm' },
  ],
  ['reasoning as an object', data(choice({ reasoning: { content: 'Hm' } }), HI, THERE, STOP), { reasoning: 'Hm' }],
  ['thinking', data(choice({ thinking: 'Hm' }), HI, THERE, STOP), { reasoning: 'Hm' }],
  [
    "Ollama's own lines",
    [
      { model: 'q', message: { role: 'assistant', content: 'Hi ' }, done: false },
      { message: { content: 'there' }, done: false },
      { message: { content: '' }, done: true, done_reason: 'stop', prompt_eval_count: 7, eval_count: 3 },
    ]
      .map((line) => `${JSON.stringify(line)}\n`)
      .join(''),
    { usage: [7, 3] },
  ],
  [
    'a text and an end under names nobody has described',
    data({ answer: 'Hi ', n: 1 }, { answer: 'there', n: 2 }, { answer: '', finished: true }),
    {},
  ],
  [
    'texts inside of data',
    data({ data: { text: 'Hi ' } }, { data: { text: 'there', finish_reason: 'stop' }, usage: USED }),
    { usage: [7, 3] },
  ],
  [
    "DashScope's text",
    data(
      { output: { text: 'Hi', finish_reason: 'null' } },
      { output: { text: 'Hi there', finish_reason: 'stop' }, usage: { input_tokens: 7, output_tokens: 3 } },
    ),
    { usage: [7, 3] },
  ],
  [
    'one JSON answer instead of a stream',
    JSON.stringify({
      id: 'c',
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: 'Hi there' }, finish_reason: 'stop' }],
      usage: USED,
    }),
    { usage: [7, 3] },
  ],
  [
    'one JSON answer over many lines',
    `\n${JSON.stringify({ choices: [{ index: 0, message: { role: 'assistant', content: 'Hi there' } }] }, null, 2)}\n`,
    {},
  ],
  ['chunks without data:', [HI, THERE, STOP].map((chunk) => `${JSON.stringify(chunk)}\n`).join(''), {}],
  ['members nobody knows', data({ ...HI, x_trace: { a: 1 }, nvext: [] }, THERE, STOP), {}],
  [
    'an error of nothing with every chunk',
    data({ ...HI, error: {} }, { ...THERE, error: { code: 0, message: '' } }, { ...STOP, base_resp: { status_code: 0, status_msg: '' } }),
    {},
  ],
]

/** Tool calls as servers send them. All of them mean one or two calls of `f`. */
const CALLS: readonly (readonly [what: string, stream: string, calls: Meant['calls']])[] = [
  [
    'as everyone',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } }),
      call({ index: 0, function: { arguments: '{"x":' } }),
      call({ index: 0, function: { arguments: '1}' } }),
    ),
    [['f', '{"x":1}']],
  ],
  [
    'with an empty id later',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } }),
      call({ index: 0, id: '', type: 'function', function: { arguments: '{"x":1}' } }),
    ),
    [['f', '{"x":1}']],
  ],
  [
    'with the id and name said again',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":' } }),
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '1}' } }),
    ),
    [['f', '{"x":1}']],
  ],
  [
    'with another id each time',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":' } }),
      call({ index: 0, id: 'b', function: { arguments: '1}' } }),
    ),
    [['f', '{"x":1}']],
  ],
  [
    'without ids',
    data(call({ index: 0, function: { name: 'f', arguments: '{"x":' } }), call({ index: 0, function: { arguments: '1}' } })),
    [['f', '{"x":1}']],
  ],
  [
    'without index',
    data(call({ id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":' } }), call({ function: { arguments: '1}' } })),
    [['f', '{"x":1}']],
  ],
  [
    'with index −1, two of them',
    data(
      call({ index: -1, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }),
      call({ index: -1, id: 'b', type: 'function', function: { name: 'f', arguments: '{"x":2}' } }),
    ),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'with index 0 for two of them',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }),
      call({ index: 0, id: 'b', type: 'function', function: { name: 'f', arguments: '{"x":2}' } }),
    ),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'with one id for two of them',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }),
      call({ index: 1, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":2}' } }),
    ),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'counted from 1',
    data(
      call({ index: 1, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }),
      call({ index: 2, id: 'b', type: 'function', function: { name: 'f', arguments: '{"x":2}' } }),
    ),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'without anything, whole, two of them',
    data(call({ function: { name: 'f', arguments: '{"x":1}' } }), call({ function: { name: 'f', arguments: '{"x":2}' } })),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'by turns',
    data(
      call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } }),
      call({ index: 1, id: 'b', type: 'function', function: { name: 'f', arguments: '' } }),
      call({ index: 0, function: { arguments: '{"x":1}' } }),
      call({ index: 1, function: { arguments: '{"x":2}' } }),
    ),
    [
      ['f', '{"x":1}'],
      ['f', '{"x":2}'],
    ],
  ],
  [
    'as an object',
    data(choice({ role: 'assistant', content: '', tool_calls: { type: 'function', function: { name: 'f', arguments: '{"x":1}' } } })),
    [['f', '{"x":1}']],
  ],
  [
    'with arguments as an object',
    data(call({ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: { x: 1 } } })),
    [['f', '{"x":1}']],
  ],
  ['without arguments', data(call({ index: 0, id: 'a', type: 'function', function: { name: 'f' } })), [['f', '']]],
  ['with null for arguments', data(call({ index: 0, id: 'a', type: null, function: { name: 'f', arguments: null } })), [['f', '']]],
  ['with name and arguments outside', data(call({ index: 0, id: 'a', name: 'f', arguments: '{"x":1}' })), [['f', '{"x":1}']]],
  [
    'with a number for an id',
    data(call({ index: 0, id: 7, type: 'function', function: { name: 'f', arguments: '{"x":1}' } })),
    [['f', '{"x":1}']],
  ],
]

function run(stream: string, usage_asked: boolean): ReturnType<typeof translate> {
  const bytes = Buffer.from(stream)
  const context = answerContext({ usage_asked })
  const outcome = translate(openaiDialect, context, [bytes])
  for (const chunks of everySplit(bytes)) expect(translate(openaiDialect, context, chunks)).toEqual(outcome)
  return outcome
}

describe('a stream of a shape that is in no sample loses nothing, for every split', () => {
  it.each(SHAPES)('%s', (_, stream, { content = 'Hi there', reasoning = '', finish = 'stop', native, usage }) => {
    for (const usage_asked of [false, true]) {
      for (const ending of stream.includes('[DONE]') || !stream.includes('data') ? [''] : ['', DONE]) {
        const outcome = run(stream + ending, usage_asked)
        const meaning = meaningOf(outcome.out)
        expect(outcome).toMatchObject({ failure: null, observed: { finish_reason: finish, finished: true } })
        expect(meaning).toMatchObject({ content, reasoning, finish, native_finish: native ?? null })
        const { reported, estimated_output } = outcome.observed
        if (usage !== undefined) expect(reported === null ? null : [reported.input, reported.output]).toEqual(usage)
        expect(estimated_output).toBeGreaterThan(0)
        expect(typeof meaning.usage?.['prompt_tokens']).toBe(usage_asked ? 'number' : 'undefined')
        expect(chunksOf(outcome.out).length).toBeGreaterThan(0)
      }
    }
  })

  it.each(CALLS)('tool calls %s', (_, stream, calls) => {
    const outcome = run(stream + data(choice({}, 'tool_calls')) + DONE, false)
    const meaning = meaningOf(outcome.out)
    expect(outcome.failure).toBeNull()
    expect(meaning.calls.map(({ name, arguments: given }) => [name, given])).toEqual(calls)
    expect(new Set(meaning.calls.map(({ id }) => id)).size).toBe(calls?.length)
    expect(meaning.role).toBe('assistant')
  })

  it('text under a name that nobody knows passes, and is estimated rather than counted as nothing', () => {
    const stream = data(choice({ role: 'assistant', murmur: 'Hi there, you' }), STOP) + DONE
    const outcome = run(stream, true)
    expect(outcome.out).toContain('Hi there, you')
    expect(outcome.observed).toMatchObject({ reported: null, estimated_output: 4 })
  })

  it('is truncated where it only closes, or says nothing', () => {
    for (const stream of [data(HI, THERE), data(HI, THERE) + DONE, data({ answer: 'Hi ' }), '{"choices":[{"delta":{"content":"Hi"', '']) {
      expect(run(stream, false)).toMatchObject({ failure: 'truncated', observed: { finished: false } })
    }
  })

  it('ends by the last of two choices, each with its own texts and calls', () => {
    const of = (index: number, delta: unknown, finish_reason: string | null = null): object => ({
      choices: [{ index, delta, finish_reason }],
    })
    const fragment = (given: string): object => ({ tool_calls: [{ function: { name: 'f', arguments: given } }] })
    const stream = data(of(0, { role: 'assistant', content: 'Hi' }), of(1, fragment('{"x":1}')), of(0, {}, 'stop'), of(1, {}, 'tool_calls'))
    const outcome = run(stream + DONE, false)
    expect(outcome.failure).toBeNull()
    expect(meaningOf(outcome.out, 0)).toMatchObject({ content: 'Hi', finish: 'stop' })
    expect(meaningOf(outcome.out, 1)).toMatchObject({ calls: [{ arguments: '{"x":1}' }], finish: 'tool_calls' })
    expect(run(stream.slice(0, stream.lastIndexOf('data:')) + DONE, false).failure).toBe('truncated')
  })
})

describe('a whole answer of a shape that is in no sample', () => {
  const whole = (body: unknown): { content: unknown; finish: unknown; message: Record<string, unknown>; reported: unknown } => {
    const { out, observation } = openaiDialect.whole(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), answerContext())
    const [first] = (JSON.parse(out.toString()) as { choices: { message: Record<string, unknown>; finish_reason: unknown }[] }).choices
    return {
      content: first?.message['content'],
      finish: first?.finish_reason,
      message: first?.message ?? {},
      reported: observation.reported,
    }
  }

  it.each([
    ['delta instead of message', { choices: [{ index: 0, delta: { role: 'assistant', content: 'Hi there' }, finish_reason: 'stop' }] }],
    ['choices as an object', { choices: { message: { content: 'Hi there' }, finish_reason: 'stop' } }],
    [
      'content in parts',
      { choices: [{ message: { content: [{ type: 'text', text: 'Hi ' }, { text: 'there' }] }, finish_reason: 'stop' }] },
    ],
    ["Ollama's own", { message: { role: 'assistant', content: 'Hi there' }, done: true, done_reason: 'stop' }],
    ["Qianfan's first", { id: 'as-1', result: 'Hi there', is_truncated: false, need_clear_history: false, usage: USED }],
    [
      "DashScope's own",
      {
        output: { choices: [{ message: { content: [{ text: 'Hi there' }] }, finish_reason: 'stop' }] },
        usage: { input_tokens: 7, output_tokens: 3 },
      },
    ],
    [
      "Tencent Cloud's own",
      {
        Response: {
          Choices: [{ Message: { Role: 'assistant', Content: 'Hi there' }, FinishReason: 'stop' }],
          Usage: { PromptTokens: 7, CompletionTokens: 3, TotalTokens: 10 },
        },
      },
    ],
    [
      "Anthropic's",
      {
        type: 'message',
        role: 'assistant',
        content: [{ type: 'text', text: 'Hi there' }],
        stop_reason: 'end_turn',
        usage: { input_tokens: 7, output_tokens: 3 },
      },
    ],
    ['a stream', data(HI, THERE, STOP) + DONE],
  ])('%s', (_, body) => {
    expect(whole(body)).toMatchObject({ content: 'Hi there', finish: 'stop' })
  })

  it('has reasoning under one name, calls that can be answered, and the words of its end', () => {
    const message = { content: null, reasoning: 'Hm', tool_calls: [{ function: { name: 'f', arguments: { x: 1 } } }] }
    expect(whole({ choices: [{ message, finish_reason: 'sensitive' }] })).toMatchObject({
      finish: 'content_filter',
      message: {
        ...{ reasoning: 'Hm', reasoning_content: 'Hm' },
        tool_calls: [{ id: 'call_0197test_0_0', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }],
      },
    })
  })
})

describe('usage never counts a token twice', () => {
  const tokens = (usage: object): unknown => run(data(HI, THERE, STOP, { choices: [], usage }) + DONE, false).observed.reported

  it.each([
    [
      'cached inside',
      { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110, prompt_tokens_details: { cached_tokens: 60 } },
      [40, 60, 10, 0],
    ],
    ['cached beside, by the total', { prompt_tokens: 40, completion_tokens: 10, total_tokens: 110, cached_tokens: 60 }, [40, 60, 10, 0]],
    [
      'reasoning inside',
      { prompt_tokens: 40, completion_tokens: 10, total_tokens: 50, completion_tokens_details: { reasoning_tokens: 8 } },
      [40, 0, 10, 8],
    ],
    [
      'reasoning beside, by the total',
      { prompt_tokens: 40, completion_tokens: 10, total_tokens: 58, completion_tokens_details: { reasoning_tokens: 8 } },
      [40, 0, 18, 8],
    ],
    ['reasoning at the top (SGLang)', { prompt_tokens: 40, completion_tokens: 10, total_tokens: 50, reasoning_tokens: 8 }, [40, 0, 10, 8]],
    [
      'hits and misses alone (DeepSeek)',
      { prompt_cache_hit_tokens: 60, prompt_cache_miss_tokens: 40, completion_tokens: 10 },
      [40, 60, 10, 0],
    ],
    [
      "Anthropic's, beside",
      { input_tokens: 40, cache_read_input_tokens: 60, cache_creation_input_tokens: 0, output_tokens: 10 },
      [40, 60, 10, 0],
    ],
  ])('%s', (_, usage, [input, cached_input, output, reasoning]) => {
    expect(tokens(usage)).toEqual({ input, cached_input, cache_write: 0, output, reasoning })
  })
})
