import { describe, expect, it } from 'vitest'
import { readFacts } from '../../src/gateway/request.ts'
import { UpstreamFailure } from '../../src/upstream/failure.ts'
import { PLAIN_RULES, type ProviderFacts, type RequestRules } from '../../src/upstream/providers/provider.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { adaptChat } from '../../src/upstream/requests/adapt.ts'
import { joinAnswers, splitInputs } from '../../src/upstream/requests/embeddings.ts'
import { nativeChat } from '../../src/upstream/requests/native.ts'

type Fields = Readonly<Record<string, unknown>>

const HELLO = [{ role: 'user', content: 'hi' }]

function factsOf(provider: string): ProviderFacts {
  const facts = PROVIDERS.get(provider)
  if (facts === undefined) throw new Error(`no provider ${provider}`)
  return facts
}

function rulesOf(provider: string, model: string): RequestRules {
  const facts = factsOf(provider)
  return Object.assign(
    {},
    facts.rules,
    ...facts.variants.filter(({ models }) => models.test(model)).map(({ rules }) => rules),
  ) as RequestRules
}

interface Limits {
  readonly max_output_tokens?: number
  readonly capped_tokens?: number
}

/** What a target gets of a request, and what the caller is told. */
function adapted(
  rules: RequestRules,
  request: Fields | string,
  limits: Limits = {},
): { body: string; sent: Fields; adjusted: readonly string[] } {
  const bytes = Buffer.from(typeof request === 'string' ? request : JSON.stringify({ model: 'asked', messages: HELLO, ...request }))
  const { facts } = readFacts('chat_completions', bytes, 128)
  const target = { upstream_model: 'up', max_output_tokens: limits.max_output_tokens ?? null, capped_tokens: limits.capped_tokens ?? null }
  const { body, adjusted } = adaptChat(bytes, facts, rules, target)
  return { body: body.toString(), sent: JSON.parse(body.toString()) as Fields, adjusted }
}

describe('a request that needs no more than a name', () => {
  it('is spliced: big numbers, repeated keys, spacing and unknown members stay', () => {
    const request =
      '{ "model" : "asked", "seed":12345678901234567890, "x":1.50, "x":2, "messages":[{"role":"user","content":"\\u4f60\\/"}],"temperature":0.70 }'
    const { body, adjusted } = adapted(rulesOf('qwen', 'qwen-plus'), request)
    expect(body).toBe(request.replace('"asked"', '"up"'))
    expect(adjusted).toEqual([])
  })

  it('is spliced also where something must change, and nothing else does', () => {
    const request =
      '{ "model":"asked","seed":12345678901234567890 ,"temperature":2.5,"x":1.50,"messages":[ {"role":"assistant","content":"\\u4f60","tool_calls":[{"id":"a","big":9007199254740993}] } ] }'
    const { body, adjusted } = adapted({ ...rulesOf('moonshot', 'kimi-k3') }, request)
    expect(body).toBe(
      '{ "model":"up","seed":12345678901234567890 ,"temperature":1.0,"x":1.50,"messages":[ {"role":"assistant","content":"\\u4f60","tool_calls":[{"id":"a","big":9007199254740993}],"reasoning_content":" " } ] }',
    )
    expect(adjusted).toEqual(['temperature=1.0'])
  })
})

