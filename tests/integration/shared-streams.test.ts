import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { TokenUsage } from '../../src/money/usage.ts'
import { createOpenaiDialect, openaiDialect } from '../../src/upstream/dialects/openai.ts'
import { UpstreamFailure } from '../../src/upstream/failure.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'
import { sharedData } from '../support/shared.ts'
import { answerContext, everySplit, translate } from '../support/streams.ts'

interface Sample {
  readonly finish: string | null
  readonly failure: FailureKind | null
  readonly usage: TokenUsage
  readonly repairs: readonly string[]
}

const usage = (input: number, cached_input: number, output: number, reasoning: number): TokenUsage => ({
  input,
  cached_input,
  cache_write: 0,
  output,
  reasoning,
})

/** Every sample of OpenAI's shape, with the figures one reads in it. */
const SAMPLES: Readonly<Record<string, Sample>> = {
  'deepseek-reasoning-usage-in-finish-chunk.sse': { finish: 'stop', failure: null, usage: usage(28, 384, 31, 22), repairs: [] },
  'deepseek-toolcall.sse': { finish: 'tool_calls', failure: null, usage: usage(45, 256, 40, 9), repairs: [] },
  'qwen-compatible-usage-in-empty-choices.sse': { finish: 'stop', failure: null, usage: usage(536, 1024, 46, 31), repairs: [] },
  'qwen-compatible-toolcall-empty-id.sse': { finish: 'tool_calls', failure: null, usage: usage(295, 0, 22, 0), repairs: [] },
  'moonshot-usage-inside-choices0.sse': { finish: 'stop', failure: null, usage: usage(262, 2048, 18, 0), repairs: [] },
  'zhipu-sensitive-finish.sse': { finish: 'sensitive', failure: null, usage: usage(36, 0, 9, 0), repairs: [] },
  'doubao-content-filter-finish.sse': { finish: 'content_filter', failure: null, usage: usage(41, 0, 5, 0), repairs: [] },
  'minimax-reasoning-details.sse': { finish: 'stop', failure: null, usage: usage(55, 0, 15, 0), repairs: [] },
  'stepfun-delta-reasoning.sse': { finish: 'stop', failure: null, usage: usage(72, 0, 14, 0), repairs: [] },
  'vllm-continuous-usage-stats.sse': { finish: 'stop', failure: null, usage: usage(8, 32, 10, 0), repairs: [] },
  'baichuan-empty-finish-reason-no-done.sse': { finish: 'stop', failure: null, usage: usage(6, 0, 5, 0), repairs: ['finish_reason_empty'] },
  // No finish reason anywhere: by the rule that a choice without one is not finished, this ends as truncated.
  'spark-http-toolcalls-object.sse': { finish: null, failure: 'truncated', usage: usage(30, 0, 12, 0), repairs: ['tool_calls_object'] },
}

/** Samples of other protocols, and what the OpenAI dialect says of them rather than passing them off as an answer. */
const OTHERS: Readonly<Record<string, { readonly why: string; readonly failure: FailureKind }>> = {
  'anthropic-compatible-thinking.sse': { why: 'Anthropic Messages events', failure: 'truncated' },
  'hunyuan-native-pascalcase.sse': { why: "Tencent's own API: PascalCase members", failure: 'truncated' },
  'qianfan-v1-result-is_end.sse': { why: "Baidu's first API: result and is_end", failure: 'truncated' },
  'qwen-native-cumulative-text.sse': { why: "DashScope's own API: cumulative text under output", failure: 'truncated' },
  'qwen-native-error-event.sse': { why: "DashScope's own API, ending in an error event", failure: 'content' },
  'spark-ws-error-frame.jsonl': { why: 'frames of a WebSocket, not an event stream', failure: 'truncated' },
  'spark-ws-frames.jsonl': { why: 'frames of a WebSocket, not an event stream', failure: 'truncated' },
}

const MODEL = /"model":"[^"]*"/
const folder = sharedData('streams')

