import { describe, expect, it } from 'vitest'
import { readFacts } from '../../src/gateway/request.ts'
import type { DialectName } from '../../src/upstream/dialects/names.ts'
import { dialectFor } from '../../src/upstream/dialects/registry.ts'
import { UpstreamFailure } from '../../src/upstream/failure.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { nativeChat, nativeHeaders } from '../../src/upstream/requests/native.ts'
import { meaningOf } from '../support/meaning.ts'
import { answerContext, everySplit, translate, type StreamOutcome } from '../support/streams.ts'

type Application = 'dify' | 'bailian_app' | 'ragflow'
type Fields = Readonly<Record<string, unknown>>
const PROVIDER_OF = { dify: 'dify', bailian_app: 'bailian', ragflow: 'ragflow' } as const

function factsOf(name: Application) {
  const facts = PROVIDERS.get(PROVIDER_OF[name])
  if (facts === undefined) throw new Error(`no provider for ${name}`)
  return facts
}

function sent(name: Application, request: Fields): { body: Fields; adjusted: readonly string[] } {
  const bytes = Buffer.from(JSON.stringify({ model: 'asked', ...request }))
  const { facts } = readFacts('chat_completions', bytes, 128)
  const target = { upstream_model: 'app-1', max_output_tokens: null, capped_tokens: null }
  const { body, adjusted } = nativeChat(name, bytes, facts, factsOf(name).rules, target)
  return { body: JSON.parse(body.toString()) as Fields, adjusted }
}

const TALK = [
  { role: 'system', content: '简短回答' },
  { role: 'user', content: '你好' },
  { role: 'assistant', content: '您好，请讲。' },
  { role: 'user', content: [{ type: 'text', text: '几点关门？' }] },
]
const PICTURE = [
  {
    role: 'user',
    content: [
      { type: 'text', text: '看图' },
      { type: 'image_url', image_url: { url: 'https://example.cn/a.png' } },
    ],
  },
]
const UPLOADED = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,QUJD' } }] }]

describe('requests', () => {
  it('Dify gets one question with the conversation before it, and always streams', () => {
    const { body, adjusted } = sent('dify', { messages: TALK, user: 'u-1', temperature: 1, max_tokens: 9, tools: [] })
    expect(body).toEqual({
      inputs: {},
      query: '简短回答\n\nUser: 你好\n\nAssistant: 您好，请讲。\n\nUser: 几点关门？',
      response_mode: 'streaming',
      user: 'u-1',
      conversation_id: '',
      auto_generate_name: false,
    })
    expect(adjusted).toEqual(['tools=dropped', 'temperature=dropped', 'max_tokens=dropped'])
    expect(sent('dify', { messages: TALK.slice(1, 2), inputs: { city: '杭州' }, stream: true }).body).toMatchObject({
      ...{ query: '你好', inputs: { city: '杭州' }, user: 'weir' },
    })
    expect(sent('dify', { messages: [...TALK.slice(0, 1), ...TALK.slice(3)] }).body['query']).toBe('简短回答\n\n几点关门？')
    expect(sent('dify', { messages: PICTURE }).body['files']).toEqual([
      { type: 'image', transfer_method: 'remote_url', url: 'https://example.cn/a.png' },
    ])
  })

  it('an application of Model Studio gets the messages, and streams by a header', () => {
    const { body, adjusted } = sent('bailian_app', {
      messages: TALK,
      stream: true,
      temperature: 0.5,
      biz_params: { city: '杭州' },
      max_tokens: 9,
    })
    expect(body).toEqual({
      input: { messages: [...TALK.slice(0, 3), { role: 'user', content: '几点关门？' }], biz_params: { city: '杭州' } },
      parameters: { temperature: 0.5, incremental_output: true },
      debug: {},
    })
    expect(adjusted).toEqual(['max_tokens=dropped'])
    expect(sent('bailian_app', { messages: PICTURE }).body).toMatchObject({
      input: { image_list: ['https://example.cn/a.png'] },
      parameters: {},
    })
    const headers = (stream: boolean): object => nativeHeaders('bailian_app', stream)
    expect([headers(true), headers(false)]).toEqual([{ 'x-dashscope-sse': 'enable' }, {}])
  })

  it("RAGFlow gets texts alone, with the system's words before the first question", () => {
    expect(sent('ragflow', { messages: TALK, extra_body: { reference: true }, top_p: 0.5 })).toEqual({
      body: {
        model: 'app-1',
        messages: [{ role: 'user', content: '简短回答\n\n你好' }, TALK[2], { role: 'user', content: '几点关门？' }],
        stream: false,
        extra_body: { reference: true },
      },
      adjusted: ['top_p=dropped'],
    })
  })

  it.each([
    ['dify', { messages: UPLOADED }],
    ['bailian_app', { messages: UPLOADED }],
    ['ragflow', { messages: PICTURE }],
    ['dify', { messages: TALK, n: 2 }],
    ['dify', { messages: [{ role: 'user', content: '' }] }],
  ] as const)('%s is not asked for what it cannot do', (name, request) => {
    expect(() => sent(name, request)).toThrow(expect.objectContaining({ kind: 'unsupported' }) as UpstreamFailure)
  })
})