describe('numbers', () => {
  it.each<readonly [string, string, Fields, Fields, readonly string[]]>([
    ['moonshot', 'kimi-k2.6', { temperature: 0.3 }, { temperature: 1 }, ['temperature=1.0']],
    ['moonshot', 'kimi-k2.5', { temperature: 0.3, top_p: 1 }, { temperature: 1, top_p: 0.95 }, ['temperature=1.0', 'top_p=0.95']],
    ['moonshot', 'kimi-k2.5', { temperature: 0.3, thinking: { type: 'disabled' } }, { temperature: 0.6 }, ['temperature=0.6']],
    ['moonshot', 'moonshot-v1-8k', { temperature: 1.5 }, { temperature: 1 }, ['temperature=1.0']],
    ['moonshot', 'moonshot-v1-8k', { temperature: 0.5 }, { temperature: 0.5 }, []],
    ['minimax', 'MiniMax-M2.7', { temperature: 0, top_p: 0 }, { temperature: 0.01, top_p: 0.01 }, ['temperature=0.01', 'top_p=0.01']],
    [
      'qwen',
      'qwen-plus',
      { top_p: 1, temperature: 2 },
      { top_p: 0.999999, temperature: 1.999999 },
      ['top_p=0.999999', 'temperature=1.999999'],
    ],
    ['zhipu', 'glm-4-plus', { temperature: 1 }, { temperature: 0.99 }, ['temperature=0.99']],
    ['zhipu', 'glm-5.2', { temperature: 1 }, { temperature: 1 }, []],
    ['spark', '4.0Ultra', { temperature: 0, top_k: 50 }, { temperature: 0.01, top_k: 6 }, ['temperature=0.01', 'top_k=6']],
    ['hunyuan', 'hy4', { seed: 123456 }, { seed: 10_000 }, ['seed=10000']],
    ['baichuan', 'Baichuan4', { temperature: 1.2 }, { temperature: 1 }, ['temperature=1.0']],
    ['deepseek', 'deepseek-v4-pro', { temperature: 1.7, seed: 3 }, { temperature: 1.7, seed: 3 }, []],
  ])('%s %s takes of %j: %j', (provider, model, request, sent, adjusted) => {
    const found = adapted(rulesOf(provider, model), request)
    expect(found.sent).toMatchObject(sent)
    expect(found.adjusted).toEqual(adjusted)
  })

  it('of choices are not clamped, since fewer would be another answer: the target says no before it is asked', () => {
    const ask = (): unknown => adapted(rulesOf('minimax', 'MiniMax-M2.7'), { n: 2 })
    expect(ask).toThrow(expect.objectContaining({ kind: 'unsupported', details: expect.objectContaining({ unsent: true }) as unknown }))
    expect(ask).toThrow(UpstreamFailure)
  })
})

describe('the cap of an answer', () => {
  it.each<readonly [string, Fields, Limits, Fields, readonly string[]]>([
    ['is clamped to the model', { max_tokens: 99_999 }, { max_output_tokens: 8192 }, { max_tokens: 8192 }, ['max_tokens=8192']],
    ['is passed within the model', { max_tokens: 100 }, { max_output_tokens: 8192 }, { max_tokens: 100 }, []],
    ['is passed where the model is not known', { max_tokens: 99_999 }, {}, { max_tokens: 99_999 }, []],
    ['goes by the name that the target knows', { max_completion_tokens: 100 }, {}, { max_tokens: 100 }, []],
    [
      'is told by the name that the caller gave',
      { max_completion_tokens: 99_999 },
      { max_output_tokens: 10 },
      { max_tokens: 10 },
      ['max_completion_tokens=10'],
    ],
    ['is the larger of two', { max_tokens: 5, max_completion_tokens: 7 }, {}, { max_tokens: 7 }, []],
    ['is what the hold pays for', {}, { capped_tokens: 64, max_output_tokens: 8192 }, { max_tokens: 64 }, []],
  ])('%s', (_, request, limits, sent, adjusted) => {
    const found = adapted(PLAIN_RULES, request, limits)
    expect(found.sent).toMatchObject(sent)
    expect(found.sent['max_completion_tokens']).toBeUndefined()
    expect(found.adjusted).toEqual(adjusted)
  })

  it('is clamped to the host, and named as it wants', () => {
    expect(adapted(rulesOf('siliconflow', 'x'), { max_tokens: 20_000 }, { max_output_tokens: 32_768 })).toMatchObject({
      sent: { max_tokens: 16_384 },
      adjusted: ['max_tokens=16384'],
    })
    const moonshot = adapted(rulesOf('moonshot', 'kimi-k3'), { max_tokens: 100 }).sent
    expect([moonshot['max_tokens'], moonshot['max_completion_tokens']]).toEqual([undefined, 100])
    const ark = adapted(rulesOf('doubao', 'doubao-seed'), { max_completion_tokens: 100 }).sent
    expect([ark['max_tokens'], ark['max_completion_tokens']]).toEqual([undefined, 100])
  })
})

describe('members that a target refuses', () => {
  it('are left out and named; those that it ignores are passed', () => {
    const request = { response_format: { type: 'json_object' }, thinking: { type: 'enabled' }, logit_bias: {} }
    const found = adapted(rulesOf('sensenova', 'SenseNova-6.7-Flash-Lite'), request)
    expect(Object.keys(found.sent).toSorted()).toEqual(['logit_bias', 'messages', 'model'])
    expect(found.adjusted).toEqual(['response_format=dropped', 'thinking=dropped'])
  })

  it('are added where the target needs them and the caller said nothing', () => {
    expect(adapted(rulesOf('minimax', 'MiniMax-M2.7'), {}).sent['reasoning_split']).toBe(true)
    expect(adapted(rulesOf('minimax', 'MiniMax-M2.7'), { reasoning_split: false }).sent['reasoning_split']).toBe(false)
  })

  it('a model that only streams is asked for a stream', () => {
    expect(adapted(rulesOf('qwen', 'qwq-plus'), {}).sent).toMatchObject({ stream: true, stream_options: { include_usage: true } })
  })
})

