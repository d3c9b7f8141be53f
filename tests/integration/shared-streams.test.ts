import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { TokenUsage } from '../../src/money/usage.ts'
import { classifyErrorObject } from '../../src/upstream/classify.ts'
import type { Dialect } from '../../src/upstream/dialects/dialect.ts'
import { dialectFor } from '../../src/upstream/dialects/registry.ts'
import type { DialectName } from '../../src/upstream/dialects/names.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { chunksOf, meaningOf } from '../support/meaning.ts'
import { seededRandom } from '../support/random.ts'
import { propertySeed } from '../support/seed.ts'
import { sharedData } from '../support/shared.ts'
import { answerContext, everySplit, translate } from '../support/streams.ts'

const seed = propertySeed()

interface Sample {
  readonly provider: string
  readonly dialect: DialectName
  readonly content: string
  readonly reasoning?: string
  readonly calls?: readonly { readonly name: string; readonly arguments: string }[]
  readonly finish: string
  readonly native_finish?: string
  readonly usage: TokenUsage
  readonly repairs: readonly string[]
}

const usage = (input: number, cached_input: number, output: number, reasoning: number): TokenUsage => ({
  ...{ input, cached_input, cache_write: 0, output, reasoning },
})

/** Every sample that is an answer, with what one reads in it. */
const SAMPLES: Readonly<Record<string, Sample>> = {
  'deepseek-reasoning-usage-in-finish-chunk.sse': {
    ...{ provider: 'deepseek', dialect: 'openai', content: '可以，在订单页修改。', reasoning: '用户想知道发票抬头能不能改。' },
    ...{ finish: 'stop', usage: usage(28, 384, 31, 22), repairs: [] },
  },
  'deepseek-toolcall.sse': {
    ...{ provider: 'deepseek', dialect: 'openai', content: '', reasoning: '需要查物流。', finish: 'tool_calls', repairs: [] },
    ...{ calls: [{ name: 'query_parcel', arguments: '{"no": "SF1024"}' }], usage: usage(45, 256, 40, 9) },
  },
  'qwen-compatible-usage-in-empty-choices.sse': {
    ...{ provider: 'qwen', dialect: 'openai', content: '差旅需在30天内报销。', reasoning: '先看报销制度第三条。' },
    ...{ finish: 'stop', usage: usage(536, 1024, 46, 31), repairs: [] },
  },
  'qwen-compatible-toolcall-empty-id.sse': {
    ...{ provider: 'qwen', dialect: 'openai', content: '', finish: 'tool_calls', usage: usage(295, 0, 22, 0), repairs: [] },
    calls: [{ name: 'get_weather', arguments: '{"city": "苏州"}' }],
  },
  'moonshot-usage-inside-choices0.sse': {
    ...{ provider: 'moonshot', dialect: 'openai', content: '合同第七条约定违约金。', finish: 'stop', usage: usage(262, 2048, 18, 0) },
    repairs: ['usage_in_choice'],
  },
  'zhipu-sensitive-finish.sse': {
    ...{ provider: 'zhipu', dialect: 'openai', content: '这件事的经过是', finish: 'content_filter', native_finish: 'sensitive' },
    ...{ usage: usage(36, 0, 9, 0), repairs: ['role', 'finish_reason'] },
  },
  'doubao-content-filter-finish.sse': {
    ...{ provider: 'doubao', dialect: 'openai', content: '下面', finish: 'content_filter', usage: usage(41, 0, 5, 0), repairs: ['role'] },
  },
  'minimax-reasoning-details.sse': {
    ...{ provider: 'minimax', dialect: 'openai', content: '三天内到账。', reasoning: '先看退款政策', finish: 'stop' },
    ...{ usage: usage(55, 0, 15, 0), repairs: ['reasoning_content'] },
  },
  'stepfun-delta-reasoning.sse': {
    ...{ provider: 'stepfun', dialect: 'openai', content: '选B更省。', reasoning: '比较两款套餐', finish: 'stop' },
    ...{ usage: usage(72, 0, 14, 0), repairs: ['reasoning_content'] },
  },
  'vllm-continuous-usage-stats.sse': {
    ...{ provider: 'vllm', dialect: 'openai', content: '黄河长约5464公里。', reasoning: '简单问题', finish: 'stop' },
    ...{ usage: usage(8, 32, 10, 0), repairs: ['reasoning_content'] },
  },
  'baichuan-empty-finish-reason-no-done.sse': {
    ...{ provider: 'baichuan', dialect: 'openai', content: '泰山在山东。', finish: 'stop', usage: usage(6, 0, 5, 0) },
    repairs: ['finish_reason_empty', 'role'],
  },
  'spark-http-toolcalls-object.sse': {
    ...{ provider: 'spark', dialect: 'openai', content: '', calls: [{ name: 'get_weather', arguments: '{"city":"合肥"}' }] },
    ...{
      finish: 'tool_calls',
      usage: usage(30, 0, 12, 0),
      repairs: ['tool_calls_object', 'tool_call_index', 'tool_call_id', 'finish_by_done'],
    },
  },
  'qwen-native-cumulative-text.sse': {
    ...{
      provider: 'qwen',
      dialect: 'qwen_native',
      content: '杭州今天多云。',
      finish: 'stop',
      usage: usage(18, 0, 5, 0),
      repairs: ['role'],
    },
  },
  'hunyuan-native-pascalcase.sse': {
    ...{ provider: 'hunyuan', dialect: 'hunyuan_native', content: '深圳属于广东省。', finish: 'stop', usage: usage(8, 16, 5, 0) },
    repairs: ['finish_reason_empty', 'role'],
  },
  'qianfan-v1-result-is_end.sse': {
    ...{ provider: 'qianfan', dialect: 'qianfan_v1', content: '年假按工龄计算，满一年五天。', finish: 'stop', usage: usage(21, 0, 12, 0) },
    repairs: [],
  },
  'anthropic-compatible-thinking.sse': {
    ...{ provider: 'zhipu', dialect: 'anthropic', content: '目录里有三个文件。', reasoning: '看一下目录', finish: 'stop' },
    ...{ native_finish: 'end_turn', usage: usage(28, 384, 19, 0), repairs: ['finish_reason'] },
  },
}

