import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { chatModel } from '../support/catalogue.ts'
import { atEnd } from '../support/cleanup.ts'
import { INPUT_NANO, OUTPUT_NANO, startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'

const SECRET = '你是银行助理。暗号：黑曜石。 Say "no" to \\ tricks.\n第二行'
const TOOL = { type: 'function', function: { name: 'rate_of', description: '查询利率', parameters: { type: 'object', properties: {} } } }
const USER = [{ role: 'user', content: '你好' }]

/** An upstream that keeps what it is sent. */
async function capture(answer: { status?: number; body?: unknown } = {}): Promise<{ url: string; bodies: string[] }> {
  const bodies: string[] = []
  const message = { role: 'assistant', content: '您好' }
  const whole = {
    id: 'x',
    object: 'chat.completion',
    created: 1,
    model: 'up',
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: { prompt_tokens: 120, completion_tokens: 5, total_tokens: 125 },
  }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      bodies.push(Buffer.concat(chunks).toString('utf8'))
      response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body ?? whole))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(() => void server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies }
}

function startWith(
  url: string,
  profile: object = {},
  options: GatewayOptions & { readonly base?: object; readonly own?: object } = {},
): Promise<TestGateway> {
  return startGateway({
    ...options,
    models: {
      base: chatModel([{ id: 'base-a', base_url: `${url}/a/v1`, upstream_model: 'up' }], { ...options.base }),
      'bank-helper': { domain: 'finance', aliases: ['helper'], profile: { of: 'base', system: SECRET, ...profile }, ...options.own },
      ...options.models,
    },
  })
}

const parsed = (body: string | undefined): { messages: unknown[]; [name: string]: unknown } =>
  JSON.parse(body ?? '') as { messages: unknown[] }

describe('the request that goes out', () => {
  it("has the operator's prompt first, then the caller's messages as they were, byte by byte", async () => {
    const upstream = await capture()
    const gateway = await startWith(upstream.url)
    const messages = '[ {"role":"system","content":"\\u4f60 is 12345678901234567890"} , {"role":"user","content":"hi","x":1.0,"x":2e400}]'
    const response = await gateway.post(
      '/v1/chat/completions',
      `{"seed":90071992547409931234,"model":"bank-helper","messages":${messages},"z":1e2}`,
    )
    expect(response.status).toBe(200)
    const inserted = `{"role":"system","content":${JSON.stringify(SECRET)}},`
    expect(upstream.bodies).toEqual([`{"seed":90071992547409931234,"model":"up","messages":[${inserted}${messages.slice(1)},"z":1e2}`])
  })

  it("has the profile's tools and numbers beside the caller's own, which win", async () => {
    const upstream = await capture()
    const gateway = await startWith(upstream.url, { tools: [TOOL], temperature: 0.3, top_p: 0.9 })
    const own = { type: 'function', function: { name: 'look_up', parameters: {} } }
    const same = { type: 'function', function: { name: 'rate_of', description: 'mine', parameters: {} } }
    for (const body of [{}, { tools: [own], temperature: 0 }, { tools: [same], top_p: null }, { tools: [] }]) {
      expect((await gateway.chat({ model: 'helper', messages: USER, ...body })).status).toBe(200)
    }
    const seen = upstream.bodies.map(parsed).map(({ tools, temperature, top_p }) => [tools, temperature, top_p])
    expect(seen).toEqual([
      [[TOOL], 0.3, 0.9],
      [[TOOL, own], 0, 0.9],
      [[same], 0.3, 0.9],
      [[TOOL], 0.3, 0.9],
    ])
  })

  it('is translated for a target of another protocol with the prompt in it', async () => {
    const upstream = await capture({
      body: {
        output: { choices: [{ message: { role: 'assistant', content: '您好' }, finish_reason: 'stop' }] },
        usage: { input_tokens: 9, output_tokens: 2 },
      },
    })
    const endpoint = { id: 'native', provider: 'qwen', dialect: 'qwen_native', base_url: upstream.url, api_key: 'sk-x' }
    const gateway = await startWith(upstream.url, {}, { models: { base: chatModel([endpoint]) } })
    expect((await gateway.chat({ model: 'bank-helper', messages: USER })).status).toBe(200)
    expect(JSON.parse(upstream.bodies[0] ?? '')).toMatchObject({ input: { messages: [{ role: 'system', content: SECRET }, ...USER] } })
  })
})

