import OpenAI from 'openai'
import { expect, it } from 'vitest'
import { startSandbox } from '../../src/sandbox/server.ts'
import type { TenantRecord } from '../../src/storage/records.ts'
import { atEnd } from '../support/cleanup.ts'
import { type GatewayOptions, startGateway, type TestGateway } from '../support/gateway.ts'
import { sseOf } from '../support/sse.ts'

const FILED = 'Beijing-TestChat-202404280016'
const OPERATOR = { name: '某网关公司 🚰' }
const QUESTION = [{ role: 'user' as const, content: 'Say hello' }]
const SOON = { limits: { keepalive_after_ms: 100 } }

/** What the header says, checked to be ASCII. */
function labelOf(response: Response): Record<string, string> {
  const header = response.headers.get('x-weir-aigc') ?? ''
  expect(header).toMatch(/^[\x20-\x7e]+$/)
  return JSON.parse(header) as Record<string, string>
}

async function start(
  tenant: Partial<TenantRecord>,
  options: GatewayOptions = {},
): Promise<{ readonly gateway: TestGateway; readonly client: OpenAI }> {
  const gateway = await startGateway({ settings: { operator: OPERATOR }, ...options, tenant })
  return { gateway, client: new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 }) }
}

it('every chat answer has the metadata of generated content, streamed or not, from the sandbox too, and its body stays as it was', async () => {
  const upstream = await startSandbox({ port: 0 })
  atEnd(() => upstream.close())
  const endpoint = { id: 'pair-a', provider: 'vllm', base_url: `${upstream.url}/a/v1`, filing: { number: FILED, evidence: 'test' } }
  const { gateway } = await start({}, { models: { pair: { endpoints: [endpoint] } } })
  for (const [model, producer] of [
    ['solo', 'sandbox'],
    ['pair', `Of ${FILED} 公司`],
  ] as const) {
    for (const stream of [false, true]) {
      const response = await gateway.chat({ model, stream })
      const id = response.headers.get('x-request-id') ?? ''
      const text = await response.text()
      expect(labelOf(response)).toEqual({
        ...{ Label: '1', ContentProducer: producer, ProduceID: id, ReservedCode1: '' },
        ...{ ContentPropagator: OPERATOR.name, PropagateID: id, ReservedCode2: '' },
      })
      expect([response.headers.get('x-weir-label'), text.includes('AI')]).toEqual([null, false])
    }
  }
  const embedded = await gateway.post('/v1/embeddings', { model: 'embed', input: 'x' })
  expect([embedded.status, embedded.headers.get('x-weir-aigc')]).toEqual([200, null])
  const refused = await gateway.chat({ model: 'nothing' })
  expect([refused.status, refused.headers.get('x-weir-aigc')]).toEqual([404, null])
})

it('a browser may read the labels, and an operator without a name is an empty one', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({}, { origin: 'https://app.example' })
  expect(response.headers.get('access-control-expose-headers')).toContain('x-weir-aigc, x-weir-label')
  expect(labelOf(response)['ContentPropagator']).toBe('')
})

it.each([
  ['zh', null, 'start', '（AI生成）'],
  ['en', null, 'end', '(AI-generated)'],
  ['zh', '本文由人工智能生成"\\', 'end', '本文由人工智能生成"\\'],
] as const)(
  'a tenant (%s, %s, %s) that wants it has the text in answers to the official SDK, and pays for no more tokens',
  async (locale, label_text, label_place, text) => {
    const { gateway, client } = await start({ label: 'explicit', label_text, label_place, locale })
    const plain = await gateway.account()
    const unlabelled = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: plain.secret })
    const ask = { model: 'solo', messages: QUESTION, max_tokens: 30 }
    const bare = await unlabelled.chat.completions.create(ask)
    const content = bare.choices[0]?.message.content ?? ''
    const expected = label_place === 'start' ? text + content : content + text
    const whole = await client.chat.completions.create(ask).withResponse()
    expect(whole.data.choices[0]?.message.content).toBe(expected)
    expect(whole.data.usage).toEqual(bare.usage)
    expect(whole.response.headers.get('x-weir-label')).toBe(`explicit; place=${label_place}`)
    let streamed = ''
    let tokens = 0
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
      streamed += chunk.choices[0]?.delta.content ?? ''
      tokens = chunk.usage?.completion_tokens ?? tokens
    }
    expect([streamed, tokens]).toEqual([expected, bare.usage?.completion_tokens])
    const event = await gateway.event(whole.response.headers.get('x-request-id'))
    expect([event?.tokens.output, event?.flags.includes('repair:aigc_label')]).toEqual([bare.usage?.completion_tokens, true])
    await gateway.audit()
  },
)

it('where usage is estimated from the text, the label is not counted', async () => {
  const { gateway } = await start({ label: 'explicit', label_place: 'start' })
  const plain = await gateway.account()
  const ask = { stream: true, max_tokens: 30, sandbox: { shape: 'absent' } }
  const outputs: (number | undefined)[] = []
  for (const secret of [gateway.key, plain.secret]) {
    const response = await gateway.chat(ask, { authorization: `Bearer ${secret}` })
    await response.text()
    outputs.push((await gateway.event(response.headers.get('x-request-id')))?.tokens.output)
  }
  expect(outputs[0]).toBeGreaterThan(0)
  expect(outputs[0]).toBe(outputs[1])
})

it.each([
  [{ response_format: { type: 'json_object' } }],
  [{ response_format: { type: 'json_schema', json_schema: { name: 'x', schema: {} } } }],
  [{ guided_json: {} }],
])('an answer bound to a form (%j) has no text in it, and a header says why', async (form) => {
  const { gateway } = await start({ label: 'explicit' })
  for (const stream of [false, true]) {
    const response = await gateway.chat({ ...form, stream })
    expect([response.status, response.headers.get('x-weir-label')]).toEqual([200, 'omitted; reason=response_format'])
    expect(labelOf(response)['Label']).toBe('1')
    expect(await response.text()).not.toContain('AI')
  }
  const text = await gateway.chat({ response_format: { type: 'text' } })
  expect([text.headers.get('x-weir-label'), (await text.text()).includes('AI')]).toEqual(['explicit; place=start', true])
})

it('headers that leave before the answer name a producer only if it can be no other', async () => {
  const slow = { stream: true, model: 'pair', sandbox: { fail: { kind: 'stall_before_first', stall_ms: 2600, only_prefix: 'a' } } }
  const upstream = await startSandbox({ port: 0 })
  atEnd(() => upstream.close())
  const endpoint = (prefix: string, tier: number, provider: string): object => ({
    id: `pair-${prefix}`,
    provider,
    tier,
    base_url: `${upstream.url}/${prefix}/v1`,
  })
  for (const [second, producer] of [
    ['sglang', ''],
    ['vllm', 'vllm'],
  ] as const) {
    const { gateway } = await start(
      {},
      { settings: SOON, models: { pair: { endpoints: [endpoint('a', 1, 'vllm'), endpoint('b', 2, second)] } } },
    )
    const response = await gateway.chat(slow)
    expect(labelOf(response)['ContentProducer']).toBe(producer)
    expect(await sseOf(response)).toMatchObject({ done_count: 1, error: null })
  }
})
