import { expect, it } from 'vitest'
import type { UsageEvent } from '../../src/money/event.ts'
import type { ServedRow } from '../../src/sandbox/tally.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { openTest } from '../support/storage.ts'
import { waitFor } from '../support/wait.ts'

const SOON_MS = 20_000

/** Sends a request with the account's key that can be cut off. */
function cuttable(gateway: TestGateway, body: object): { readonly response: Promise<Response>; cut(): void } {
  const controller = new AbortController()
  const response = fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gateway.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'solo', messages: [{ role: 'user', content: 'hello' }], ...body }),
    signal: controller.signal,
  })
  response.catch(() => {})
  return { response, cut: () => controller.abort() }
}

async function begun(response: Promise<Response>): Promise<void> {
  const reader = (await response).body?.getReader()
  let text = ''
  while (text.split('"content"').length < 6) {
    const read = await reader?.read()
    if (read === undefined || read.done) throw new Error(`the stream ended before it began: ${text}`)
    text += Buffer.from(read.value).toString()
  }
}

async function arrived(gateway: TestGateway): Promise<void> {
  await waitFor(() => gateway.sandbox.served().totals.requests === 1, { timeout_ms: SOON_MS, what: 'the request to reach the upstream' })
}

/** The one event and the upstream's own count, once all has ended. */
async function ended(gateway: TestGateway): Promise<{ event: UsageEvent | null; served: ServedRow | undefined }> {
  await waitFor(() => gateway.sandbox.served().totals.open === 0, { timeout_ms: SOON_MS, what: 'the upstream to be done' })
  expect((await gateway.audit()).events).toBe(1)
  const [served] = gateway.sandbox.served().served
  return { event: await gateway.event(served?.request_id ?? null), served }
}

it('cancel: a client that leaves in the middle of a stream stops the upstream and owes for what it was sent', async () => {
  const gateway = await startGateway({ tenant: { on_client_abort: 'cancel' } })
  const { response, cut } = cuttable(gateway, { stream: true, sandbox: { tokens: 2000, token_delay_ms: 5 } })
  await begun(response)
  cut()
  const { event, served } = await ended(gateway)
  expect(served).toMatchObject({ aborted: true, finished: false })
  expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request', usage_source: 'estimated' })
  expect(event?.tokens.input).toBe(served?.prompt_tokens)
  expect(event?.tokens.output).toBeGreaterThan(0)
  expect(event?.tokens.output).toBeLessThanOrEqual(served?.sent_tokens ?? 0)
})

it('drain: the upstream is read to its end without the client, and the exact figure is billed', async () => {
  const gateway = await startGateway({ tenant: { on_client_abort: 'drain' } })
  const { response, cut } = cuttable(gateway, { stream: true, sandbox: { tokens: 200, token_delay_ms: 5 } })
  await begun(response)
  cut()
  const { event, served } = await ended(gateway)
  expect(served).toMatchObject({ aborted: false, finished: true, sent_tokens: 200 })
  expect(event).toMatchObject({ status: 'aborted', usage_source: 'drained' })
  expect(event?.tokens).toMatchObject({ input: served?.prompt_tokens, output: 200 })
})

it('drain: a stream that does not end in time is stopped, and only what was delivered is billed', async () => {
  const gateway = await startGateway({ tenant: { on_client_abort: 'drain' }, settings: { limits: { drain_abort_timeout_ms: 700 } } })
  const { response, cut } = cuttable(gateway, { stream: true, sandbox: { tokens: 5000, token_delay_ms: 5 } })
  await begun(response)
  cut()
  const { event, served } = await ended(gateway)
  expect(served).toMatchObject({ aborted: true })
  expect(event).toMatchObject({ status: 'aborted', usage_source: 'estimated' })
  expect(event?.tokens.output).toBeGreaterThan(0)
  expect(event?.tokens.output).toBeLessThan((served?.sent_tokens ?? 0) / 2)
})

