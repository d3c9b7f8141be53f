import OpenAI, {
  APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from 'openai'
import type { ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionTool } from 'openai/resources/chat/completions'
import { describe, expect, it } from 'vitest'
import { startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'
import { waitFor } from '../support/wait.ts'

const HELLO: ChatCompletionMessageParam[] = [{ role: 'user', content: 'hello' }]
const SOON_MS = 20_000

function clientOf(gateway: TestGateway, options: { apiKey?: string; maxRetries?: number } = {}): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0, ...options })
}

async function start(options: GatewayOptions = {}): Promise<{ gateway: TestGateway; client: OpenAI }> {
  const gateway = await startGateway(options)
  return { gateway, client: clientOf(gateway) }
}

/** The error that a call ends with. */
async function failure(call: Promise<unknown>): Promise<APIError> {
  const error: unknown = await call.then(
    () => null,
    (reason: unknown) => reason,
  )
  if (!(error instanceof APIError)) throw new Error('the call did not end with an APIError', { cause: error })
  return error
}

async function refusals(gateway: TestGateway, code: string): Promise<number> {
  const line = new RegExp(`^weir_refusals_total\\{code="${code}"\\} (\\d+)$`, 'm').exec(await gateway.plane.metrics.render())
  return Number(line?.[1] ?? 0)
}

async function chunksOf(stream: AsyncIterable<ChatCompletionChunk>): Promise<ChatCompletionChunk[]> {
  const chunks: ChatCompletionChunk[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

const textOf = (chunks: readonly ChatCompletionChunk[]): string => chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')

/** The SDK keeps the id under a name that begins with an underscore. */
const requestIdOf = ({ ['_request_id']: id }: { readonly _request_id?: string | null }): string | null => id ?? null

/** Members that the SDK's types do not know. */
const sandbox = (directives: object): object => ({ sandbox: directives })

describe('what works', () => {
  it('lists the callable models, a chat model first, and finds each by its name and alias', async () => {
    const { client } = await start()
    const ids: string[] = []
    for await (const model of client.models.list()) ids.push(model.id)
    expect(ids).toEqual(['solo', 'pair', 'embed'])
    expect(await client.models.retrieve('pair')).toMatchObject({ id: 'pair', object: 'model', owned_by: 'test' })
    expect(await client.models.retrieve('fast')).toMatchObject({ id: 'fast' })
    expect(await failure(client.models.retrieve('none'))).toBeInstanceOf(NotFoundError)
  })

  it('answers a chat; the request id of the SDK is the one of the event', async () => {
    const { gateway, client } = await start()
    const answer = await client.chat.completions.create({ model: 'fast', messages: HELLO })
    expect(answer.choices[0]?.message.content).toContain('You said: "hello"')
    expect(answer.model).toBe('fast')
    const event = await gateway.event(requestIdOf(answer))
    expect(event).toMatchObject({ status: 'completed', model_asked: 'fast' })
    expect(event?.tokens).toMatchObject({ input: answer.usage?.prompt_tokens, output: answer.usage?.completion_tokens })
  })

  it.each([true, false])('streams a chat (include_usage %s)', async (include_usage) => {
    const { gateway, client } = await start()
    const stream = await client.chat.completions.create({ model: 'solo', messages: HELLO, stream: true, stream_options: { include_usage } })
    const chunks = await chunksOf(stream)
    const usage = chunks.map((chunk) => chunk.usage).filter((found) => found)
    expect(textOf(chunks)).toContain('You said: "hello"')
    expect(chunks.every(({ model }) => model === 'solo')).toBe(true)
    expect(usage).toHaveLength(include_usage ? 1 : 0)
    if (include_usage) expect(usage[0]?.completion_tokens).toBe(gateway.sandbox.served().served[0]?.sent_tokens)
    await gateway.audit()
  })

  it('streams in the SDK’s own helper, which puts the message together', async () => {
    const { client } = await start()
    const final = await client.chat.completions.stream({ model: 'solo', messages: HELLO }).finalChatCompletion()
    expect(final.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: expect.stringContaining('hello') } })
  })

  const WEATHER: ChatCompletionTool = {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'weather',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  }

  it.each([true, false])('calls a tool and answers with its result (stream %s)', async (stream) => {
    const { gateway, client } = await start()
    const messages: ChatCompletionMessageParam[] = [{ role: 'user', content: 'What is the weather in Hangzhou?' }]
    const request = { model: 'solo', messages, tools: [WEATHER] }
    const first = stream
      ? await client.chat.completions.stream(request).finalChatCompletion()
      : await client.chat.completions.create(request)
    const message = first.choices[0]?.message
    const call = message?.tool_calls?.[0]
    if (message === undefined || call?.type !== 'function') throw new Error('no tool was called')
    expect(first.choices[0]?.finish_reason).toBe('tool_calls')
    expect(JSON.parse(call.function.arguments)).toEqual({ city: 'Hangzhou' })
    const result: ChatCompletionMessageParam = { role: 'tool', tool_call_id: call.id, content: '{"celsius":21}' }
    const second = await client.chat.completions.create({ ...request, messages: [...messages, message, result] })
    expect(second.choices[0]?.message.content).toContain('{"celsius":21}')
    expect((await gateway.audit()).events).toBe(2)
  })

  it.each(['float', 'base64'] as const)('makes embeddings (%s)', async (encoding_format) => {
    const { client } = await start()
    const one = await client.embeddings.create({ model: 'embed', input: ['water', '水'], dimensions: 64, encoding_format })
    const other = await client.embeddings.create({ model: 'embed', input: 'water', dimensions: 64 })
    const vector = one.data[0]?.embedding as unknown as number[] | string
    const numbers = typeof vector === 'string' ? [...new Float32Array(new Uint8Array(Buffer.from(vector, 'base64')).buffer)] : vector
    expect(one.data).toHaveLength(2)
    expect(numbers).toHaveLength(64)
    expect(numbers.map(Math.fround)).toEqual(other.data[0]?.embedding.map(Math.fround))
    expect(one.usage.prompt_tokens).toBeGreaterThan(0)
  })

  it('answers in JSON when asked to', async () => {
    const { client } = await start()
    const answer = await client.chat.completions.create({ model: 'solo', messages: HELLO, response_format: { type: 'json_object' } })
    expect(JSON.parse(answer.choices[0]?.message.content ?? '')).toMatchObject({ answer: expect.any(String) })
  })
})

