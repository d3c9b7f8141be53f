import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import type { PartialDirectives } from '../../src/sandbox/directives.ts'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import { atEnd } from '../support/cleanup.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'

const APPLICATIONS = ['dify', 'bailian', 'ragflow'] as const
const TALK = [
  { role: 'system' as const, content: 'be brief' },
  { role: 'user' as const, content: 'hello' },
  { role: 'assistant' as const, content: 'hello' },
  { role: 'user' as const, content: 'and now?' },
]

/** A gateway with a model for each kind of application, each at a sandbox that plays it. */
async function start(defaults: PartialDirectives = {}): Promise<{ gateway: TestGateway; sandbox: Sandbox; client: OpenAI }> {
  const sandbox = await startSandbox({ port: 0, defaults })
  atEnd(() => sandbox.close())
  const shared = { kind: 'chat', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 }
  const models = Object.fromEntries(
    APPLICATIONS.map((provider) => {
      const endpoint = { provider, upstream_model: 'app-1', base_url: `${sandbox.url}/as/${provider}`, zone: 'private', api_key: 'app-key' }
      return [`${provider}-app`, { ...shared, domain: 'customer_service', endpoints: [endpoint] }]
    }),
  )
  const gateway = await startGateway({ models, wallet_cny: '100000' })
  return { gateway, sandbox, client: new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 }) }
}

describe.each(APPLICATIONS)('%s, through the official SDK', (provider) => {
  const model = `${provider}-app`

  it.each([true, false])('answers a conversation, metered by its own count (stream %s)', async (stream) => {
    const { gateway, sandbox, client } = await start({ tokens: 40 })
    let [text, finish, id, total] = ['', '', '', 0]
    if (stream) {
      const { data, response } = await client.chat.completions
        .create({ model, messages: TALK, stream: true, stream_options: { include_usage: true } })
        .withResponse()
      for await (const chunk of data) {
        text += chunk.choices[0]?.delta.content ?? ''
        finish ||= chunk.choices[0]?.finish_reason ?? ''
        total = chunk.usage?.total_tokens ?? total
        expect(chunk.model).toBe(model)
      }
      id = response.headers.get('x-request-id') ?? ''
    } else {
      const { data, response } = await client.chat.completions.create({ model, messages: TALK }).withResponse()
      ;[text, finish, total] = [data.choices[0]?.message.content ?? '', data.choices[0]?.finish_reason ?? '', data.usage?.total_tokens ?? 0]
      expect(data.model).toBe(model)
      id = response.headers.get('x-request-id') ?? ''
    }
    const [row] = sandbox.served().served
    expect([text.length > 20, finish]).toEqual([true, 'stop'])
    const event = await gateway.event(id)
    expect(event).toMatchObject({
      status: 'completed',
      usage_source: 'reported',
      provider,
      model,
      tokens: { input: row?.prompt_tokens, output: row?.sent_tokens },
    })
    expect(total).toBe((row?.prompt_tokens ?? 0) + (row?.sent_tokens ?? 0))
    expect(sandbox.served().totals.requests).toBe(1)
    await gateway.audit()
  })

  it.each(['auth', 'rate', 'overload', 'invalid', 'model'] as const)('says no as an application does: %s', async (cause) => {
    const { gateway } = await start({ fail: { kind: 'provider', cause } })
    const response = await gateway.chat({ model, messages: TALK })
    expect(response.status).toBe(cause === 'invalid' ? 400 : 502)
    expect(((await response.json()) as { error: { code: string } }).error.code).toBe(
      cause === 'invalid' ? 'invalid_request' : 'upstream_error',
    )
    // An error inside a 200 has an event, of nothing.
    expect((await gateway.audit()).amount_nano).toBe(0n)
  })

  it('is cut off: no clean end, and what was delivered is billed by estimate', async () => {
    const { gateway } = await start({ tokens: 60, fail: { kind: 'cut_middle', at: 20 } })
    const response = await gateway.chat({ model, messages: TALK, stream: true })
    const body = await response.text()
    expect(body).not.toContain('[DONE]')
    expect(body).toContain('"error"')
    expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'truncated' })
    await gateway.audit()
  })

  it('says what of a request it does not take', async () => {
    const { gateway } = await start()
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }]
    const answered = await gateway.chat({ model, messages: TALK, tools, max_tokens: 50 })
    expect([answered.status, answered.headers.get('x-weir-adjusted')]).toEqual([200, 'tools=dropped, max_tokens=dropped'])
    const image = [{ type: 'image_url', image_url: { url: 'data:image/png;base64,QUJD' } }]
    expect((await gateway.chat({ model, messages: [{ role: 'user', content: image }] })).status).toBe(400)
    expect((await gateway.chat({ model, messages: TALK, n: 2 })).status).toBe(400)
  })
})

it('a profile may be of an application', async () => {
  const sandbox = await startSandbox({ port: 0 })
  atEnd(() => sandbox.close())
  const endpoint = { provider: 'dify', base_url: `${sandbox.url}/as/dify`, api_key: 'app-key' }
  const app = {
    kind: 'chat',
    owned_by: 'test',
    tokenizer: 'sandbox',
    created: '2026-01-01',
    context_tokens: 100_000,
    endpoints: [endpoint],
  }
  const gateway = await startGateway({ models: { app, helper: { profile: { of: 'app', system: 'SECRET-WORDS' } } } })
  const answer = (await (await gateway.chat({ model: 'helper', messages: TALK })).json()) as {
    model: string
    choices: { message: { content: string } }[]
  }
  expect(answer.model).toBe('helper')
  // The sandbox repeats the question that it got: the application's own words are in it.
  expect(answer.choices[0]?.message.content).toContain('SECRET-WORDS')
})