it.each([true, false])('cancel: a client that leaves before the first event owes nothing (stream %s)', async (stream) => {
  const gateway = await startGateway({ tenant: { on_client_abort: 'cancel' } })
  const { cut } = cuttable(gateway, { stream, sandbox: { first_token_delay_ms: 15_000 } })
  await arrived(gateway)
  cut()
  const { event, served } = await ended(gateway)
  expect(served?.aborted).toBe(true)
  expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request', amount_nano: 0n, tokens: { input: 0, output: 0 } })
})

it.each([true, false])(
  'drain: a client that leaves before the first event owes for the whole answer, by its own policy (stream %s)',
  async (stream) => {
    const gateway = await startGateway({ tenant: { on_client_abort: 'drain' } })
    const { cut } = cuttable(gateway, { stream, sandbox: { first_token_delay_ms: 1000, tokens: 30 } })
    await arrived(gateway)
    cut()
    const { event, served } = await ended(gateway)
    expect(served).toMatchObject({ finished: true })
    expect(event).toMatchObject({ status: 'aborted', usage_source: 'drained', tokens: { input: served?.prompt_tokens, output: 30 } })
  },
)

it('a client that leaves while the next target is asked stops that one too', async () => {
  const gateway = await startGateway({ timeouts: { headers_timeout_ms: 500 } })
  const { cut } = cuttable(gateway, { model: 'pair', stream: true, sandbox: { fail: { kind: 'stall_before_headers' } } })
  await waitFor(() => gateway.sandbox.served().totals.requests === 2, { timeout_ms: SOON_MS, what: 'the second try' })
  cut()
  await waitFor(() => gateway.sandbox.served().totals.open === 0, { timeout_ms: SOON_MS, what: 'the upstream to be done' })
  expect(await gateway.audit()).toEqual({ events: 1, amount_nano: 0n })
})

it('a request that takes longer than the total time is ended with an error, its upstream stopped', async () => {
  const gateway = await startGateway({ settings: { limits: { total_timeout_ms: 800 } } })
  const whole = await gateway.chat({ sandbox: { first_token_delay_ms: 15_000 } })
  expect(whole.status).toBe(504)
  const stream = await gateway.chat({ stream: true, sandbox: { tokens: 5000, token_delay_ms: 5 } })
  const text = await stream.text()
  expect(text).toContain('"code":"upstream_timeout"')
  expect(text).not.toContain('[DONE]')
  await waitFor(() => gateway.sandbox.served().totals.open === 0, { timeout_ms: SOON_MS, what: 'the upstream to be done' })
  expect(await gateway.event(stream.headers.get('x-request-id'))).toMatchObject({ status: 'truncated', code: 'upstream_timeout' })
  await gateway.audit()
})

it('drain: an answer that is read on without its client keeps its place among the open requests', async () => {
  const gateway = await startGateway({
    tenant: { on_client_abort: 'drain' },
    settings: { limits: { max_open_requests: 2, tenant_share_percent: 100 } },
  })
  for (let sent = 0; sent < 2; sent += 1) {
    const { response, cut } = cuttable(gateway, { stream: true, sandbox: { tokens: 300, token_delay_ms: 10 } })
    await begun(response)
    cut()
  }
  const refused = await gateway.chat({})
  expect([refused.status, gateway.sandbox.served().totals.open]).toEqual([503, 2])
  await waitFor(() => gateway.plane.open.total === 0, { timeout_ms: SOON_MS, what: 'both answers to be read' })
  expect((await gateway.chat({})).status).toBe(200)
  expect((await gateway.audit()).events).toBe(3)
})

it('drain: a stop of the gateway waits for an answer that is read on without its client', async () => {
  const gateway = await startGateway({ tenant: { on_client_abort: 'drain' } })
  const { response, cut } = cuttable(gateway, { stream: true, sandbox: { tokens: 200, token_delay_ms: 10 } })
  await begun(response)
  const id = (await response).headers.get('x-request-id') ?? ''
  cut()
  await gateway.drain()
  const storage = await openTest(gateway.data_dir)
  const event = await storage.ledger.event(id)
  await storage.close()
  expect(event).toMatchObject({ status: 'aborted', usage_source: 'drained', tokens: { output: 200 } })
})