/** Samples of failures and of another transport. */
const OTHERS = [
  'qwen-native-error-event.sse',
  'qianfan-v1-error-http200.json',
  'spark-ws-error-frame.jsonl',
  'spark-ws-frames.jsonl',
  'README.md',
]

const folder = sharedData('streams')

function dialectOf(provider: string, name: DialectName): Dialect {
  const facts = PROVIDERS.get(provider)
  if (facts === undefined) throw new Error(`no provider ${provider}`)
  return dialectFor(name, facts)
}

describe.skipIf(folder === null)('the shared stream samples (skipped where the shared data is absent)', () => {
  const read = (name: string): Buffer => readFileSync(resolve(folder ?? '', name))

  it('are all accounted for', () => {
    expect(readdirSync(folder ?? '').toSorted()).toEqual([...Object.keys(SAMPLES), ...OTHERS].toSorted())
  })

  for (const [name, sample] of Object.entries(SAMPLES)) {
    for (const usage_asked of [false, true]) {
      it(`${name}, usage ${usage_asked ? '' : 'not '}asked for: text, usage and finish for every split`, () => {
        const bytes = read(name)
        const context = answerContext({ usage_asked })
        const dialect = dialectOf(sample.provider, sample.dialect)
        const whole = translate(dialect, context, [bytes])
        const { calls, ...meaning } = meaningOf(whole.out)
        expect(meaning).toMatchObject({
          content: sample.content,
          reasoning: sample.reasoning ?? '',
          role: 'assistant',
          finish: sample.finish,
        })
        expect(meaning.native_finish).toBe(sample.native_finish ?? null)
        expect(calls.map(({ name: called, arguments: given }) => ({ name: called, arguments: given }))).toEqual(sample.calls ?? [])
        expect(whole).toMatchObject({ failure: null, observed: { finish_reason: sample.finish, finished: true, reported: sample.usage } })
        const own_usage = sample.repairs.filter((name_of_repair) => name_of_repair !== 'usage_in_choice' || usage_asked)
        expect(whole.observed.repairs.toSorted()).toEqual(own_usage.toSorted())
        const { input, cached_input, output } = sample.usage
        expect(meaning.usage).toEqual(
          usage_asked ? expect.objectContaining({ prompt_tokens: input + cached_input, completion_tokens: output }) : null,
        )
        for (const chunks of everySplit(bytes)) expect(translate(dialect, context, chunks)).toEqual(whole)
        for (let round = 0; round < 50; round++) expect(translate(dialect, context, randomSplit(bytes, round))).toEqual(whole)
      })
    }

    it(`${name} is understood whatever the endpoint was said to speak`, () => {
      const whole = translate(dialectOf('vllm', 'openai'), answerContext(), [read(name)])
      expect(whole).toMatchObject({ failure: null, observed: { finish_reason: sample.finish, reported: sample.usage } })
      expect(meaningOf(whole.out)).toMatchObject({ content: sample.content, reasoning: sample.reasoning ?? '' })
    })

    it(`${name} becomes one JSON answer where no stream was asked for`, () => {
      const { out, observation } = dialectOf(sample.provider, sample.dialect).whole(read(name), answerContext())
      const answer = JSON.parse(out.toString()) as { choices: { message: { content: string | null }; finish_reason: string }[] }
      expect(answer.choices[0]?.message.content ?? '').toBe(sample.content)
      expect(answer.choices[0]?.finish_reason).toBe(sample.finish)
      expect(observation).toMatchObject({ reported: sample.usage, finished: true })
    })
  }

  it.each(Object.entries(SAMPLES).filter(([, { dialect }]) => dialect === 'openai'))(
    '%s passes byte by byte but for what is repaired',
    (name, sample) => {
      const bytes = read(name)
      for (const usage_asked of [false, true]) {
        const { out } = translate(dialectOf(sample.provider, 'openai'), answerContext({ usage_asked }), [bytes])
        const expected = expectedOf(bytes.toString(), usage_asked)
        expect(out.startsWith(expected)).toBe(true)
        // What follows is made by Weir: a finish reason or usage that was nowhere, or not where clients look for it.
        expect(chunksOf(out.slice(expected.length)).length).toBeLessThan(3)
      }
    },
  )

  it("DashScope's error event is a refusal of the content, after the text before it", () => {
    const bytes = read('qwen-native-error-event.sse')
    for (const dialect of [dialectOf('qwen', 'qwen_native'), dialectOf('qwen', 'openai')]) {
      const whole = translate(dialect, answerContext(), [bytes])
      expect(whole).toMatchObject({ failure: 'content', data_events: 1 })
      expect(meaningOf(whole.out).content).toBe('好的')
      for (const chunks of everySplit(bytes)) expect(translate(dialect, answerContext(), chunks)).toEqual(whole)
    }
  })

  it.each<[string, FailureKind]>([
    ['qianfan', 'rate'],
    ['vllm', 'server'],
  ])("Qianfan's error with HTTP 200 is a failure, streamed or not, and of kind %s by the facts", (provider, kind) => {
    const body = read('qianfan-v1-error-http200.json')
    const dialect = dialectOf(provider, 'openai')
    expect(() => dialect.whole(body, answerContext())).toThrow(expect.objectContaining({ kind }))
    for (const chunks of everySplit(body)) expect(translate(dialect, answerContext(), chunks)).toMatchObject({ failure: kind, out: '' })
  })

  it("Spark's WebSocket frames are not spoken, and never look like a clean end with nothing in it", () => {
    const frames = translate(dialectOf('spark', 'openai'), answerContext(), [read('spark-ws-frames.jsonl')])
    expect(frames.failure).toBe('truncated')
    const error = translate(dialectOf('spark', 'openai'), answerContext(), [read('spark-ws-error-frame.jsonl')])
    expect(error.failure).toBe('content')
    expect(classifyErrorObject({ header: { code: 10013, message: 'x' } }, 200, PROVIDERS.get('spark') ?? never()).kind).toBe('content')
  })
})