/** The outcome of a stream, the same for every split. */
function run(name: DialectName & Application, stream: string, usage_asked = false): StreamOutcome {
  const dialect = dialectFor(name, factsOf(name))
  const bytes = Buffer.from(stream)
  const outcome = translate(dialect, answerContext({ usage_asked }), [bytes])
  for (const chunks of everySplit(bytes)) expect(translate(dialect, answerContext({ usage_asked }), chunks)).toEqual(outcome)
  return outcome
}
const said = ({ out }: StreamOutcome): [string, string | null] => {
  const { content, finish } = meaningOf(`${out}data: [DONE]\n\n`)
  return [content, finish]
}

const HEAD = { task_id: 't', message_id: 'm', conversation_id: 'c', created_at: 1_700_000_000 }
const dify = (event: string, more: object = {}): string => `data: ${JSON.stringify({ event, ...HEAD, ...more })}\n\n`
const END = dify('message_end', {
  metadata: { usage: { prompt_tokens: 33, completion_tokens: 5, total_tokens: 38, total_price: '0.1', currency: 'USD' } },
})

describe('Dify answers', () => {
  it('in pieces, with pings and steps between them, and usage at the end', () => {
    const stream = `event: ping\n\n${dify('workflow_started', { data: {} })}${dify('message', { answer: '您' })}event: ping\n\n${dify('message', { answer: '好' })}${dify('node_finished', { data: {} })}${dify('tts_message', { audio: 'qqq' })}${END}`
    const outcome = run('dify', stream)
    expect(said(outcome)).toEqual(['您好', 'stop'])
    expect(outcome).toMatchObject({ failure: null, done: true, observed: { finished: true, reported: { input: 33, output: 5 } } })
    expect(outcome.out).not.toMatch(/ping|workflow|qqq|"usage"/)
    expect(run('dify', stream, true).out).toMatch(/"usage":\{"prompt_tokens":33,"completion_tokens":5/)
  })

  it('as an agent, whose thoughts are its own', () => {
    const stream = dify('agent_thought', { thought: '先查' }) + dify('agent_message', { answer: '查到了' }) + END
    expect(said(run('dify', stream))).toEqual(['查到了', 'stop'])
  })

  it('with other words where moderation stepped in, and says so', () => {
    expect(said(run('dify', dify('message', { answer: '坏' }) + dify('message_replace', { answer: '【已屏蔽】' }) + END))).toEqual([
      '坏【已屏蔽】',
      'content_filter',
    ])
  })

  it('without a count, which is then estimated', () => {
    const none = dify('message_end', { metadata: { usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } } })
    const outcome = run('dify', dify('message', { answer: '您好呀' }) + none)
    expect([outcome.failure, outcome.observed.reported, outcome.observed.estimated_output > 0]).toEqual([null, null, true])
  })

  it.each([
    [
      'an error in the middle',
      dify('message', { answer: '一' }) + dify('error', { status: 400, code: 'provider_quota_exceeded', message: 'x' }),
      'quota',
    ],
    ['an error of which nothing is known', dify('error', { status: 500, message: 'boom' }), 'server'],
    ['an end that never came', dify('message', { answer: '一' }), 'truncated'],
  ])('never cleanly after %s', (_, stream, failure) => {
    expect(run('dify', stream)).toMatchObject({ failure, observed: { finished: false } })
  })

  it('in one piece, when blocking', () => {
    const usage = { prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 }
    const body = Buffer.from(JSON.stringify({ event: 'message', ...HEAD, id: 'm', mode: 'chat', answer: '您好', metadata: { usage } }))
    const { out, observation } = dialectFor('dify', factsOf('dify')).whole(body, answerContext())
    expect(JSON.parse(out.toString())).toMatchObject({
      ...{ id: 'm', object: 'chat.completion', model: 'weir-chat', usage },
      choices: [{ index: 0, message: { role: 'assistant', content: '您好' }, finish_reason: 'stop' }],
    })
    expect(observation).toMatchObject({ finished: true, reported: { input: 9, output: 2 } })
  })
})