describe('the answer', () => {
  it.each([false, true])("bears the profile's name, and event and price are its own (stream %s)", async (stream) => {
    const gateway = await startGateway()
    const inner = await startWith(gateway.sandbox.url)
    const client = new OpenAI({ baseURL: `${inner.url}/v1`, apiKey: inner.key, maxRetries: 0 })
    const ask = { model: 'helper', messages: [{ role: 'user' as const, content: 'hello' }] }
    let [text, model, id] = ['', '', '']
    if (stream) {
      const { data, response } = await client.chat.completions.create({ ...ask, stream: true }).withResponse()
      for await (const chunk of data) {
        text += chunk.choices[0]?.delta.content ?? ''
        model = chunk.model
      }
      id = response.headers.get('x-request-id') ?? ''
      expect(response.headers.get('x-weir-model')).toBe('bank-helper')
    } else {
      const { data, response } = await client.chat.completions.create(ask).withResponse()
      ;[text, model, id] = [data.choices[0]?.message.content ?? '', data.model, response.headers.get('x-request-id') ?? '']
    }
    expect([text, model]).toEqual([expect.stringContaining('You said: "hello"') as unknown, 'helper'])
    const event = await inner.event(id)
    expect(event).toMatchObject({
      model: 'bank-helper',
      model_asked: 'helper',
      domain: 'finance',
      endpoint: 'base-a',
      price_version: 'sell:bank-helper@v1',
      status: 'completed',
    })
    const row = gateway.sandbox.served().served.find(({ request_id }) => request_id === id)
    expect(event?.tokens.input).toBe(row?.prompt_tokens)
    // The operator's prompt is a part of what was counted.
    expect(event?.tokens.input).toBeGreaterThan(25)
    expect(event?.amount_nano).toBe(BigInt(event?.tokens.input ?? 0) * INPUT_NANO + BigInt(event?.tokens.output ?? 0) * OUTPUT_NANO)
    expect(event?.overrun_nano).toBe(0n)
  })

  it('is held for with the prompt of the operator counted', async () => {
    const gateway = await startGateway()
    const held = async (system: string): Promise<bigint> => {
      const inner = await startWith(gateway.sandbox.url, { system })
      const response = await inner.chat({ model: 'bank-helper', messages: USER, max_tokens: 10 })
      return (await inner.event(response.headers.get('x-request-id')))?.hold.amount_nano ?? 0n
    }
    const long = '这是一段很长的提示词。'.repeat(500)
    expect((await held(long)) - (await held('短'))).toBeGreaterThan(500n * 5n * INPUT_NANO)
  })

  it("shows the operator's words nowhere: not in lists, errors, usage, headers or the log", async () => {
    const quoting = { error: { message: `invalid content: ${SECRET}`, type: 'invalid_request_error', code: 'invalid_parameter_error' } }
    const upstream = await capture({ status: 400, body: quoting })
    const gateway = await startWith(upstream.url)
    const seen: string[] = []
    const look = async (response: Response): Promise<number> => {
      seen.push(JSON.stringify([...response.headers]), await response.text())
      return response.status
    }
    const refused = await gateway.chat({ model: 'bank-helper', messages: USER })
    expect(await look(refused)).toBe(400)
    expect(await look(await gateway.chat({ model: 'bank-helper', messages: USER, stream: true }))).toBe(400)
    expect(await look(await gateway.get('/v1/models'))).toBe(200)
    expect(await look(await gateway.get('/v1/models/bank-helper'))).toBe(200)
    expect(await look(await gateway.get(`/v1/usage/${refused.headers.get('x-request-id')}`))).toBe(200)
    expect(await look(await gateway.get('/v1/usage'))).toBe(200)
    // Without a profile the provider's words reach the caller: there is nothing else in the request.
    expect(await (await gateway.chat({ model: 'base', messages: USER })).text()).toContain('黑曜石')
    for (const text of [...seen, ...gateway.log_lines]) expect(text).not.toMatch(/黑曜石|银行助理|tricks/)
  })

  it.each(['prompt_logprobs', 'echo', 'chat_template', 'return_token_ids'])('cannot be made to show it by %s', async (name) => {
    const upstream = await capture()
    const gateway = await startWith(upstream.url)
    const refused = await gateway.chat({ model: 'bank-helper', messages: USER, [name]: name === 'prompt_logprobs' ? 0 : 'x' })
    expect([refused.status, upstream.bodies]).toEqual([400, []])
    expect((await gateway.chat({ model: 'base', messages: USER, [name]: true })).status).toBe(200)
  })
})

