import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createOpenaiDialect, openaiDialect } from '../../src/upstream/dialects/openai.ts'
import { readUsage } from '../../src/upstream/dialects/openai-usage.ts'
import { UpstreamFailure } from '../../src/upstream/failure.ts'
import { answerContext, everySplit, translate } from '../support/streams.ts'
import type { StreamOutcome } from '../support/streams.ts'

const FIXTURES = resolve(import.meta.dirname, '..', 'fixtures', 'streams')
const fixture = (name: string): Buffer => readFileSync(resolve(FIXTURES, `${name}.sse`))

const text = (content: string, more = ''): string =>
  `data: {"id":"c1","model":"up","choices":[{"index":0,"delta":{"content":"${content}"},"finish_reason":null}]${more}}\n\n`
const FINISH = 'data: {"id":"c1","model":"up","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
const DONE = 'data: [DONE]\n\n'
const asSent = (stream: string): string => stream.replaceAll('"model":"up"', '"model":"weir-chat"')

/** The outcome, which must be the same for every split. */
function run(stream: string | Buffer, changes: Parameters<typeof answerContext>[0] = {}, dialect = openaiDialect): StreamOutcome {
  const bytes = Buffer.from(stream)
  const outcome = translate(dialect, answerContext(changes), [bytes])
  for (const chunks of everySplit(bytes)) expect(translate(dialect, answerContext(changes), chunks)).toEqual(outcome)
  return outcome
}

describe('repairs, each with its fixture', () => {
  it.each([
    ['choice-index', false, ['choice_index']],
    ['tool-call-index', false, ['role', 'tool_call_index', 'tool_call_type']],
    ['finish-reason-empty', false, ['finish_reason_empty']],
    ['tool-calls-object', false, ['role', 'tool_call_function', 'tool_call_id', 'tool_call_index', 'tool_calls_object']],
    ['bom', false, ['bom']],
    ['empty-data', false, ['empty_data']],
    ['line-end', false, ['line_end']],
    ['usage-in-choice', true, ['usage_in_choice']],
    ['usage-estimated', true, ['usage_estimated']],
    ['role', false, ['role']],
    ['finish-reason', false, ['finish_reason']],
    ['reasoning-content', false, ['reasoning_content']],
    ['choices-missing', false, ['choices_missing']],
    ['choices-object', false, ['choices_object']],
    ['message-or-delta', false, ['content_text', 'message_or_delta', 'role']],
    ['delta-missing', false, ['delta_missing']],
    ['content-text', false, ['content_text']],
    ['repeated-text', false, ['repeated_text']],
    ['tool-call-id', false, ['tool_call_id']],
    ['tool-call-type', false, ['tool_call_type']],
    ['tool-call-name', false, ['tool_call_name']],
    ['tool-call-arguments', false, ['tool_call_arguments']],
    ['tool-call-function', false, ['tool_call_function']],
    ['usage-form', true, ['usage_form']],
    ['chunk-array', false, ['chunk_array']],
    ['joined-events', false, ['joined_events']],
    ['json-body', true, ['json_body', 'message_or_delta']],
    ['protocol', true, ['finish_reason', 'protocol']],
    ['finish-by-is-end', false, ['finish_by_is_end']],
    ['finish-by-done', true, ['finish_by_done']],
    ['finish-by-whole', false, ['finish_by_whole', 'json_body', 'message_or_delta']],
    ['crlf-kept', false, []],
    ['many-lines', false, []],
    ['duplicate-keys', false, []],
  ])('%s', (name, usage_asked, repairs) => {
    const outcome = run(fixture(`${name}.before`), { usage_asked })
    expect(outcome.out).toBe(fixture(`${name}.after`).toString())
    expect(outcome.failure).toBeNull()
    expect(outcome.observed.repairs.toSorted()).toEqual(repairs)
  })
})

