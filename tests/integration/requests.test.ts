import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { atEnd } from '../support/cleanup.ts'
import { HELLO, INPUT_NANO, OUTPUT_NANO, startGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'

interface Completion {
  readonly model: string
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number }
}

it('a whole answer is billed for exactly what the upstream counted and reported', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({ max_tokens: 50 })
  expect(response.status).toBe(200)
  const { usage, model } = (await response.json()) as Completion
  const event = await gateway.event(response.headers.get('x-request-id'))
  const [served] = gateway.sandbox.served().served
  expect(model).toBe('solo')
  expect(usage).toMatchObject({ prompt_tokens: served?.prompt_tokens, completion_tokens: served?.sent_tokens })
  expect(event).toMatchObject({
    status: 'completed',
    usage_source: 'reported',
    model: 'solo',
    endpoint: 'solo-a',
    finish_reason: 'stop',
    code: null,
  })
  expect(event?.amount_nano).toBe(BigInt(usage.prompt_tokens) * INPUT_NANO + BigInt(usage.completion_tokens) * OUTPUT_NANO)
  expect(served?.request_id).toBe(event?.id)
  expect(await gateway.audit()).toEqual({ events: 1, amount_nano: event?.amount_nano })
})

it('a streamed answer is whole, ends with one [DONE] and is billed the same', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({ stream: true })
  const stream = await sseOf(response)
  const event = await gateway.event(response.headers.get('x-request-id'))
  const [served] = gateway.sandbox.served().served
  expect(response.headers.get('content-type')).toContain('text/event-stream')
  expect(stream).toMatchObject({ done_count: 1, error: null })
  expect(stream.text.endsWith('data: [DONE]\n\n')).toBe(true)
  expect(stream.content).toContain('You said: "hello"')
  expect(event).toMatchObject({ status: 'completed', usage_source: 'reported', stream: true })
  expect(event?.tokens).toMatchObject({ input: served?.prompt_tokens, output: served?.sent_tokens })
  expect((await gateway.audit()).events).toBe(1)
})

it('usage is in the stream if and only if it was asked for', async () => {
  const gateway = await startGateway()
  const without = await sseOf(await gateway.chat({ stream: true }))
  const asked = await sseOf(await gateway.chat({ stream: true, stream_options: { include_usage: true } }))
  expect(without.text).not.toContain('"usage"')
  expect(asked.events.filter((event) => event.usage)).toHaveLength(1)
  expect(asked.events.at(-1)?.usage).toMatchObject({ completion_tokens: gateway.sandbox.served().served[1]?.sent_tokens })
  await gateway.audit()
})

it.each([false, true])('the model in the answer is the one that was asked for, through an alias too (stream %s)', async (stream) => {
  const gateway = await startGateway()
  for (const model of ['fast', 'solo']) {
    const response = await gateway.chat({ model, stream })
    const text = await response.text()
    expect(text).not.toContain('up-solo')
    expect(text.match(/"model":"([^"]*)"/)?.[1]).toBe(model)
    expect(response.headers.get('x-weir-model')).toBe('solo')
  }
  expect(gateway.sandbox.served().served.map(({ model }) => model)).toEqual(['up-solo', 'up-solo'])
})

/** An upstream that keeps what it is sent. */
async function recordingUpstream(): Promise<{ url: string; bodies: Buffer[]; headers: Array<Record<string, unknown>> }> {
  const bodies: Buffer[] = []
  const headers: Array<Record<string, unknown>> = []
  const answer = JSON.stringify({
    id: 'x',
    object: 'chat.completion',
    model: 'up-solo',
    choices: [{ index: 0, message: { role: 'assistant', content: 'ok' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 5, completion_tokens: 1, total_tokens: 6 },
  })
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    headers.push(request.headers)
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      bodies.push(Buffer.concat(chunks))
      response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies, headers }
}

it('what the gateway does not own in a body reaches the upstream byte for byte', async () => {
  const upstream = await recordingUpstream()
  const gateway = await startGateway({ upstream: upstream.url })
  const tail = String.raw`, "messages" : [{"role":"user","content":"h\u00e9\/ 你"}],"big":9007199254740993,"price":1.50,"twice":1,"twice":2, "x":{ "e":1E3}}`
  const response = await gateway.post('/v1/chat/completions', `{ "model":"fast"${tail}`)
  expect(response.status).toBe(200)
  expect(upstream.bodies[0]?.toString()).toBe(`{ "model":"up-solo"${tail}`)
})

it('the upstream never sees the caller’s key, and is asked for an answer without compression', async () => {
  const upstream = await recordingUpstream()
  const gateway = await startGateway({ upstream: upstream.url })
  await gateway.chat({}, { cookie: 'a=b', 'x-forwarded-for': '10.0.0.1' })
  const seen = JSON.stringify(upstream.headers[0])
  expect(seen).not.toContain(gateway.key)
  expect(seen).not.toContain('a=b')
  expect(upstream.headers[0]).toMatchObject({ 'accept-encoding': 'identity', 'x-weir-attempt': '1' })
})

it('a body of 5 MB passes whole', async () => {
  const upstream = await recordingUpstream()
  const gateway = await startGateway({ upstream: upstream.url })
  const content = '堰'.repeat(1_700_000)
  const response = await gateway.chat({ messages: [{ role: 'user', content }], max_tokens: 10 })
  expect(response.status).toBe(200)
  expect(JSON.parse(upstream.bodies[0]?.toString() ?? '').messages[0].content).toBe(content)
  await gateway.audit()
})

it('several choices are all delivered and all billed', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({ n: 3, stream: true })
  const stream = await sseOf(response)
  const event = await gateway.event(response.headers.get('x-request-id'))
  const finished = stream.events.flatMap(({ choices }) => choices ?? []).filter((choice) => choice.finish_reason)
  expect(finished).toHaveLength(3)
  expect(event?.tokens.output).toBe(gateway.sandbox.served().served[0]?.sent_tokens)
  await gateway.audit()
})