describe('what is refused', () => {
  it('a key that is wrong, expired or revoked is an AuthenticationError with its code', async () => {
    const { gateway } = await start()
    const expired = await gateway.account({ key: { expires_at: 1 } })
    const revoked = await gateway.account()
    await gateway.revoke(revoked.key)
    const keys = { invalid_api_key: 'sk-weir-wrong', key_expired: expired.secret, key_revoked: revoked.secret }
    for (const [code, apiKey] of Object.entries(keys)) {
      const error = await failure(clientOf(gateway, { apiKey, maxRetries: 3 }).models.list())
      expect(error).toBeInstanceOf(AuthenticationError)
      expect([error.code, error.requestID !== null]).toEqual([code, true])
      expect(await refusals(gateway, code)).toBe(1)
    }
    const without = await failure(
      new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'x', defaultHeaders: { authorization: null } }).models.list(),
    )
    expect([without.status, without.code]).toEqual([401, 'invalid_api_key'])
  })

  it('an unknown model, a forbidden model and a bad request are told apart, and none is tried again', async () => {
    const { gateway } = await start()
    const limited = await gateway.account({ key: { models: ['pair'] } })
    const client = clientOf(gateway, { maxRetries: 3 })
    const none = await failure(client.chat.completions.create({ model: 'none', messages: HELLO }))
    const forbidden = await failure(
      clientOf(gateway, { apiKey: limited.secret, maxRetries: 3 }).chat.completions.create({ model: 'solo', messages: HELLO }),
    )
    const bad = await failure(client.chat.completions.create({ model: 'solo', messages: HELLO, max_tokens: 0 }))
    expect([none.constructor, none.code]).toEqual([NotFoundError, 'model_not_found'])
    expect([forbidden.constructor, forbidden.code]).toEqual([PermissionDeniedError, 'model_not_allowed'])
    expect([bad.constructor, bad.code, bad.param]).toEqual([BadRequestError, 'invalid_request', 'max_tokens'])
    for (const code of ['model_not_found', 'model_not_allowed', 'invalid_request']) expect(await refusals(gateway, code)).toBe(1)
    expect((await gateway.audit()).events).toBe(0)
  })

  it('a tenant that serves the public is refused a model without a filing', async () => {
    const { client } = await start({ tenant: { audience: 'public' } })
    const error = await failure(client.chat.completions.create({ model: 'solo', messages: HELLO }))
    expect([error.constructor, error.code]).toEqual([PermissionDeniedError, 'filing_required'])
  })

  it('an empty wallet is 402 and is asked about once only', async () => {
    const { gateway } = await start({ wallet_cny: '0' })
    const error = await failure(clientOf(gateway, { maxRetries: 3 }).chat.completions.create({ model: 'solo', messages: HELLO }))
    expect([error.status, error.code]).toEqual([402, 'insufficient_balance'])
    expect(await refusals(gateway, 'insufficient_balance')).toBe(1)
  })

  it('a body beyond the limit is 413 and is sent once only', async () => {
    const { gateway } = await start({ settings: { limits: { max_body_bytes: 100_000 } } })
    const messages: ChatCompletionMessageParam[] = [{ role: 'user', content: 'x'.repeat(3_000_000) }]
    const error = await failure(clientOf(gateway, { maxRetries: 3 }).chat.completions.create({ model: 'solo', messages }))
    expect([error.status, error.code]).toEqual([413, 'request_too_large'])
    expect(await refusals(gateway, 'request_too_large')).toBe(1)
  })

  it('a rate limit is a RateLimitError; with retries the SDK waits as it is told and succeeds', async () => {
    const rpm = { kind: 'requests_per_minute', limit: '40', model: null, window: null } as const
    const { gateway, client } = await start({ limits: [rpm] })
    const ask = (asker: OpenAI): Promise<unknown> => asker.chat.completions.create({ model: 'solo', messages: HELLO, max_tokens: 1 })
    const patient = clientOf(gateway, { maxRetries: 8 })
    await Promise.all(Array.from({ length: 43 }, () => ask(patient)))
    expect(await refusals(gateway, 'rate_limit_exceeded')).toBeGreaterThan(0)
    let refused: unknown = null
    for (let tries = 0; tries < 100 && refused === null; tries += 1) {
      refused = await ask(client).then(
        () => null,
        (reason: unknown) => reason,
      )
    }
    expect(refused).toBeInstanceOf(RateLimitError)
    expect(refused).toMatchObject({ code: 'rate_limit_exceeded', status: 429 })
    await gateway.audit()
  })

  it('too many at once is a RateLimitError', async () => {
    const { gateway, client } = await start({ limits: [{ kind: 'concurrency', limit: '1', model: null, window: null }] })
    const slow = client.chat.completions.create({ model: 'solo', messages: HELLO, ...sandbox({ first_token_delay_ms: 1500 }) })
    await waitFor(() => gateway.sandbox.served().totals.requests === 1, { timeout_ms: SOON_MS, what: 'the first request' })
    const error = await failure(client.chat.completions.create({ model: 'solo', messages: HELLO }))
    expect([error.constructor, error.code]).toEqual([RateLimitError, 'concurrency_exceeded'])
    await slow
    await gateway.audit()
  })

  it('a plan that is used up is a RateLimitError that is not tried again', async () => {
    const { gateway } = await start({ limits: [{ kind: 'requests_window', limit: '1', model: null, window: 'month' }] })
    const client = clientOf(gateway, { maxRetries: 3 })
    await client.chat.completions.create({ model: 'solo', messages: HELLO })
    const error = await failure(client.chat.completions.create({ model: 'solo', messages: HELLO }))
    expect([error.constructor, error.code]).toEqual([RateLimitError, 'quota_exhausted'])
    expect(await refusals(gateway, 'quota_exhausted')).toBe(1)
  })
})