describe('a stream', () => {
  it('passes byte by byte but for the model, and leaves the terminator to the relay', () => {
    const stream = `: hi\n\n${text('你好', ',"x":{ "model":"up" }')}${FINISH}`
    const { out, data_events, done, observed } = run(stream + DONE)
    expect(out).toBe(asSent(stream).replace('{ "model":"weir-chat" }', '{ "model":"up" }'))
    expect([data_events, done, observed.finished, observed.finish_reason]).toEqual([2, true, true, 'stop'])
  })

  it('leaves calls of custom tools alone', () => {
    const delta = (call: string): string => `data: {"choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[${call}]}}]}\n\n`
    const first = delta('{"index":0,"id":"t1","type":"custom","custom":{"name":"f","input":""}}')
    const then = delta('{"index":0,"custom":{"input":"x"}}').replace('"role":"assistant",', '')
    expect(run(first + then + FINISH + DONE)).toMatchObject({ out: first + then + asSent(FINISH), observed: { repairs: [] } })
  })

  it('keeps everything when usage was asked for', () => {
    const stream =
      text('a', ',"usage":null') + FINISH + 'data: {"model":"up","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    expect(run(stream + DONE, { usage_asked: true }).out).toBe(asSent(stream))
    expect(run(stream + DONE).out).toBe(asSent(text('a') + FINISH))
    expect(run(stream + DONE).observed.reported).toEqual({ input: 3, cached_input: 0, cache_write: 0, output: 1, reasoning: 0 })
  })

  it('keeps a chunk without choices that carries no usage', () => {
    const stream = `data: {"choices":[],"prompt_filter_results":[]}\n\n${FINISH}`
    expect(run(stream + DONE).out).toBe(asSent(stream))
  })

  it('ends well without [DONE] once every choice has a finish reason', () => {
    expect(run(text('a') + FINISH)).toMatchObject({ failure: null, done: false, observed: { finished: true } })
    expect(run(text('a') + FINISH + DONE.trimEnd())).toMatchObject({ failure: null, done: true })
    expect(run(`${text('a') + FINISH}data: {"mod`)).toMatchObject({ failure: null, out: asSent(text('a') + FINISH) })
  })

  it('is truncated if it ends, or says that it is done, before that', () => {
    expect(run('')).toMatchObject({ failure: 'truncated' })
    expect(run(text('a'))).toMatchObject({ failure: 'truncated', done: false, out: asSent(text('a')) })
    expect(run(text('a') + DONE)).toMatchObject({ failure: 'truncated', done: true })
    expect(run(text('a') + text('b').slice(0, 30))).toMatchObject({ failure: 'truncated', out: asSent(text('a')) })
    const two = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":null}]}\n\n'
    expect(run(two + DONE)).toMatchObject({ failure: 'truncated', observed: { finished: false } })
  })

  it.each([
    ['error object', 'data: {"error":{"message":"boom","code":500}}\n\n'],
    ['error string', 'data: {"error":"boom","choices":[]}\n\n'],
    ['named event', 'event: error\ndata: {"code":"DataInspectionFailed","message":"no"}\n\n'],
    ['named event without JSON', 'event: error\ndata: boom\n\n'],
    ['object error', 'data: {"object":"error","message":"boom","code":40303}\n\n'],
    ['error_code', 'data: {"error_code":336501,"error_msg":"rpm"}\n\n'],
    ['code and message', 'data: {"code":10013,"message":"audit","sid":"x"}\n\n'],
    ['without blank line', 'data: {"error":{"message":"boom"}}'],
  ])('fails at an error (%s) by the classifier, also if [DONE] follows, and does not send it', (_, error) => {
    const dialect = createOpenaiDialect((value) => new UpstreamFailure(JSON.stringify(value).length > 2 ? 'overload' : 'server'))
    const stream = text('a') + error
    expect(run(stream, {}, dialect)).toMatchObject({ failure: 'overload', done: false, out: asSent(text('a')), data_events: 1 })
    const before_done = error.endsWith('\n') ? stream : `${stream}\n\n`
    expect(run(before_done + DONE, {}, dialect)).toMatchObject({ failure: 'overload', done: false })
    expect(run(stream)).toMatchObject({ failure: 'server' })
  })

  it('does not take an answer for an error', () => {
    const stream = 'data: {"code":0,"message":"Success","error":null,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    expect(run(stream + DONE)).toMatchObject({ failure: null, out: stream })
  })

  it.each([
    'data: {"choices":[}\n\n',
    'data: hello\n\n',
    'data: null\n\n',
    `data: ${'['.repeat(600)}${']'.repeat(600)}\n\n`,
    `data: {"a":${'['.repeat(600)}${']'.repeat(600)}}\n\n`,
  ])('refuses %j as malformed', (bad) => {
    expect(run(text('a') + bad)).toMatchObject({ failure: 'malformed', out: asSent(text('a')) })
  })

  it('refuses an event over the limit, after what came before it', () => {
    expect(run(text('a') + text('b'.repeat(100)), { max_event_bytes: 120 })).toMatchObject({ failure: 'malformed', out: asSent(text('a')) })
  })

  it('bounds the number of choices', () => {
    const choice = (index: number): string => `{"index":${index},"delta":{},"finish_reason":"stop"}`
    const chunk = `data: {"choices":[${Array.from({ length: 129 }, (_, index) => choice(index)).join(',')}]}\n\n`
    expect(translate(openaiDialect, answerContext(), [Buffer.from(chunk)])).toMatchObject({ failure: 'malformed' })
  })

  it('gives nothing more after its end', () => {
    const translator = openaiDialect.streamed(answerContext())
    translator.push(Buffer.from(FINISH + DONE + text('late')))
    expect(translator.push(Buffer.from(text('later')))).toMatchObject({ data_events: 0, failure: null, done: false })
    expect(translator.end().out).toHaveLength(0)
  })

  it('estimates what was delivered, reasoning apart, and does not join texts that are not one', () => {
    const delta = (fields: string): string => `data: {"choices":[{"index":0,"delta":{${fields}}}]}\n\n`
    const stream =
      delta('"reasoning_content":"想想","reasoning":"想想"') +
      delta('"reasoning_details":[{"text":"再想"}]') +
      delta('"content":"abc"') +
      delta('"content":"def"') +
      delta('"tool_calls":[{"index":0,"function":{"name":"look","arguments":"{}"}}]') +
      delta('"tool_calls":[{"index":0,"function":{"arguments":"[]"}}]') +
      delta('"refusal":"no"')
    const { observed } = run(stream)
    expect(observed).toMatchObject({ estimated_reasoning: 4, estimated_output: 4 + 1 + 1 + 4 + 1, reported: null })
  })

  it('takes the last usage, and zeros in the middle of a text for none', () => {
    const zero = ',"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    expect(run(text('a') + text('b', zero)).observed.reported).toBeNull()
    expect(run(text('', zero)).observed.reported).toMatchObject({ input: 0, output: 0 })
    expect(
      run(text('a', ',"usage":{"prompt_tokens":5,"completion_tokens":1}') + text('b', ',"usage":{"prompt_tokens":5,"completion_tokens":2}'))
        .observed.reported,
    ).toMatchObject({ input: 5, output: 2 })
  })
})

