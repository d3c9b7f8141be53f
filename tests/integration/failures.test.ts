import { expect, it } from 'vitest'
import { OUTPUT_NANO, INPUT_NANO, startGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'

const TIMEOUTS = { headers_timeout_ms: 600, first_event_timeout_ms: 900, silence_timeout_ms: 500 }

interface Case {
  readonly fail: Readonly<Record<string, unknown>>
  readonly status: number
  readonly code: string
  /** The upstream may have worked for us, so an event must exist. */
  readonly reached: boolean
}

const refuse = (status: number, more: object = {}): Case['fail'] => ({ kind: 'refuse', status, ...more })
const BEFORE_EITHER: readonly Case[] = [
  { fail: refuse(500), status: 502, code: 'upstream_error', reached: false },
  { fail: refuse(503), status: 502, code: 'upstream_error', reached: false },
  { fail: refuse(401), status: 502, code: 'upstream_error', reached: false },
  { fail: refuse(402), status: 502, code: 'upstream_error', reached: false },
  { fail: refuse(404), status: 502, code: 'upstream_error', reached: false },
  { fail: { kind: 'rate', retry_after: 7 }, status: 502, code: 'upstream_error', reached: false },
  { fail: refuse(400), status: 400, code: 'invalid_request', reached: false },
  { fail: refuse(400, { code: 'content_filter' }), status: 400, code: 'content_filtered', reached: false },
  { fail: refuse(400, { code: 'context_length_exceeded' }), status: 400, code: 'context_length_exceeded', reached: false },
  { fail: { kind: 'cut_before_headers' }, status: 502, code: 'upstream_error', reached: true },
  { fail: { kind: 'stall_before_headers' }, status: 504, code: 'upstream_timeout', reached: true },
  { fail: { kind: 'stall_before_first' }, status: 504, code: 'upstream_timeout', reached: true },
  { fail: { kind: 'slow_headers', delay_ms: 5000 }, status: 504, code: 'upstream_timeout', reached: true },
  { fail: { kind: 'error_in_200', status: 500 }, status: 502, code: 'upstream_error', reached: true },
  { fail: { kind: 'html_page' }, status: 502, code: 'upstream_error', reached: true },
  { fail: { kind: 'cut_middle', at: 0 }, status: 502, code: 'upstream_error', reached: true },
  { fail: { kind: 'end_middle', at: 0 }, status: 502, code: 'upstream_error', reached: true },
  { fail: { kind: 'malformed_json', at: 0 }, status: 502, code: 'upstream_error', reached: true },
]
const CASES = [
  ...BEFORE_EITHER.flatMap((one) => [
    { ...one, stream: true },
    { ...one, stream: false },
  ]),
  { fail: { kind: 'bad_whole' }, status: 502, code: 'upstream_error', reached: true, stream: false },
  { fail: { kind: 'stall_middle' }, status: 504, code: 'upstream_timeout', reached: true, stream: false },
  { fail: { kind: 'error_event', at: 0, status: 500 }, status: 502, code: 'upstream_error', reached: true, stream: true },
  { fail: { kind: 'error_event', at: 0, status: 500, done: true }, status: 502, code: 'upstream_error', reached: true, stream: true },
].map((one) => ({ ...one, name: `${JSON.stringify(one.fail)}${one.stream ? ' streamed' : ''}` }))

it.each(CASES)('$name before the first event is $status $code and costs nothing', async ({ fail, status, code, reached, stream }) => {
  const gateway = await startGateway({ timeouts: TIMEOUTS })
  const response = await gateway.chat({ stream, sandbox: { fail } })
  const error = await errorOf(response)
  const id = response.headers.get('x-request-id')
  expect([response.status, error.code, error.request_id]).toEqual([status, code, id])
  expect(response.headers.get('content-type')).toContain('application/json')
  const event = await gateway.event(id)
  expect(await gateway.audit()).toEqual({ events: reached ? 1 : 0, amount_nano: 0n })
  if (reached) expect(event).toMatchObject({ status: 'failed', code, amount_nano: 0n, tokens: { input: 0, output: 0 } })
})

const RETRIED = CASES.filter(({ status }) => status >= 500)

it.each(RETRIED)('$name at one target is answered by the next and billed once', async ({ fail, stream }) => {
  const gateway = await startGateway({ timeouts: TIMEOUTS })
  const response = await gateway.chat({ model: 'pair', stream, sandbox: { fail: { ...fail, only_prefix: 'a' } } })
  const text = await response.text()
  expect(response.status).toBe(200)
  expect(text).toContain('pair')
  const id = response.headers.get('x-request-id')
  const event = await gateway.event(id)
  const served = gateway.sandbox.served().served
  expect(event).toMatchObject({ status: 'completed', endpoint: 'pair-b', usage_source: 'reported' })
  expect(event?.attempts.map(({ endpoint }) => endpoint)).toEqual(['pair-a', 'pair-b'])
  expect(event?.attempts[1]?.outcome).toBe('answered')
  expect(served.map(({ request_id, attempt }) => [request_id, attempt])).toEqual([
    [id, 1],
    [id, 2],
  ])
  expect(event?.tokens.output).toBe(served[1]?.sent_tokens)
  const amount_nano = BigInt(event?.tokens.input ?? 0) * INPUT_NANO + BigInt(event?.tokens.output ?? 0) * OUTPUT_NANO
  expect(await gateway.audit()).toEqual({ events: 1, amount_nano })
})

it.each(CASES.filter(({ status }) => status < 500))('$name is not tried at another target', async ({ fail, status, stream }) => {
  const gateway = await startGateway()
  const response = await gateway.chat({ model: 'pair', stream, sandbox: { fail: { ...fail, only_prefix: 'a' } } })
  expect(response.status).toBe(status)
  expect(response.headers.get('x-should-retry')).toBe('false')
  expect(gateway.sandbox.served().totals.requests).toBe(1)
  expect((await gateway.audit()).events).toBe(0)
})

it('a target that nobody listens at is passed over, without an event when it was the only one', async () => {
  const closed = 'http://127.0.0.1:1/v1'
  const endpoint = { id: 'gone', provider: 'sandbox', base_url: closed, tier: 1 }
  const gateway = await startGateway({ models: { solo: { endpoints: [endpoint] } } })
  const response = await gateway.chat({})
  expect([response.status, (await errorOf(response)).code]).toEqual([502, 'upstream_error'])
  expect((await gateway.audit()).events).toBe(0)
})

it.each([
  { kind: 'cut_middle', code: 'upstream_error' },
  { kind: 'end_middle', code: 'upstream_error' },
  { kind: 'stall_middle', code: 'upstream_timeout' },
  { kind: 'malformed_json', code: 'upstream_error' },
  { kind: 'error_event', code: 'upstream_error', status: 500 },
  { kind: 'error_event', code: 'upstream_error', status: 500, done: true },
])('$kind in the middle of a stream is an error event, never a clean end, and bills what was delivered', async ({ code, ...fail }) => {
  const gateway = await startGateway({ timeouts: TIMEOUTS })
  const response = await gateway.chat({ model: 'pair', stream: true, sandbox: { fail: { ...fail, at: 8 } } })
  const stream = await sseOf(response)
  const event = await gateway.event(response.headers.get('x-request-id'))
  const [served] = gateway.sandbox.served().served
  expect(stream).toMatchObject({ done_count: 0, error: { code } })
  expect(stream.content.length).toBeGreaterThan(0)
  expect(stream.events.at(-1)?.error?.code).toBe(code)
  expect(event).toMatchObject({ status: 'truncated', code, usage_source: 'estimated' })
  expect(event?.attempts).toHaveLength(1)
  expect(event?.tokens.input).toBe(served?.prompt_tokens)
  expect(event?.tokens.output).toBeGreaterThan(0)
  expect(event?.tokens.output).toBeLessThanOrEqual(served?.sent_tokens ?? 0)
  expect((await gateway.audit()).events).toBe(1)
})

const chunk = (delta: object, finish_reason: string | null): string =>
  `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', created: 1, model: 'up-solo', choices: [{ index: 0, delta, finish_reason }] })}\n\n`

it.each([
  ['[DONE]', `${chunk({ role: 'assistant', content: 'a b c' }, null)}data: [DONE]\n\n`],
  ['the end of the connection', chunk({ role: 'assistant', content: 'a b c' }, null)],
])('%s without a finish reason is not a clean end', async (_, raw) => {
  const gateway = await startGateway()
  const response = await gateway.chat({ stream: true, sandbox: { raw: Buffer.from(raw).toString('base64') } })
  const stream = await sseOf(response)
  expect(stream).toMatchObject({ done_count: 0, content: 'a b c', error: { code: 'upstream_error' } })
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'truncated' })
  await gateway.audit()
})

it('a finish reason without [DONE] is a clean end: the terminator is the gateway’s own', async () => {
  const gateway = await startGateway()
  const raw = chunk({ role: 'assistant', content: 'a b c' }, null) + chunk({}, 'stop')
  const response = await gateway.chat({ stream: true, sandbox: { raw: Buffer.from(raw).toString('base64') } })
  const stream = await sseOf(response)
  expect(stream).toMatchObject({ done_count: 1, content: 'a b c', error: null })
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'completed', usage_source: 'estimated' })
  await gateway.audit()
})

it('what an upstream says about us is not shown to the caller, what it says about the request is', async () => {
  const gateway = await startGateway()
  const about_us = await gateway.chat({ sandbox: { fail: refuse(401, { message: 'Incorrect API key provided: sk-upstream-secret' }) } })
  expect(await about_us.text()).not.toContain('sk-upstream')
  const other = await startGateway()
  const about_it = await other.chat({ sandbox: { fail: refuse(400, { message: 'temperature must be below 2' }) } })
  expect(await about_it.text()).toContain('temperature must be below 2')
})