describe('one control of thinking for all', () => {
  /** Every way of saying it, and what each target is told. */
  const SAID: Readonly<Record<string, Fields>> = {
    on: { thinking: { type: 'enabled' } },
    'on, as Qwen': { enable_thinking: true },
    'on, as vLLM': { chat_template_kwargs: { enable_thinking: true } },
    off: { thinking: { type: 'disabled' } },
    'off, as Qwen': { enable_thinking: false },
    'off, as OpenAI': { reasoning_effort: 'none' },
    minimal: { reasoning_effort: 'minimal' },
    medium: { reasoning_effort: 'medium' },
    high: { reasoning_effort: 'high' },
  }
  const TARGETS: readonly (readonly [string, string, Readonly<Record<string, Fields>>])[] = [
    [
      'deepseek',
      'deepseek-v4-pro',
      {
        on: { thinking: { type: 'enabled' } },
        off: { thinking: { type: 'disabled' } },
        minimal: { reasoning_effort: 'low' },
        medium: { reasoning_effort: 'high' },
        high: { reasoning_effort: 'high' },
      },
    ],
    [
      'qwen',
      'qwen-plus',
      {
        on: { enable_thinking: true },
        off: { enable_thinking: false },
        minimal: { enable_thinking: true },
        medium: { enable_thinking: true },
        high: { enable_thinking: true },
      },
    ],
    [
      'qwen',
      'qwen3.8-max',
      {
        on: { enable_thinking: true },
        off: { enable_thinking: false },
        minimal: { reasoning_effort: 'low' },
        medium: { reasoning_effort: 'medium' },
        high: { reasoning_effort: 'xhigh' },
      },
    ],
    [
      'doubao',
      'doubao-seed-1.8',
      {
        on: { thinking: { type: 'enabled' } },
        off: { thinking: { type: 'disabled' } },
        minimal: { reasoning_effort: 'minimal' },
        medium: { reasoning_effort: 'medium' },
        high: { reasoning_effort: 'high' },
      },
    ],
    [
      'zhipu',
      'glm-5.2',
      {
        on: { thinking: { type: 'enabled' } },
        off: { thinking: { type: 'disabled' } },
        minimal: { thinking: { type: 'enabled' } },
        medium: { thinking: { type: 'enabled' } },
        high: { thinking: { type: 'enabled' } },
      },
    ],
    [
      'zhipu',
      'glm-5.3',
      {
        on: { thinking: { type: 'enabled' } },
        off: { reasoning_effort: 'low' },
        minimal: { reasoning_effort: 'low' },
        medium: { reasoning_effort: 'high' },
        high: { reasoning_effort: 'high' },
      },
    ],
    [
      'moonshot',
      'kimi-k3',
      {
        on: {},
        off: { reasoning_effort: 'low' },
        minimal: { reasoning_effort: 'low' },
        medium: { reasoning_effort: 'high' },
        high: { reasoning_effort: 'high' },
      },
    ],
    [
      'minimax',
      'MiniMax-M3',
      {
        on: { thinking: { type: 'adaptive' } },
        off: { thinking: { type: 'disabled' } },
        minimal: { thinking: { type: 'adaptive' } },
        medium: { thinking: { type: 'adaptive' } },
        high: { thinking: { type: 'adaptive' } },
      },
    ],
    ['minimax', 'MiniMax-M2.7', { on: {}, off: {}, minimal: {}, medium: {}, high: {} }],
    [
      'stepfun',
      'step-3.7-flash',
      { on: {}, off: {}, minimal: { reasoning_effort: 'low' }, medium: { reasoning_effort: 'medium' }, high: { reasoning_effort: 'high' } },
    ],
    [
      'sensenova',
      'SenseNova-V6-5-Pro',
      {
        on: { thinking: { enabled: true } },
        off: { thinking: { enabled: false } },
        minimal: { thinking: { enabled: true } },
        medium: { thinking: { enabled: true } },
        high: { thinking: { enabled: true } },
      },
    ],
    [
      'vllm',
      'Qwen/Qwen3-32B',
      {
        on: { chat_template_kwargs: { enable_thinking: true } },
        off: { chat_template_kwargs: { enable_thinking: false } },
        minimal: { chat_template_kwargs: { enable_thinking: true } },
        medium: { chat_template_kwargs: { enable_thinking: true } },
        high: { chat_template_kwargs: { enable_thinking: true } },
      },
    ],
    [
      'sglang',
      'deepseek-v4',
      {
        on: { chat_template_kwargs: { thinking: true } },
        off: { chat_template_kwargs: { thinking: false } },
        minimal: { reasoning_effort: 'high' },
        medium: { reasoning_effort: 'high' },
        high: { reasoning_effort: 'high' },
      },
    ],
    [
      'siliconflow',
      'Qwen/Qwen3-32B',
      {
        on: { enable_thinking: true },
        off: { enable_thinking: false },
        minimal: { enable_thinking: true },
        medium: { enable_thinking: true },
        high: { enable_thinking: true },
      },
    ],
    ['siliconflow', 'Qwen/Qwen3-30B-A3B-Instruct-2507', { on: {}, off: {}, minimal: {}, medium: {}, high: {} }],
  ]

  it.each(TARGETS)('%s %s', (provider, model, wanted) => {
    const rules = rulesOf(provider, model)
    for (const [said, request] of Object.entries(SAID)) {
      const { messages: _, model: __, reasoning_split: ___, ...sent } = adapted(rules, request).sent
      const [meaning = ''] = said.split(',')
      expect([said, sent]).toEqual([said, wanted[meaning]])
    }
  })

  it('leaves what is said of thinking where nothing is known of the target, and other arguments of templates everywhere', () => {
    expect(adapted(PLAIN_RULES, { thinking: { type: 'enabled' } }).sent['thinking']).toEqual({ type: 'enabled' })
    const kwargs = { chat_template_kwargs: { custom: 1, thinking: true } }
    expect(adapted(rulesOf('vllm', 'qwen'), kwargs).sent['chat_template_kwargs']).toEqual({ custom: 1, enable_thinking: true })
    expect(adapted(rulesOf('qwen', 'qwen-plus'), kwargs).sent['chat_template_kwargs']).toEqual({ custom: 1 })
  })

  it('tells what could not be had', () => {
    expect(adapted(rulesOf('moonshot', 'kimi-k3'), { thinking: { type: 'disabled' } }).adjusted).toEqual(['thinking=low'])
    expect(adapted(rulesOf('minimax', 'MiniMax-M2.7'), { enable_thinking: false }).adjusted).toEqual(['thinking=always'])
    expect(adapted(rulesOf('deepseek', 'deepseek-v4-pro'), { reasoning_effort: 'medium' }).adjusted).toEqual(['reasoning_effort=high'])
    expect(adapted(rulesOf('qianfan', 'ernie'), { thinking_budget: 7 })).toMatchObject({
      sent: { thinking_budget: 100 },
      adjusted: ['thinking_budget=100'],
    })
    expect(adapted(rulesOf('zhipu', 'glm-5.2'), { thinking: { type: 'enabled', budget_tokens: 5 } }).adjusted).toEqual([
      'thinking_budget=dropped',
    ])
  })
})

