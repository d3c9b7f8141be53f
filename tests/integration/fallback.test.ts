import { expect, it } from 'vitest'
import { BREAKER_RULES } from '../../src/upstream/breaker.ts'
import { startGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'

const KEEPALIVE = ': keepalive\n\n'
const SOON = { limits: { keepalive_after_ms: 100 } }

it('a client that hears nothing gets keep-alive comments, then the whole answer', async () => {
  const gateway = await startGateway({ settings: SOON })
  const response = await gateway.chat({ stream: true, sandbox: { first_token_delay_ms: 2600 } })
  const stream = await sseOf(response)
  expect(stream.text.startsWith(KEEPALIVE)).toBe(true)
  expect(stream).toMatchObject({ done_count: 1, error: null })
  expect(response.headers.get('x-weir-model')).toBe('solo')
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'completed' })
  await gateway.audit()
})

it('a failure after a keep-alive is an error event, for the status has gone out', async () => {
  const gateway = await startGateway({ settings: SOON })
  const response = await gateway.chat({ stream: true, sandbox: { fail: { kind: 'slow_headers', delay_ms: 2600 } } })
  const late = gateway.chat({ stream: true, sandbox: { fail: { kind: 'stall_before_first', stall_ms: 2600 } } })
  expect((await sseOf(response)).done_count).toBe(1)
  const stream = await sseOf(await late)
  expect(stream.text.startsWith(KEEPALIVE)).toBe(true)
  expect(stream).toMatchObject({ done_count: 0, error: { code: 'upstream_error' } })
  expect((await gateway.audit()).events).toBe(2)
})

it('another target of the same filing may still answer after a keep-alive', async () => {
  const gateway = await startGateway({ settings: SOON })
  const response = await gateway.chat({
    model: 'pair',
    stream: true,
    sandbox: { fail: { kind: 'stall_before_first', stall_ms: 2600, only_prefix: 'a' } },
  })
  const stream = await sseOf(response)
  expect(stream.text.startsWith(KEEPALIVE)).toBe(true)
  expect(stream).toMatchObject({ done_count: 1, error: null })
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'completed', endpoint: 'pair-b' })
  await gateway.audit()
})

it('a target of another filing may not answer under headers that are out', async () => {
  const gateway = await startGateway({ settings: SOON })
  const { endpoints } = { endpoints: gateway.plane.snapshot().configuration.catalogue.models.get('pair')?.endpoints ?? [] }
  const [a, b] = endpoints.map(({ id, base_url, tier }) => ({ id, provider: 'sandbox', base_url, tier }))
  const filing = { number: 'Beijing-Test-202404280016', evidence: 'test' }
  const other = await startGateway({ settings: SOON, models: { pair: { endpoints: [a, { ...b, filing }] } } })
  const stream = await sseOf(
    await other.chat({ model: 'pair', stream: true, sandbox: { fail: { kind: 'stall_before_first', stall_ms: 2600, only_prefix: 'a' } } }),
  )
  expect(stream).toMatchObject({ done_count: 0, error: { code: 'upstream_error' } })
  expect(gateway.sandbox.served().totals.requests).toBe(1)
})

it('the headers that a keep-alive sends out are those of the target that is asked then', async () => {
  const there = await startGateway()
  const [a, b] = there.plane.snapshot().configuration.catalogue.models.get('pair')?.endpoints ?? []
  const filed = (endpoint: typeof a, number: string): object => ({
    ...{ id: endpoint?.id, tier: endpoint?.tier, base_url: endpoint?.base_url },
    ...{ provider: 'vllm', zone: 'private', filing: { number, evidence: 'test' } },
  })
  const [first, second] = ['Beijing-First-202404280016', 'Beijing-Second-202404280017']
  const gateway = await startGateway({ settings: SOON, models: { pair: { endpoints: [filed(a, first), filed(b, second)] } } })
  const sandbox = { fail: { kind: 'refuse', status: 500, only_prefix: 'a' }, first_token_delay_ms: 2600 }
  const response = await gateway.chat({ model: 'pair', stream: true, sandbox })
  const stream = await sseOf(response)
  expect(stream.text.startsWith(KEEPALIVE)).toBe(true)
  expect(stream).toMatchObject({ done_count: 1, error: null })
  expect(response.headers.get('x-weir-filing')).toBe(second)
})

it('no more targets are tried than the limit says', async () => {
  const gateway = await startGateway({ settings: { limits: { max_attempts: 1 } } })
  const response = await gateway.chat({ model: 'pair', sandbox: { fail: { kind: 'refuse', only_prefix: 'a' } } })
  expect(response.status).toBe(502)
  expect(gateway.sandbox.served().totals.requests).toBe(1)
})

it('a target that keeps failing is left alone, and a caller with no other gets 503 with a time to come back', async () => {
  const gateway = await startGateway()
  const fail = { kind: 'refuse', status: 500, only_prefix: 'a' }
  for (let tries = 0; tries < BREAKER_RULES.failures_to_open; tries += 1)
    expect((await gateway.chat({ sandbox: { fail } })).status).toBe(502)
  const refused = await gateway.chat({})
  expect([refused.status, (await errorOf(refused)).code]).toEqual([503, 'no_upstream_available'])
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(gateway.sandbox.served().totals.requests).toBe(BREAKER_RULES.failures_to_open)
  expect((await gateway.audit()).events).toBe(0)
})

it('the cost of the event is that of the target that answered', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({ model: 'pair', sandbox: { fail: { kind: 'refuse', only_prefix: 'a' } } })
  const event = await gateway.event(response.headers.get('x-request-id'))
  const { input, output } = event?.tokens ?? { input: 0, output: 0 }
  expect(event?.cost_nano).toBe(BigInt(input) * 3000n + BigInt(output) * 6000n)
  expect(event?.attempts.map(({ cost_nano }) => cost_nano)).toEqual([0n, event?.cost_nano])
})