describe('usage', () => {
  const usage = (input: number, cached_input: number, cache_write: number, output: number, reasoning: number): unknown => ({
    input,
    cached_input,
    cache_write,
    output,
    reasoning,
  })
  it.each([
    [
      'OpenAI',
      {
        prompt_tokens: 100,
        completion_tokens: 9,
        prompt_tokens_details: { cached_tokens: 64 },
        completion_tokens_details: { reasoning_tokens: 4 },
      },
      usage(36, 64, 0, 9, 4),
    ],
    [
      'DeepSeek',
      { prompt_tokens: 100, completion_tokens: 9, prompt_cache_hit_tokens: 64, prompt_cache_miss_tokens: 36 },
      usage(36, 64, 0, 9, 0),
    ],
    ['Moonshot', { prompt_tokens: 100, completion_tokens: 9, cached_tokens: 64 }, usage(36, 64, 0, 9, 0)],
    [
      'Qwen',
      { prompt_tokens: 100, completion_tokens: 9, prompt_tokens_details: { cached_tokens: 30, cache_creation_input_tokens: 20 } },
      usage(50, 30, 20, 9, 0),
    ],
    [
      'Anthropic',
      { input_tokens: 28, cache_read_input_tokens: 384, cache_creation_input_tokens: 7, output_tokens: 5 },
      usage(28, 384, 7, 5, 0),
    ],
    ['Responses', { input_tokens: 28, input_tokens_details: { cached_tokens: 8 }, output_tokens: 5 }, usage(20, 8, 0, 5, 0)],
    ['embeddings', { prompt_tokens: 8, total_tokens: 8 }, usage(8, 0, 0, 0, 0)],
    ['zeros', { prompt_tokens: 0, completion_tokens: 0 }, usage(0, 0, 0, 0, 0)],
    [
      'more cached than prompt',
      {
        prompt_tokens: 10,
        completion_tokens: 2,
        cached_tokens: 99,
        cache_creation_input_tokens: 5,
        completion_tokens_details: { reasoning_tokens: 9 },
      },
      usage(0, 10, 0, 2, 2),
    ],
    ['null details', { prompt_tokens: 10, completion_tokens: 2, prompt_tokens_details: null }, usage(10, 0, 0, 2, 0)],
    ['null', null, null],
    ['nothing', {}, null],
    ['negative', { prompt_tokens: -1, completion_tokens: 2 }, null],
    ['fraction', { prompt_tokens: 1, completion_tokens: 2.5 }, null],
    ['absurd', { prompt_tokens: 1, completion_tokens: 2e9 }, null],
    ['numbers in quotes', { prompt_tokens: '1', completion_tokens: 2 }, usage(1, 0, 0, 2, 0)],
    ['text', { prompt_tokens: 'one', completion_tokens: 2 }, null],
    ['bad detail', { prompt_tokens: 1, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 'x' } }, null],
  ])('%s', (_, given, expected) => {
    expect(readUsage(given)).toEqual(expected)
  })
})