describe('what fails on the way', () => {
  it('an upstream that asks for a pause: 503 with retry-after, which the SDK keeps and then succeeds', async () => {
    const { gateway, client } = await start()
    const fail = { kind: 'rate', retry_after: 1 }
    const first = await failure(client.chat.completions.create({ model: 'solo', messages: HELLO, ...sandbox({ fail }) }))
    expect([first.constructor, first.status, first.code]).toEqual([InternalServerError, 502, 'upstream_error'])
    await expect(clientOf(gateway, { maxRetries: 2 }).chat.completions.create({ model: 'solo', messages: HELLO })).resolves.toBeDefined()
    expect(await refusals(gateway, 'no_upstream_available')).toBe(1)
    expect(gateway.sandbox.served().totals.requests).toBe(2)
    await gateway.audit()
  })

  it('a stream that breaks in the middle throws; it does not look complete', async () => {
    const { gateway, client } = await start()
    const stream = await client.chat.completions.create({
      model: 'solo',
      messages: HELLO,
      stream: true,
      ...sandbox({ fail: { kind: 'cut_middle', at: 5 } }),
    })
    const error = await failure(chunksOf(stream))
    expect(error.code).toBe('upstream_error')
    expect((await gateway.audit()).events).toBe(1)
  })

  it('a stream that the client aborts is stopped upstream, recorded once and billed for no more than was sent', async () => {
    const { gateway, client } = await start()
    const request = { model: 'solo', messages: HELLO, stream: true as const, ...sandbox({ tokens: 5000, token_delay_ms: 5 }) }
    const stream = await client.chat.completions.create(request)
    let seen = 0
    for await (const _ of stream) {
      seen += 1
      if (seen === 10) stream.controller.abort()
    }
    await waitFor(() => gateway.sandbox.served().totals.aborted === 1, { timeout_ms: SOON_MS, what: 'the upstream to be stopped' })
    expect((await gateway.audit()).events).toBe(1)
    const [served] = gateway.sandbox.served().served
    const event = await gateway.event(served?.request_id ?? null)
    expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request', usage_source: 'estimated' })
    expect(event?.tokens.output).toBeGreaterThan(0)
    expect(event?.tokens.output).toBeLessThanOrEqual(served?.sent_tokens ?? 0)
  })
})