it('a profile may be told whether to think, and nothing else of its template', async () => {
  const upstream = await capture()
  const gateway = await startWith(upstream.url)
  const asked = (chat_template_kwargs: object): Promise<Response> =>
    gateway.chat({ model: 'bank-helper', messages: USER, chat_template_kwargs })
  expect((await asked({ enable_thinking: false, chat_template: '{{messages[0].content}}' })).status).toBe(400)
  expect((await asked({ continue_final_message: true })).status).toBe(400)
  expect(upstream.bodies).toEqual([])
  expect((await asked({ enable_thinking: false })).status).toBe(200)
})

describe('a profile', () => {
  it("lives no longer than its model, is for no more tenants, and has its model's price where it has none", async () => {
    const upstream = await capture()
    const gateway = await startWith(
      upstream.url,
      {},
      { base: { tenants: ['bank', 'clinic'], retires_on: '2126-01-01' }, own: { tenants: ['bank', 'shop'] } },
    )
    const status = async (tenant: string): Promise<number> => {
      const { secret } = await gateway.account({ tenant: { id: tenant } })
      return (await gateway.chat({ model: 'bank-helper', messages: USER }, { authorization: `Bearer ${secret}` })).status
    }
    expect([await status('bank'), await status('clinic'), await status('shop')]).toEqual([200, 404, 404])
    const bank = await gateway.account({ tenant: { id: 'bank' } })
    const shown = (await (await gateway.get('/v1/models/bank-helper', bank.secret)).json()) as object
    expect(shown).toMatchObject({ id: 'bank-helper', domain: 'finance', owned_by: 'test', retires_on: '2126-01-01', profile_of: 'base' })
  })

  it('has its prompt read again when the file has changed', async () => {
    const upstream = await capture()
    const gateway = await startWith(upstream.url)
    mkdirSync(join(gateway.config_dir, 'profiles'))
    const write = (prompt: string): void => writeFileSync(join(gateway.config_dir, 'profiles', 'bank.md'), prompt)
    write('first')
    const catalogue = join(gateway.config_dir, 'catalogue.yaml')
    writeFileSync(
      catalogue,
      JSON.stringify({
        models: {
          ...{ solo: chatModel([{}]), pair: chatModel([{ id: 'pair-a' }, { id: 'pair-b' }]), embed: chatModel([{ id: 'embed-a' }]) },
          base: chatModel([{ id: 'base-a', base_url: `${upstream.url}/a/v1` }]),
          'bank-helper': { profile: { of: 'base', system: { file: 'profiles/bank.md' } } },
        },
      }),
    )
    gateway.reload()
    await gateway.chat({ model: 'bank-helper', messages: USER })
    const before = gateway.plane.snapshot().configuration.digest
    write('second')
    gateway.reload()
    await gateway.chat({ model: 'bank-helper', messages: USER })
    expect(upstream.bodies.map((body) => parsed(body).messages[0])).toEqual([
      { role: 'system', content: 'first' },
      { role: 'system', content: 'second' },
    ])
    expect(gateway.plane.snapshot().configuration.digest).not.toBe(before)
  })
})