const frame = (text: string, finish_reason: string, output_tokens: number): string =>
  `id:1\nevent:result\n:HTTP_STATUS/200\ndata:${JSON.stringify({
    output: { session_id: 's', finish_reason, text },
    usage: {
      models: [
        { input_tokens: 20, output_tokens, model_id: 'qwen-plus' },
        { input_tokens: 7, output_tokens: 1, model_id: 'qwen-max' },
      ],
    },
    request_id: 'r',
  })}\n\n`

describe('an application of Model Studio answers', () => {
  it.each([
    ['in pieces', frame('今天', 'null', 1) + frame('晴', 'null', 2) + frame('', 'stop', 2)],
    ['growing', frame('今天天', 'null', 1) + frame('今天天气晴', 'null', 2) + frame('今天天气晴', 'stop', 2)],
  ])('%s, and counts are summed over the models that it called', (_, stream) => {
    const outcome = run('bailian_app', stream)
    expect(said(outcome)).toEqual([expect.stringMatching(/^今天(天气)?晴$/) as unknown as string, 'stop'])
    expect(outcome).toMatchObject({ failure: null, observed: { finished: true, reported: { input: 27, output: 3 } } })
  })

  it('in one piece; without a count it is estimated', () => {
    const body = (usage: unknown): Buffer =>
      Buffer.from(JSON.stringify({ output: { session_id: 's', finish_reason: 'stop', text: '晴' }, usage, request_id: 'r' }))
    const whole = (usage: unknown) => dialectFor('bailian_app', factsOf('bailian_app')).whole(body(usage), answerContext())
    const models = [{ model_id: 'a', input_tokens: 4, output_tokens: 1 }]
    expect(JSON.parse(whole({ models }).out.toString())).toMatchObject({
      id: 'r',
      choices: [{ message: { content: '晴' }, finish_reason: 'stop' }],
    })
    expect(whole({ models }).observation.reported).toMatchObject({ input: 4, output: 1 })
    expect(whole({ models: [] }).observation).toMatchObject({ finished: true, reported: null })
  })

  it('never cleanly when it breaks off', () => {
    expect(run('bailian_app', frame('今天', 'null', 1))).toMatchObject({ failure: 'truncated' })
  })
})

const chunk = (delta: Fields, finish_reason: string | null = null, more: Fields = { usage: null }): string =>
  `data:${JSON.stringify({ id: 'chatcmpl-7', choices: [{ delta: { role: 'assistant', function_call: null, tool_calls: null, ...delta }, finish_reason, index: 0, logprobs: null }], created: 1, model: 'model', object: 'chat.completion.chunk', ...more })}\n\n`
const RAGFLOW_END =
  chunk({ content: null }, 'stop', { usage: { prompt_tokens: 6, completion_tokens: 4, total_tokens: 10 } }) + 'data:[DONE]\n\n'

describe('RAGFlow answers', () => {
  it('with all its words once more at the end, which are said once', () => {
    const outcome = run(
      'ragflow',
      chunk({ content: '营业到' }) + chunk({ content: '晚上九点' }) + chunk({ content: '营业到晚上九点' }) + RAGFLOW_END,
    )
    expect(said(outcome)).toEqual(['营业到晚上九点', 'stop'])
    expect(outcome).toMatchObject({
      failure: null,
      observed: { reported: { input: 6, output: 4 }, repairs: expect.arrayContaining(['repeated_text']) as unknown },
    })
  })

  it('never cleanly when its model failed, though it says that it is done', () => {
    const failed = chunk({ content: '营业' }) + chunk({ content: '**ERROR**: Rate limit exceeded for the model' }) + RAGFLOW_END
    expect(run('ragflow', failed)).toMatchObject({ failure: 'server', observed: { finished: false } })
    const body = {
      id: 'x',
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: '**ERROR**: boom' }, finish_reason: 'stop' }],
    }
    const dialect = dialectFor('ragflow', factsOf('ragflow'))
    expect(() => dialect.whole(Buffer.from(JSON.stringify(body)), answerContext())).toThrow(UpstreamFailure)
    expect(said(run('ragflow', chunk({ content: 'The text **ERROR** is shown.' }) + RAGFLOW_END))).toEqual([
      'The text **ERROR** is shown.',
      'stop',
    ])
  })
})