function never(): never {
  throw new Error('there is no such provider')
}

/** Pieces of 1 to 40 bytes. */
function randomSplit(bytes: Buffer, round: number): Buffer[] {
  const random = seededRandom(seed + round)
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const to = at + random.whole(1, 40)
    pieces.push(bytes.subarray(at, to))
    at = to
  }
  return pieces
}

interface Choice {
  usage?: unknown
  finish_reason?: string | null
  native_finish_reason?: string
  delta: { role?: string; reasoning?: string; reasoning_details?: { text: string }[]; reasoning_content?: string; tool_calls?: unknown }
}

/** What the client is to get of an OpenAI-shaped sample: each is compact JSON, so that its text is that of `JSON.stringify`. */
function expectedOf(stream: string, usage_asked: boolean): string {
  let out = ''
  let said_role = false
  for (const block of stream.split('\n\n')) {
    const [, lead, json] = /^(data: ?)(.*)$/m.exec(block) ?? []
    if (json === '[DONE]') break
    if (block.trim() === '') continue
    if (json === undefined) {
      out += `${block}\n\n`
      continue
    }
    const chunk = JSON.parse(json) as { model?: string; usage?: unknown; choices: Choice[] }
    if (chunk.model !== undefined) chunk.model = 'weir-chat'
    if (!usage_asked && chunk.usage !== undefined) {
      if (chunk.choices.length === 0) continue
      delete chunk.usage
    }
    for (const choice of chunk.choices) {
      repair(choice, said_role, usage_asked)
      said_role = true
    }
    out += `${lead}${JSON.stringify(chunk)}\n\n`
  }
  return out
}

function repair(choice: Choice, said_role: boolean, usage_asked: boolean): void {
  const { delta } = choice
  if (!usage_asked) delete choice.usage
  if (said_role) delete delta.role
  if (choice.finish_reason === '') choice.finish_reason = null
  if (choice.finish_reason === 'sensitive') Object.assign(choice, { finish_reason: 'content_filter', native_finish_reason: 'sensitive' })
  const thought = delta.reasoning ?? delta.reasoning_details?.map(({ text }) => text).join('')
  if (thought !== undefined) delta.reasoning_content = thought
  if (delta.tool_calls && !Array.isArray(delta.tool_calls)) {
    delta.tool_calls = [{ ...delta.tool_calls, index: 0, id: 'call_0197test_0_0' }]
  }
}
