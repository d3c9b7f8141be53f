import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { openTest } from '../support/storage.ts'
import { sseOf } from '../support/sse.ts'
import { startWhole } from '../support/whole.ts'

it('a drain says so, goes on accepting for its delay, finishes what is open, and leaves everything posted', async () => {
  const whole = await startWhole({ settings: { drain: { delay_ms: 1500, timeout_ms: 20_000 } } })
  expect((await fetch(`${whole.url}/readyz`)).status).toBe(200)
  const open = await whole.chat({ stream: true, sandbox: { tokens: 60, token_delay_ms: 60 } })
  const drained = whole.weir.drain()
  const ready = await fetch(`${whole.url}/readyz`)
  expect([ready.status, ((await ready.json()) as { reasons: string[] }).reasons]).toEqual([503, ['draining']])
  const late = await whole.chat({})
  expect([late.status, late.headers.get('connection')]).toEqual([200, 'close'])
  await sleep(2000)
  await expect(fetch(`${whole.url}/healthz`)).rejects.toThrow('fetch failed')
  expect(await sseOf(open)).toMatchObject({ done_count: 1, error: null })
  await drained
  const storage = await openTest(whole.data_dir)
  const facts = await storage.ledger.auditFacts()
  await storage.close()
  expect(facts).toMatchObject({ events: 2, missing_events: [], open_requests: [], unbalanced: [], wrong_sums: [] })
})

it('a drain does not wait for connections that idle or have sent half a request', async () => {
  const whole = await startWhole({ settings: { drain: { delay_ms: 0, timeout_ms: 20_000 } } })
  const { hostname, port } = new URL(whole.url)
  const half = connect(Number(port), hostname)
  half.on('error', () => {})
  half.write('GET /healthz HTTP/1.1\r\nhost:')
  await fetch(`${whole.url}/healthz`)
  await whole.weir.drain()
  await expect(fetch(`${whole.url}/healthz`)).rejects.toThrow('fetch failed')
  half.destroy()
})

it('a stream that outlasts the drain is told so by an error event, has no clean end, and still has exactly one event', async () => {
  const whole = await startWhole({ settings: { drain: { delay_ms: 0, timeout_ms: 500 } } })
  const open = await whole.chat({ stream: true, sandbox: { tokens: 5000, token_delay_ms: 10 } })
  const stream = sseOf(open)
  await whole.weir.drain()
  expect(await stream).toMatchObject({ done_count: 0, error: { code: 'shutting_down' } })
  const storage = await openTest(whole.data_dir)
  await storage.ledger.post()
  const facts = await storage.ledger.auditFacts()
  const event = await storage.ledger.event(open.headers.get('x-request-id') ?? '')
  await storage.close()
  expect(facts).toMatchObject({ events: 1, missing_events: [], open_requests: [], unbalanced: [] })
  expect(event).toMatchObject({ status: 'truncated', code: 'shutting_down' })
  expect(event?.tokens.output).toBeLessThanOrEqual(whole.sandbox.served().served[0]?.sent_tokens ?? 0)
})

it('what was spent before a restart is spent after it, and keys still work', async () => {
  const whole = await startWhole()
  await (await whole.chat({ sandbox: { tokens: 100 } })).text()
  const before = (await (await whole.get('/v1/balance')).json()) as object
  await whole.weir.drain()
  const weir = await whole.again()
  expect(weir.demo_key).toBeNull()
  const after = await fetch(`${weir.url}/v1/balance`, { headers: { authorization: `Bearer ${whole.key}` } })
  expect(await after.json()).toMatchObject({ available_cny: (before as { available_cny: string }).available_cny, held_cny: '0' })
})
