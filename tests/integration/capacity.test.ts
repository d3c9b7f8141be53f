import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it, vi } from 'vitest'
import type { ServedRow } from '../../src/sandbox/tally.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

const PATIENT = { limits: { queue_timeout_ms: 60_000, keepalive_after_ms: 60_000 } }
const SOON_MS = 10_000
/** Answers that begin only when a test ends them. */
const ENDLESS = { first_token_delay_ms: 60_000 }

const waiting = (gateway: TestGateway, requests: number): Promise<unknown> =>
  waitFor(() => gateway.plane.room.waiting === requests, { timeout_ms: SOON_MS, what: `${requests} requests to wait` })
const upstreamHas = (gateway: TestGateway, requests: number): Promise<unknown> =>
  waitFor(() => gateway.sandbox.served().totals.open === requests, { timeout_ms: SOON_MS, what: `${requests} requests upstream` })
const capacity = (endpoint: string, limits: Readonly<Record<string, number>>) => ({ endpoints: { [endpoint]: { capacity: limits } } })
const metric = async (gateway: TestGateway, line: RegExp): Promise<string> => line.exec(await gateway.plane.metrics.render())?.[1] ?? ''

/** A request that its client can give up. */
function leavable(gateway: TestGateway, body: Readonly<Record<string, unknown>>): { readonly answer: Promise<unknown>; leave(): void } {
  const controller = new AbortController()
  const answer = fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    signal: controller.signal,
    headers: { authorization: `Bearer ${gateway.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'solo', messages: [{ role: 'user', content: 'hello' }], ...body }),
  }).then(
    (response) => response.text().catch(() => 'left'),
    () => 'left',
  )
  return { answer, leave: () => controller.abort() }
}

/** Most requests that the sandbox had at a time. */
function mostAtOnce(rows: readonly ServedRow[]): number {
  const steps = rows.flatMap(({ started_at, ended_at }) => [
    { at: started_at, by: 1 },
    { at: ended_at ?? Infinity, by: -1 },
  ])
  let open = 0
  let most = 0
  for (const { by } of steps.toSorted((a, b) => a.at - b.at || a.by - b.by)) {
    open += by
    most = Math.max(most, open)
  }
  return most
}

it('an endpoint never has more requests at a time than its capacity, and every request is answered', async () => {
  const gateway = await startGateway({ settings: PATIENT, ...capacity('solo-a', { concurrency: 3 }) })
  const bodies = [
    {},
    { stream: true },
    { sandbox: { fail: { kind: 'cut_middle', at: 2 } }, stream: true },
    { sandbox: { fail: { kind: 'refuse' } } },
  ]
  const answers = await Promise.all(
    Array.from({ length: 40 }, async (_, index) => {
      const response = await gateway.chat({ ...bodies[index % bodies.length] })
      await response.text()
      return response.status
    }),
  )
  expect(answers.filter((status) => status === 200)).toHaveLength(30)
  const { served } = gateway.sandbox.served()
  expect(served).toHaveLength(40)
  expect(mostAtOnce(served)).toBeLessThanOrEqual(3)
  await gateway.audit()
  expect(await metric(gateway, /weir_endpoint_room\{endpoint="solo-a",limit="concurrency"\} (\d+)/)).toBe('3')
  expect(await metric(gateway, /weir_queued_requests (\d+)/)).toBe('0')
})

it('a target without room is passed over for the next one', async () => {
  const gateway = await startGateway({ settings: PATIENT, ...capacity('pair-a', { concurrency: 1 }) })
  const first = leavable(gateway, { model: 'pair', sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  const second = await gateway.chat({ model: 'pair' })
  expect(second.status).toBe(200)
  expect(await gateway.event(second.headers.get('x-request-id'))).toMatchObject({ endpoint: 'pair-b', attempts: [{ endpoint: 'pair-b' }] })
  first.leave()
  await first.answer
  await gateway.audit()
})

it('a request waits for room without a hold, and goes when there is some', async () => {
  const gateway = await startGateway({ settings: PATIENT, ...capacity('solo-a', { concurrency: 1 }) })
  const first = leavable(gateway, { sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  const second = gateway.chat({ stream: true })
  await waiting(gateway, 1)
  expect(await gateway.storage.limits.openHolds()).toBe(1)
  expect(await metric(gateway, /weir_queued_requests (\d+)/)).toBe('1')
  first.leave()
  await first.answer
  expect(await sseOf(await second)).toMatchObject({ done_count: 1, error: null })
  expect(await metric(gateway, /weir_queue_wait_seconds_count\{outcome="served"\} (\d+)/)).toBe('1')
  await gateway.audit()
})

it('who has waited too long gets 503 with a time to come back, and nothing was held for it', async () => {
  const gateway = await startGateway({
    settings: { limits: { queue_timeout_ms: 100 } },
    limits: [{ kind: 'requests_per_minute', limit: '2', model: null, window: null }],
    ...capacity('solo-a', { concurrency: 1 }),
  })
  const first = leavable(gateway, { sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  for (let again = 0; again < 3; again += 1) {
    const refused = await gateway.chat({})
    expect([refused.status, (await errorOf(refused)).code]).toEqual([503, 'no_upstream_available'])
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(refused.headers.get('x-should-retry')).toBeNull()
  }
  first.leave()
  await first.answer
  // Of two requests a minute the three that were refused have used none.
  await waitFor(async () => (await gateway.chat({})).status === 200, { timeout_ms: SOON_MS, what: 'room' })
  expect(gateway.sandbox.served().totals.requests).toBe(2)
  expect((await gateway.audit()).events).toBe(2)
})

it('a client that leaves while it waits gives its place in the queue back', async () => {
  const gateway = await startGateway({ settings: PATIENT, tenant: { on_client_abort: 'drain' }, ...capacity('solo-a', { concurrency: 1 }) })
  const first = gateway.chat({ sandbox: { first_token_delay_ms: 500 } })
  await upstreamHas(gateway, 1)
  const second = leavable(gateway, {})
  await waiting(gateway, 1)
  second.leave()
  await waiting(gateway, 0)
  expect(await metric(gateway, /weir_queue_wait_seconds_count\{outcome="left"\} (\d+)/)).toBe('1')
  expect((await first).status).toBe(200)
  expect((await gateway.chat({})).status).toBe(200)
  expect((await gateway.audit()).events).toBe(2)
})

it('of one tenant and in all only so many wait, the next is told at once', async () => {
  const limits = { ...PATIENT.limits, max_queued_requests: 3, max_queued_per_tenant: 2 }
  const gateway = await startGateway({ settings: { limits }, ...capacity('solo-a', { concurrency: 1 }) })
  const other = await gateway.account()
  const asOther = { authorization: `Bearer ${other.secret}` }
  const first = leavable(gateway, { sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  const stay = [gateway.chat({}), gateway.chat({})]
  await waiting(gateway, 2)
  expect((await gateway.chat({})).status).toBe(503)
  stay.push(gateway.chat({}, asOther))
  await waiting(gateway, 3)
  expect((await gateway.chat({}, asOther)).status).toBe(503)
  expect(await metric(gateway, /weir_queue_wait_seconds_count\{outcome="full"\} (\d+)/)).toBe('2')
  first.leave()
  expect((await Promise.all(stay)).map(({ status }) => status)).toEqual([200, 200, 200])
  await gateway.audit()
})

it('whoever would wait for nothing is told at once when to come back', async () => {
  const gateway = await startGateway({ ...capacity('solo-a', { requests_per_minute: 2 }) })
  expect([(await gateway.chat({})).status, (await gateway.chat({})).status]).toEqual([200, 200])
  const refused = await gateway.chat({})
  expect(refused.status).toBe(503)
  const seconds = Number(refused.headers.get('retry-after'))
  expect(seconds).toBeGreaterThan(5)
  expect(seconds).toBeLessThanOrEqual(61)
  expect(await metric(gateway, /weir_queue_wait_seconds_count\{outcome="hopeless"\} (\d+)/)).toBe('1')
})

it('tokens of a minute are counted as they were used in the end', async () => {
  const gateway = await startGateway({ ...capacity('solo-a', { tokens_per_minute: 100_000 }) })
  const room = async (): Promise<number> =>
    Number(await metric(gateway, /weir_endpoint_room\{endpoint="solo-a",limit="tokens_per_minute"\} (\d+)/))
  const response = await gateway.chat({ max_tokens: 2000, sandbox: { tokens: 7 } })
  const { usage } = (await response.json()) as { usage: { total_tokens: number } }
  await gateway.audit()
  expect(await room()).toBe(100_000 - usage.total_tokens)
  await (await gateway.chat({ max_tokens: 2000, sandbox: { fail: { kind: 'refuse' } } })).text()
  await gateway.audit()
  expect(await room()).toBe(100_000 - usage.total_tokens)
})

it('a refusal of admission gives the place back', async () => {
  const gateway = await startGateway({ wallet_cny: '0', ...capacity('solo-a', { concurrency: 1, requests_per_minute: 2 }) })
  for (let again = 0; again < 4; again += 1) expect((await gateway.chat({})).status).toBe(402)
  expect(await metric(gateway, /weir_endpoint_room\{endpoint="solo-a",limit="concurrency"\} (\d+)/)).toBe('1')
  expect(await metric(gateway, /weir_endpoint_room\{endpoint="solo-a",limit="requests_per_minute"\} (\d+)/)).toBe('2')
})

it('after a failed try the others are waited for with the hold, and the client is kept alive', async () => {
  const gateway = await startGateway({
    settings: { limits: { queue_timeout_ms: 60_000, keepalive_after_ms: 100 } },
    ...capacity('pair-b', { concurrency: 1 }),
  })
  const first = leavable(gateway, { model: 'pair', sandbox: { fail: { kind: 'refuse', only_prefix: 'a' }, ...ENDLESS } })
  await upstreamHas(gateway, 1)
  const second = gateway.chat({ model: 'pair', stream: true, sandbox: { fail: { kind: 'refuse', only_prefix: 'a' } } })
  await waiting(gateway, 1)
  expect(await gateway.storage.limits.openHolds()).toBe(2)
  const stream = await second
  expect(gateway.plane.room.waiting).toBe(1)
  first.leave()
  const read = await sseOf(stream)
  expect(read.text.startsWith(': keepalive\n\n')).toBe(true)
  expect(read).toMatchObject({ done_count: 1, error: null })
  expect(await gateway.event(stream.headers.get('x-request-id'))).toMatchObject({ endpoint: 'pair-b', status: 'completed' })
  await gateway.audit()
})

it('a failed try whose alternatives never have room is told as the failure that it was', async () => {
  const gateway = await startGateway({ settings: { limits: { queue_timeout_ms: 100 } }, ...capacity('pair-b', { concurrency: 1 }) })
  const fail = { kind: 'refuse', only_prefix: 'a' }
  const first = leavable(gateway, { model: 'pair', sandbox: { fail, ...ENDLESS } })
  await upstreamHas(gateway, 1)
  const second = await gateway.chat({ model: 'pair', sandbox: { fail } })
  expect([second.status, (await errorOf(second)).code]).toEqual([502, 'upstream_error'])
  first.leave()
  await first.answer
  await gateway.audit()
})

it('a flood of one tenant does not take the shares of the others', async () => {
  const gateway = await startGateway({
    settings: PATIENT,
    sandbox: { tokens: 1, first_token_delay_ms: 5 },
    ...capacity('solo-a', { concurrency: 4 }),
  })
  const flood = { name: 'flood', secret: gateway.key, clients: 50 }
  const b = { name: 'b', secret: (await gateway.account()).secret, clients: 8 }
  const c = { name: 'c', secret: (await gateway.account({ tenant: { queue_weight: 2 } })).secret, clients: 8 }
  const whose = new Map<string, string>()
  const COUNTED = { from: 60, to: 460 }
  const client = async (name: string, secret: string): Promise<void> => {
    while (gateway.sandbox.served().totals.requests < COUNTED.to) {
      const response = await gateway.chat({}, { authorization: `Bearer ${secret}` })
      await response.text()
      if (response.status !== 200) throw new Error(`${name} got ${response.status}`)
      whose.set(response.headers.get('x-request-id') ?? '', name)
    }
  }
  // The flood is there first.
  const floods = Array.from({ length: flood.clients }, () => client(flood.name, flood.secret))
  await waiting(gateway, flood.clients - 4)
  const others = [b, c].flatMap(({ name, secret, clients }) => Array.from({ length: clients }, () => client(name, secret)))
  await Promise.all([...floods, ...others])
  const rows = gateway.sandbox.served({ since: 0, limit: 10_000 }).served.slice(COUNTED.from, COUNTED.to)
  const share = (name: string): number => rows.filter(({ request_id }) => whose.get(request_id) === name).length / rows.length
  // Weights 1, 1 and 2.
  expect(share('flood')).toBeGreaterThan(0.2)
  expect(share('flood')).toBeLessThan(0.3)
  expect(share('b')).toBeGreaterThan(0.2)
  expect(share('b')).toBeLessThan(0.3)
  expect(share('c')).toBeGreaterThan(0.45)
  expect(share('c')).toBeLessThan(0.55)
  await gateway.audit()
})

it('a class that is lower gets its part of one in five of the class above it, and no less', async () => {
  const gateway = await startGateway({
    settings: PATIENT,
    sandbox: { tokens: 1, first_token_delay_ms: 5 },
    ...capacity('solo-a', { concurrency: 4 }),
  })
  const low = await gateway.account({ tenant: { priority: 'low' } })
  const whose = new Set<string>()
  const client = async (secret: string, mark: boolean): Promise<void> => {
    while (gateway.sandbox.served().totals.requests < 360) {
      const response = await gateway.chat({}, { authorization: `Bearer ${secret}` })
      await response.text()
      if (mark) whose.add(response.headers.get('x-request-id') ?? '')
    }
  }
  await Promise.all([
    ...Array.from({ length: 16 }, () => client(gateway.key, false)),
    ...Array.from({ length: 8 }, () => client(low.secret, true)),
  ])
  const rows = gateway.sandbox.served({ since: 0, limit: 10_000 }).served.slice(60, 360)
  const share = rows.filter(({ request_id }) => whose.has(request_id)).length / rows.length
  expect(share).toBeGreaterThan(0.15)
  expect(share).toBeLessThan(0.25)
})

it('a drain ends those who wait like those who run', async () => {
  const gateway = await startGateway({
    settings: { ...PATIENT, drain: { delay_ms: 0, timeout_ms: 100 } },
    ...capacity('solo-a', { concurrency: 1 }),
  })
  const first = gateway.chat({ sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  const second = gateway.chat({})
  await waiting(gateway, 1)
  await Promise.all([gateway.drain(), sleep(0)])
  expect((await errorOf(await second)).code).toBe('shutting_down')
  await first.catch(() => null)
  expect(gateway.plane.room.waiting).toBe(0)
})

it('a request whose stand-in could not be written down is refused: its id may be known already', async () => {
  const candidates = [
    { model: 'solo', quality: 90 },
    { model: 'pair', quality: 10 },
  ]
  const gateway = await startGateway({ ...capacity('solo-a', { concurrency: 1 }), routes: { both: { prefer: 'quality', candidates } } })
  const { answer, leave } = leavable(gateway, { sandbox: ENDLESS })
  await upstreamHas(gateway, 1)
  vi.spyOn(gateway.plane.log, 'open').mockRejectedValueOnce(new Error('the disk is full'))
  const refused = await gateway.chat({ model: 'both' })
  expect([refused.status, (await errorOf(refused)).code]).toEqual([503, 'admission_unavailable'])
  // The next one may have the stand-in.
  const served = await gateway.chat({ model: 'both' })
  expect([served.status, served.headers.get('x-weir-model')]).toEqual([200, 'pair'])
  expect(served.headers.get('x-weir-route')).toContain('solo failed (no room) -> pair (fallback)')
  leave()
  await answer
})