describe('earlier turns', () => {
  const call = { id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }
  const turn = (more: Fields): Fields => ({ role: 'assistant', content: null, tool_calls: [call], ...more })
  const turnAt = (provider: string, model: string, message: Fields): unknown => {
    const { sent } = adapted(rulesOf(provider, model), { messages: [...HELLO, message, { role: 'tool', tool_call_id: 'a', content: '1' }] })
    return (sent['messages'] as unknown[])[1]
  }

  it('get reasoning where it is demanded: their own under another name, or something that is not nothing', () => {
    expect(turnAt('deepseek', 'deepseek-v4-pro', turn({ reasoning_content: 'Hm' }))).toEqual(turn({ reasoning_content: 'Hm' }))
    expect(turnAt('deepseek', 'deepseek-v4-pro', turn({ reasoning: 'Hm' }))).toEqual(turn({ reasoning: 'Hm', reasoning_content: 'Hm' }))
    expect(turnAt('moonshot', 'kimi-k2.5', turn({}))).toEqual(turn({ reasoning_content: ' ' }))
    expect(turnAt('moonshot', 'kimi-k2.5', turn({ reasoning_content: '' }))).toEqual(turn({ reasoning_content: ' ' }))
    expect(turnAt('deepseek', 'deepseek-v4-pro', { role: 'assistant', content: 'hi' })).toEqual({ role: 'assistant', content: 'hi' })
  })

  it('lose it where it is refused, and have it in details where those are wanted', () => {
    const said = { reasoning: 'Hm', reasoning_content: 'Hm', reasoning_details: [{ text: 'Hm' }] }
    expect(turnAt('deepseek', 'deepseek-reasoner', turn(said))).toEqual(turn({}))
    expect(turnAt('minimax', 'MiniMax-M2.7', turn({ reasoning_content: 'Hm' }))).toMatchObject({
      reasoning_details: [{ type: 'reasoning.text', text: 'Hm' }],
    })
    expect(turnAt('minimax', 'MiniMax-M2.7', turn({ reasoning_details: [{ text: 'x' }] }))).toEqual(
      turn({ reasoning_details: [{ text: 'x' }] }),
    )
    expect(turnAt('vllm', 'qwen', turn(said))).toEqual(turn(said))
  })
})