it('embeddings are answered and billed by their input alone', async () => {
  const gateway = await startGateway()
  const response = await gateway.post('/v1/embeddings', { model: 'embed', input: ['one', 'two'] })
  const body = (await response.json()) as { data: unknown[]; model: string }
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(body.data).toHaveLength(2)
  expect(event).toMatchObject({
    protocol: 'embeddings',
    status: 'completed',
    tokens: { output: 0, input: gateway.sandbox.served().served[0]?.prompt_tokens },
  })
  await gateway.audit()
})

it.each([
  ['/v1/embeddings', { model: 'solo', input: 'x' }],
  ['/v1/chat/completions', { model: 'embed', messages: HELLO }],
])('a model of the other kind is refused at %s before anything is held', async (path, body) => {
  const gateway = await startGateway()
  const response = await gateway.post(path, body)
  expect([response.status, (await errorOf(response)).code]).toEqual([400, 'invalid_request'])
  expect(gateway.sandbox.served().totals.requests).toBe(0)
  expect((await gateway.audit()).events).toBe(0)
})

it('tags and the end user are on the event, the user as a keyed hash only', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({ user: 'alice@example.cn' }, { 'x-weir-tags': 'team=search, env=test' })
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event?.tags).toEqual({ team: 'search', env: 'test' })
  expect(event?.end_user).toMatch(/^[0-9a-f]{32}$/)
  expect(gateway.log_lines.join('')).not.toContain('alice')
  expect(gateway.log_lines.join('')).not.toContain(gateway.key)
})

it.each(['openai', 'deepseek', 'qwen', 'moonshot', 'minimax', 'stepfun', 'baichuan', 'vllm'])(
  'the layout of %s is metered exactly, thinking and cached tokens included',
  async (layout) => {
    const gateway = await startGateway()
    const directives = { layout, reasoning_tokens: 9, tokens: 30, cached_tokens: 3, extra_fields: true }
    const response = await gateway.chat({ stream: true, sandbox: directives })
    const stream = await sseOf(response)
    const event = await gateway.event(response.headers.get('x-request-id'))
    const [served] = gateway.sandbox.served().served
    expect(stream).toMatchObject({ done_count: 1, error: null })
    expect(stream.text).not.toContain('up-solo')
    expect(event).toMatchObject({ status: 'completed', usage_source: 'reported' })
    const { input = 0, cached_input = 0, output = 0 } = event?.tokens ?? {}
    expect([input + cached_input, output]).toEqual([served?.prompt_tokens, served?.sent_tokens])
    await gateway.audit()
  },
)

it.each([true, false])(
  'usage that the upstream does not report is estimated, and told when it was asked for (asked %s)',
  async (include_usage) => {
    const gateway = await startGateway()
    const response = await gateway.chat({ stream: true, stream_options: { include_usage }, sandbox: { shape: 'absent', tokens: 30 } })
    const stream = await sseOf(response)
    const event = await gateway.event(response.headers.get('x-request-id'))
    expect(event).toMatchObject({ status: 'completed', usage_source: 'estimated', tokens: { output: 30 } })
    expect(stream.events.filter(({ usage }) => usage).map(({ usage }) => usage?.completion_tokens)).toEqual(include_usage ? [30] : [])
    await gateway.audit()
  },
)

it('a model given with an escaped name is the one that was checked', async () => {
  const upstream = await recordingUpstream()
  const gateway = await startGateway({ upstream: upstream.url })
  const response = await gateway.post(
    '/v1/chat/completions',
    String.raw`{"\u006dodel":"pair","messages":${JSON.stringify(HELLO)},"max_tokens":5}`,
  )
  expect(response.headers.get('x-weir-model')).toBe('pair')
  const names = [...(upstream.bodies[0]?.toString() ?? '').matchAll(/odel"\s*:\s*"([^"]*)"/g)].map(([, name]) => name)
  expect(new Set(names)).toEqual(new Set(['up-pair']))
})