describe.skipIf(folder === null)('the shared stream samples (skipped where the shared data is absent)', () => {
  const read = (name: string): Buffer => readFileSync(resolve(folder ?? '', name))

  it('are all accounted for', () => {
    const listed = [...Object.keys(SAMPLES), ...Object.keys(OTHERS), 'qianfan-v1-error-http200.json', 'README.md']
    expect(readdirSync(folder ?? '').toSorted()).toEqual(listed.toSorted())
  })

  for (const [name, sample] of Object.entries(SAMPLES)) {
    for (const usage_asked of [false, true]) {
      it(`${name}, usage ${usage_asked ? '' : 'not '}asked for: the expected bytes, usage and finish for every split`, () => {
        const bytes = read(name)
        const context = answerContext({ usage_asked })
        const whole = translate(openaiDialect, context, [bytes])
        expect(whole.out).toBe(expectedOf(bytes.toString(), usage_asked))
        expect(whole.failure).toBe(sample.failure)
        expect(whole.observed.finish_reason).toBe(sample.finish)
        expect(whole.observed.reported).toEqual(sample.usage)
        const moonshot = usage_asked && name.startsWith('moonshot')
        expect(whole.observed.repairs).toEqual(moonshot ? ['usage_in_choice'] : sample.repairs)
        for (const chunks of everySplit(bytes)) expect(translate(openaiDialect, context, chunks)).toEqual(whole)
      })
    }
  }

  for (const [name, { why, failure }] of Object.entries(OTHERS)) {
    it(`${name} is not OpenAI's (${why}) and never looks like a clean end, for every split`, () => {
      const dialect = createOpenaiDialect(() => new UpstreamFailure('content'))
      const bytes = read(name)
      const whole = translate(dialect, answerContext(), [bytes])
      expect(whole.failure).toBe(failure)
      for (const chunks of everySplit(bytes)) expect(translate(dialect, answerContext(), chunks)).toEqual(whole)
    })
  }

  it('an error with HTTP 200 is a failure, not an answer', () => {
    const seen: unknown[] = []
    const dialect = createOpenaiDialect((error) => {
      seen.push(error)
      return new UpstreamFailure('rate')
    })
    const body = read('qianfan-v1-error-http200.json')
    expect(() => dialect.whole(body, answerContext())).toThrow(expect.objectContaining({ kind: 'rate' }))
    expect(seen).toEqual([JSON.parse(body.toString())])
  })
})

/** What the client is to get, worked out on text: the samples are compact JSON, one line of data per event. */
function expectedOf(stream: string, usage_asked: boolean): string {
  let out = ''
  let last: { id?: string; created?: number } = {}
  let top_usage = false
  let choice_usage: unknown = null
  for (const block of stream.split('\n\n')) {
    const json = /^data: ?(.*)$/m.exec(block)?.[1]
    if (json === '[DONE]') break
    if (block.trim() === '') continue
    if (json === undefined) {
      out += `${block}\n\n`
      continue
    }
    const chunk: { id?: string; created?: number; usage?: unknown; choices: { usage?: unknown; delta: { tool_calls?: unknown } }[] } =
      JSON.parse(json)
    last = chunk
    top_usage ||= typeof chunk.usage === 'object' && chunk.usage !== null
    let text = block.replace(MODEL, '"model":"weir-chat"').replaceAll('"finish_reason":""', '"finish_reason":null')
    for (const choice of chunk.choices) {
      choice_usage = choice.usage ?? choice_usage
      const calls = choice.delta.tool_calls
      if (calls && !Array.isArray(calls)) text = text.replace(JSON.stringify(calls), JSON.stringify([{ index: 0, ...calls }]))
      if (!usage_asked && choice.usage) text = text.replace(`,"usage":${JSON.stringify(choice.usage)}`, '')
    }
    if (!usage_asked && chunk.usage !== undefined) {
      if (chunk.choices.length === 0) continue
      text = text.replace(`,"usage":${JSON.stringify(chunk.usage)}`, '')
    }
    out += `${text}\n\n`
  }
  if (!usage_asked || top_usage || choice_usage === null) return out
  return `${out}data: ${JSON.stringify({ id: last.id, object: 'chat.completion.chunk', created: last.created, model: 'weir-chat', choices: [], usage: choice_usage })}\n\n`
}