describe('requests of other protocols', () => {
  const native = (dialect: Parameters<typeof nativeChat>[0], request: Fields): { sent: Fields; adjusted: readonly string[] } => {
    const bytes = Buffer.from(JSON.stringify({ model: 'asked', ...request }))
    const { facts } = readFacts('chat_completions', bytes, 128)
    const target = { upstream_model: 'up', max_output_tokens: null, capped_tokens: null }
    const { body, adjusted } = nativeChat(dialect, bytes, facts, PLAIN_RULES, target)
    return { sent: JSON.parse(body.toString()) as Fields, adjusted }
  }
  const parameters = { type: 'object', properties: { x: { type: 'number' } } }
  const tools = [{ type: 'function', function: { name: 'f', description: 'd', parameters } }]
  const calls = [
    { id: 'c:1', type: 'function', function: { name: 'f', arguments: '{"x":1}' } },
    { id: 'c:2', type: 'function', function: { name: 'f', arguments: '{"x":2}' } },
  ]
  const messages = [
    { role: 'system', content: 'be kind' },
    {
      role: 'user',
      content: [
        { type: 'text', text: 'look' },
        { type: 'image_url', image_url: { url: 'data:image/png;base64,QUJD' } },
      ],
    },
    { role: 'assistant', content: null, reasoning_content: 'Hm', tool_calls: calls },
    { role: 'tool', tool_call_id: 'c:1', content: 'one' },
    { role: 'tool', tool_call_id: 'c:2', content: 'two' },
  ]

  it("Anthropic's: blocks, results of one turn together, ids that it takes, a cap that it must have", () => {
    const { sent, adjusted } = native('anthropic', {
      messages,
      tools,
      tool_choice: 'required',
      stop: 'END',
      max_tokens: 5000,
      seed: 1,
      reasoning_effort: 'high',
      user: 'u',
    })
    expect(sent).toEqual({
      ...{ model: 'up', max_tokens: 5000, system: 'be kind', stop_sequences: ['END'], metadata: { user_id: 'u' } },
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'QUJD' } },
          ],
        },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'Hm', signature: '' },
            { type: 'tool_use', id: 'c_1', name: 'f', input: { x: 1 } },
            { type: 'tool_use', id: 'c_2', name: 'f', input: { x: 2 } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'c_1', content: 'one' },
            { type: 'tool_result', tool_use_id: 'c_2', content: 'two' },
          ],
        },
      ],
      ...{ tools: [{ name: 'f', description: 'd', input_schema: parameters }], tool_choice: { type: 'any' } },
      thinking: { type: 'enabled', budget_tokens: 4096 },
    })
    expect(adjusted).toEqual(['seed=dropped'])
    expect(native('anthropic', { messages: HELLO }).sent['max_tokens']).toBe(8192)
    const signed = {
      role: 'assistant',
      content: 'a',
      reasoning_content: 'Hm',
      reasoning_details: [
        { type: 'thinking', signature: 's' },
        { type: 'redacted_thinking', data: 'd' },
      ],
    }
    expect(native('anthropic', { messages: [...HELLO, signed, ...HELLO] }).sent['messages']).toMatchObject([
      {},
      {
        content: [
          { type: 'thinking', thinking: 'Hm', signature: 's' },
          { type: 'redacted_thinking', data: 'd' },
          { type: 'text', text: 'a' },
        ],
      },
      {},
    ])
  })

  it("DashScope's: parameters apart, texts in pieces", () => {
    const { sent } = native('qwen_native', {
      messages: HELLO,
      stream: true,
      temperature: 0.5,
      tools,
      max_completion_tokens: 9,
      enable_search: true,
    })
    expect(sent).toEqual({
      ...{ model: 'up', input: { messages: HELLO } },
      parameters: { result_format: 'message', incremental_output: true, temperature: 0.5, tools, max_tokens: 9, enable_search: true },
    })
  })

  it("Tencent Cloud's: PascalCase, parameters as text, no reasoning, no cap", () => {
    const { sent, adjusted } = native('hunyuan_native', {
      messages,
      tools,
      tool_choice: { type: 'function', function: { name: 'f' } },
      max_tokens: 9,
      top_p: 0.5,
    })
    const Tool = { Type: 'function', Function: { Name: 'f', Description: 'd', Parameters: JSON.stringify(parameters) } }
    expect(sent).toMatchObject({ Model: 'up', Stream: false, TopP: 0.5, Tools: [Tool], ToolChoice: 'custom', CustomTool: Tool })
    expect(sent['Messages']).toMatchObject([
      { Role: 'system', Content: 'be kind' },
      {
        Role: 'user',
        Contents: [
          { Type: 'text', Text: 'look' },
          { Type: 'image_url', ImageUrl: { Url: 'data:image/png;base64,QUJD' } },
        ],
      },
      { Role: 'assistant', Content: '', ToolCalls: [{ Id: 'c:1', Type: 'function', Function: { Name: 'f', Arguments: '{"x":1}' } }, {}] },
      { Role: 'tool', ToolCallId: 'c:1', Content: 'one' },
      { Role: 'tool', ToolCallId: 'c:2', Content: 'two' },
    ])
    expect(JSON.stringify(sent)).not.toContain('Hm')
    expect(adjusted).toEqual(['max_tokens=dropped'])
  })

  it("Qianfan's first: the system apart, one function after the other with its result", () => {
    const { sent, adjusted } = native('qianfan_v1', { messages, tools, temperature: 0, max_tokens: 9, n: 1 })
    expect(sent).toEqual({
      ...{ system: 'be kind', temperature: 0.01, max_output_tokens: 9, functions: [{ name: 'f', description: 'd', parameters }] },
      messages: [
        { role: 'user', content: 'look' },
        { role: 'assistant', content: '', function_call: { name: 'f', arguments: '{"x":1}' } },
        { role: 'function', name: 'f', content: 'one' },
        { role: 'assistant', content: '', function_call: { name: 'f', arguments: '{"x":2}' } },
        { role: 'function', name: 'f', content: 'two' },
      ],
    })
    expect(adjusted).toEqual(['n=dropped', 'temperature=0.01'])
  })
})

