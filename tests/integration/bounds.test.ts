import { expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

async function upstreamLetGo(gateway: TestGateway): Promise<void> {
  await waitFor(() => gateway.sandbox.served().totals.open === 0, { timeout_ms: 10_000, what: 'the upstream to be let go' })
}

const PATIENT = { headers_timeout_ms: 30_000, first_event_timeout_ms: 500, silence_timeout_ms: 30_000 }

it.each([
  { fail: { kind: 'stall_before_headers' }, stream: true },
  { fail: { kind: 'stall_before_headers' }, stream: false },
  { fail: { kind: 'stall_before_first' }, stream: true },
  { fail: { kind: 'stall_middle' }, stream: false },
])('an upstream that is given up is let go at once ($fail.kind, stream $stream)', async ({ fail, stream }) => {
  const gateway = await startGateway({ timeouts: PATIENT })
  const response = await gateway.chat({ stream, sandbox: { fail } })
  expect([response.status, (await errorOf(response)).code]).toEqual([504, 'upstream_timeout'])
  await upstreamLetGo(gateway)
  expect(await gateway.audit()).toEqual({ events: 1, amount_nano: 0n })
})

it('an upstream whose headers come after it was given up is let go too', async () => {
  const gateway = await startGateway({ timeouts: PATIENT })
  const response = await gateway.chat({
    stream: true,
    sandbox: { tokens: 5000, token_delay_ms: 100, fail: { kind: 'slow_headers', delay_ms: 1500 } },
  })
  expect(response.status).toBe(504)
  await upstreamLetGo(gateway)
  await gateway.audit()
})

it('one event larger than the limit ends a stream with an error, not with memory', async () => {
  const gateway = await startGateway({ settings: { limits: { max_event_bytes: 2048 } } })
  const response = await gateway.chat({ stream: true, sandbox: { bytes_per_token: 60_000 } })
  const stream = await sseOf(response)
  expect(stream).toMatchObject({ done_count: 0, content: '', error: { code: 'upstream_error' } })
  await upstreamLetGo(gateway)
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'truncated', tokens: { output: 0 } })
  await gateway.audit()
})

it('a whole answer larger than the limit is an error', async () => {
  const gateway = await startGateway({ settings: { limits: { max_event_bytes: 2048, max_answer_bytes: 4096 } } })
  const response = await gateway.chat({ sandbox: { tokens: 5000 } })
  expect([response.status, (await errorOf(response)).code]).toEqual([502, 'upstream_error'])
  expect((await gateway.audit()).amount_nano).toBe(0n)
})

it('a stream of nothing but comments is given up', async () => {
  const gateway = await startGateway({ timeouts: PATIENT })
  const response = await gateway.chat({ stream: true, sandbox: { keep_alive: 3, first_token_delay_ms: 20_000 } })
  expect([response.status, (await errorOf(response)).code]).toEqual([504, 'upstream_timeout'])
  await upstreamLetGo(gateway)
})

it('comments of an upstream before the first event are no failure', async () => {
  const gateway = await startGateway()
  const stream = await sseOf(
    await gateway.chat({ stream: true, sandbox: { keep_alive: 5, keep_alive_every: 2, first_token_delay_ms: 300 } }),
  )
  expect(stream).toMatchObject({ done_count: 1, error: null })
  await gateway.audit()
})

it('the node’s limit of open requests is 503 and gives its place back', async () => {
  const limits = { max_open_requests: 2, tenant_share_percent: 100, upstream_connections_per_origin: 10 }
  const gateway = await startGateway({ settings: { limits } })
  const slow = [1, 2].map(() => gateway.chat({ sandbox: { first_token_delay_ms: 1500 } }))
  await waitFor(() => gateway.plane.open.total === 2, { timeout_ms: 10_000, what: 'two open requests' })
  const other = await gateway.account()
  const refused = await gateway.chat({}, { authorization: `Bearer ${other.secret}` })
  expect([refused.status, (await errorOf(refused)).code]).toEqual([503, 'overloaded'])
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  await Promise.all(slow)
  expect((await gateway.chat({})).status).toBe(200)
  expect((await gateway.audit()).events).toBe(3)
})
