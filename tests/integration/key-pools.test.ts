import { expect, it } from 'vitest'
import { startSandbox } from '../../src/sandbox/server.ts'
import { atEnd } from '../support/cleanup.ts'
import { startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'
import { type KeyGate, startKeyGate } from '../support/key-gate.ts'
import { errorOf, sseOf } from '../support/sse.ts'

const BAD = { status: 401, code: 'invalid_api_key' }
const FAST = { status: 429, code: 'rate_limit_exceeded', headers: { 'retry-after': '30' } }
const A = { key: 'sk-upstream-aaaa', name: 'a', weight: 1_000_000 }
const B = { key: 'sk-upstream-bbbb', name: 'b' }

interface Pooled {
  readonly gateway: TestGateway
  readonly gate: KeyGate
}

/** `pair` is served at an endpoint with these keys, and behind it at one without any. */
async function pooled(keys: readonly object[], options: GatewayOptions = {}): Promise<Pooled> {
  const sandbox = await startSandbox({ port: 0 })
  atEnd(() => sandbox.close())
  const gate = await startKeyGate(sandbox.url)
  const own = { provider: 'vllm', api_keys: keys }
  const endpoints = { 'solo-a': own, 'pair-a': own, 'pair-b': { provider: 'vllm', base_url: `${gate.url}/b/v1` } }
  const gateway = await startGateway({ upstream: gate.url, endpoints, ...options })
  return { gateway, gate }
}

/** Of the keys of one owner. */
const states = async (gateway: TestGateway, owner = 'solo-a'): Promise<readonly string[]> =>
  [...(await gateway.plane.metrics.render()).matchAll(/weir_provider_key_state\{key="([^"]+)",state="(\w+)"\} 1/g)]
    .map(([, key, state]) => `${key} ${state}`)
    .filter((line) => line.startsWith(`${owner}/`))

it('a key that is refused is left alone while the other goes on, and the caller notices nothing', async () => {
  const { gateway, gate } = await pooled([A, B])
  gate.set(A.key, BAD)
  const response = await gateway.chat({})
  expect(response.status).toBe(200)
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({
    attempts: [
      { endpoint: 'solo-a', key: 'a', outcome: 'auth', http_status: 401 },
      { endpoint: 'solo-a', key: 'b', outcome: 'answered' },
    ],
  })
  for (let more = 0; more < 5; more += 1) expect((await gateway.chat({})).status).toBe(200)
  expect(gate.seen).toEqual([A.key, ...Array.from({ length: 6 }, () => B.key)])
  expect(await states(gateway)).toEqual(['solo-a/a cooling', 'solo-a/b ready'])
  expect(gateway.plane.breakers.stateOf('solo-a').phase).toBe('closed')
  await gateway.audit()
})

it('names of keys are logged, keys never', async () => {
  const { gateway, gate } = await pooled([A, B])
  gate.set(A.key, BAD)
  await (await gateway.chat({})).text()
  const log = gateway.log_lines.join('\n')
  expect(log).toContain('"provider_key":"solo-a/a"')
  expect(log).toContain('"provider_key":"b"')
  expect(log + (await gateway.plane.metrics.render())).not.toMatch(/sk-upstream|aaaa|bbbb/)
})

it('when every key is refused the next target answers, and a model without one tells when to come back', async () => {
  const { gateway, gate } = await pooled([A, B], { settings: { limits: { max_attempts: 3 } } })
  gate.set(A.key, BAD)
  gate.set(B.key, FAST)
  const response = await gateway.chat({ model: 'pair' })
  expect(response.status).toBe(200)
  expect(
    (await gateway.event(response.headers.get('x-request-id')))?.attempts.map(({ endpoint, outcome }) => `${endpoint} ${outcome}`),
  ).toEqual(['pair-a auth', 'pair-a rate', 'pair-b answered'])
  const alone = await gateway.chat({})
  expect([alone.status, (await errorOf(alone)).code]).toEqual([502, 'upstream_error'])
  const then = await gateway.chat({})
  expect([then.status, (await errorOf(then)).code]).toEqual([503, 'no_upstream_available'])
  const seconds = Number(then.headers.get('retry-after'))
  expect(seconds).toBeGreaterThan(1)
  expect(seconds).toBeLessThanOrEqual(30)
  await gateway.audit()
})

it('another key is tried no more often than the limit of tries says', async () => {
  const keys = ['a', 'b', 'c', 'd'].map((name) => ({ key: `sk-upstream-${name}`, name }))
  const { gateway, gate } = await pooled(keys, { settings: { limits: { max_attempts: 2 } } })
  for (const { key } of keys) gate.set(key, FAST)
  expect((await gateway.chat({})).status).toBe(502)
  expect(new Set(gate.seen).size).toBe(2)
  expect(gate.seen).toHaveLength(2)
})

it('a failure that is none of the key leaves the key alone', async () => {
  const { gateway, gate } = await pooled([A, B])
  await (await gateway.chat({ sandbox: { fail: { kind: 'refuse', status: 500 } } })).text()
  expect(gate.seen).toEqual([A.key])
  expect(await states(gateway)).toEqual(['solo-a/a ready', 'solo-a/b ready'])
})

it('keys without room are passed over by weight, and waited for when none has any', async () => {
  const { gateway, gate } = await pooled([
    { ...A, concurrency: 1 },
    { ...B, concurrency: 1 },
  ])
  const streams = await Promise.all(
    Array.from({ length: 6 }, async () => sseOf(await gateway.chat({ stream: true, sandbox: { tokens: 3, token_delay_ms: 5 } }))),
  )
  expect(streams.map(({ done_count }) => done_count)).toEqual([1, 1, 1, 1, 1, 1])
  expect(new Set(gate.seen)).toEqual(new Set([A.key, B.key]))
  expect(gateway.plane.room.waiting).toBe(0)
  await gateway.audit()
})

it("an endpoint's own keys are its own, a provider's are shared by its endpoints", async () => {
  const limited = { ...A, requests_per_minute: 1 }
  const { gateway } = await pooled([limited])
  expect([(await gateway.chat({})).status, (await gateway.chat({})).status]).toEqual([200, 503])
  expect((await gateway.chat({ model: 'pair' })).status).toBe(200)
  const ofProvider = { provider: 'vllm' }
  const endpoints = { 'solo-a': ofProvider, 'pair-a': ofProvider, 'pair-b': { api_key: 'sk-other' } }
  const shared = await pooled([], { providers: { vllm: { api_keys: [limited] } }, endpoints })
  expect((await shared.gateway.chat({})).status).toBe(200)
  expect((await shared.gateway.chat({})).status).toBe(503)
  const pair = await shared.gateway.chat({ model: 'pair' })
  expect(await shared.gateway.event(pair.headers.get('x-request-id'))).toMatchObject({ endpoint: 'pair-b' })
  expect(await states(shared.gateway, 'vllm')).toEqual(['vllm/a ready'])
})

it('a failure of a key in the middle of an answer counts against the key', async () => {
  const { gateway } = await pooled([A, B])
  const stream = await sseOf(
    await gateway.chat({
      stream: true,
      sandbox: { tokens: 5, fail: { kind: 'error_event', at: 2, code: 'insufficient_quota', message: 'insufficient_quota' } },
    }),
  )
  expect(stream.done_count).toBe(0)
  expect(await states(gateway)).toEqual(['solo-a/a cooling', 'solo-a/b ready'])
  await gateway.audit()
})

it('mistakes in a list of keys are told where they are, without the keys', async () => {
  const wrong = pooled([A, { ...B, name: 'a' }], { endpoints: { 'solo-a': { api_key: 'sk-one', api_keys: [A, { ...B, name: 'a' }] } } })
  await expect(wrong).rejects.toThrow(/the name \\"a\\" is given twice/)
  await expect(wrong).rejects.toThrow(/is given beside api_key/)
  await expect(wrong).rejects.not.toThrow(/sk-/)
  await expect(pooled([{ key: 'with space', name: 'x y', weight: 0 }])).rejects.toThrow(
    /api_keys\[0\]\.key.*has a value that cannot be used/s,
  )
})

it('of keys whose variables are not set the others serve', async () => {
  const { gateway, gate } = await pooled([{ key: '${WEIR_TEST_NO_SUCH_KEY}', name: 'unset' }, B])
  expect((await gateway.chat({})).status).toBe(200)
  expect(gate.seen).toEqual([B.key])
})