describe('embeddings of more inputs than a target takes', () => {
  it('are split in order, their inputs as they were written', () => {
    const body = Buffer.from('{"model":"m", "input": ["a\\u4f60", "b" ,"c"], "dimensions":9007199254740993}')
    expect(splitInputs(body, 'up', 3, 2).map(String)).toEqual([
      '{"model":"up", "input": ["a\\u4f60", "b"], "dimensions":9007199254740993}',
      '{"model":"up", "input": ["c"], "dimensions":9007199254740993}',
    ])
    expect(splitInputs(body, 'up', 3, 3)).toHaveLength(1)
    expect(splitInputs(body, 'up', 3, null)).toHaveLength(1)
  })

  it('are joined in order, vectors as they were written, usage summed; unknown where one part says none', () => {
    const part = (usage: string, ...vectors: string[]): Buffer =>
      Buffer.from(
        `{"object":"list","data":[${vectors.map((one, index) => `{"embedding":${one},"index":${index}}`).join(', ')}],"model":"up"${usage}}`,
      )
    const used = (tokens: number): string => `,"usage":{"prompt_tokens":${tokens},"total_tokens":${tokens}}`
    expect(joinAnswers([part(used(3), '[0.10]', '[1e-9]'), part(used(4), '[-0.0]')]).toString()).toBe(
      '{"object":"list","data":[{"embedding":[0.10],"index":0},{"embedding":[1e-9],"index":1},{"embedding":[-0.0],"index":2}],"model":"up","usage":{"prompt_tokens":7,"total_tokens":7}}',
    )
    expect(joinAnswers([part(used(3), '[1]'), part('', '[2]')]).toString()).not.toContain('usage')
    expect(() => joinAnswers([part('', '[1]'), Buffer.from('{}')])).toThrow(expect.objectContaining({ kind: 'malformed' }))
  })
})