describe('a whole answer', () => {
  const whole = (body: string): { out: string; observation: unknown } => {
    const answer = openaiDialect.whole(Buffer.from(body), answerContext())
    return { out: answer.out.toString(), observation: answer.observation }
  }

  it('changes the model alone', () => {
    const body =
      '{ "model" : "up", "seed":12345678901234567890, "choices":[{"index":0,"message":{"content":"你好","model":"up"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2} }'
    const { out, observation } = whole(body)
    expect(out).toBe(body.replace('"up"', '"weir-chat"'))
    expect(observation).toMatchObject({ reported: { input: 3, output: 2 }, finished: true, finish_reason: 'stop', estimated_output: 2 })
  })

  it('estimates a message whose usage is missing', () => {
    const body =
      '{"choices":[{"message":{"content":"你好","reasoning_content":"嗯","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}]}'
    expect(whole(body).observation).toMatchObject({ reported: null, estimated_output: 6, estimated_reasoning: 1 })
  })

  it('reads embeddings', () => {
    const body = '{"object":"list","data":[{"embedding":[0.1]}],"model":"up","usage":{"prompt_tokens":8,"total_tokens":8}}'
    expect(whole(body)).toMatchObject({
      out: body.replace('"up"', '"weir-chat"'),
      observation: { reported: { input: 8, output: 0 }, finished: true },
    })
  })

  it.each(['', '[]', 'null', '{', '{"model":"up"}', `{"choices":[${'['.repeat(600)}${']'.repeat(600)}]}`])(
    'refuses %j as malformed',
    (body) => {
      expect(() => whole(body)).toThrow(expect.objectContaining({ kind: 'malformed' }))
    },
  )

  it.each(['{"error":{"message":"no"}}', '{"error_code":336501,"error_msg":"rpm limit"}', '{"code":"InvalidParameter","message":"no"}'])(
    'throws the classified failure of %s',
    (body) => {
      const dialect = createOpenaiDialect(() => new UpstreamFailure('rate'))
      expect(() => dialect.whole(Buffer.from(body), answerContext())).toThrow(expect.objectContaining({ kind: 'rate' }))
    },
  )
})
