import OpenAI, { PermissionDeniedError } from 'openai'
import { expect, it } from 'vitest'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import { atEnd } from '../support/cleanup.ts'
import { type GatewayOptions, startGateway, type TestGateway, writeFilings } from '../support/gateway.ts'
import { sseOf } from '../support/sse.ts'

const QUESTION = [{ role: 'user' as const, content: 'Say hello' }]
const FILED = 'Beijing-TestChat-202404280016'
const UNKNOWN = 'Beijing-Circulating-202404280099'
const REGISTRATION = 'Hunan-TestApp-20250905S0006'

/** `pair` is served by somebody's real servers: at /a with a filing that nobody knows, at /b with one in the registry. */
async function start(options: Omit<GatewayOptions, 'models'> = {}): Promise<{ readonly gateway: TestGateway; readonly upstream: Sandbox }> {
  const upstream = await startSandbox({ port: 0 })
  atEnd(() => upstream.close())
  const endpoint = (prefix: string, tier: number, filing: object): object => ({
    ...{ id: `pair-${prefix}`, provider: 'vllm', base_url: `${upstream.url}/${prefix}/v1`, tier, upstream_model: 'up-pair' },
    filing: { evidence: 'test', ...filing },
  })
  const endpoints = [endpoint('a', 1, { number: UNKNOWN }), endpoint('b', 2, { number: FILED.toLowerCase(), registration: REGISTRATION })]
  const gateway = await startGateway({ filings: [FILED], ...options, models: { pair: { endpoints } } })
  return { gateway, upstream }
}

it('traffic that serves the public goes to the endpoint in the registry alone, and its answers and event say so', async () => {
  const { gateway, upstream } = await start({ tenant: { audience: 'public' } })
  const good = await gateway.chat({ model: 'pair' })
  expect([good.status, good.headers.get('x-weir-filing')]).toEqual([200, `${FILED}; registration=${REGISTRATION}`])
  expect(await gateway.event(good.headers.get('x-request-id'))).toMatchObject({
    endpoint: 'pair-b',
    filing: FILED,
    registry_date: '2026-08-24',
  })
  const stream = await gateway.chat({ model: 'pair', stream: true })
  expect(stream.headers.get('x-weir-filing')).toBe(`${FILED}; registration=${REGISTRATION}`)
  expect(await sseOf(stream)).toMatchObject({ done_count: 1 })
  expect((await gateway.chat({ model: 'pair', sandbox: { fail: { kind: 'refuse', status: 500 } } })).status).toBe(502)
  expect(new Set(upstream.served().served.map(({ path }) => path.slice(0, 3)))).toEqual(new Set(['/b/']))
})

it('an internal tenant uses any endpoint, and a number that nobody knows is not shown', async () => {
  const { gateway } = await start()
  const response = await gateway.chat({ model: 'pair' })
  expect([response.status, response.headers.get('x-weir-filing')]).toEqual([200, null])
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({
    endpoint: 'pair-a',
    filing: null,
    registry_date: '2026-08-24',
  })
})

it('a number leaves and enters the registry with a reload', async () => {
  const { gateway } = await start({ tenant: { audience: 'public' }, filings: [] })
  expect((await gateway.chat({ model: 'pair' })).status).toBe(403)
  writeFilings(gateway.config_dir, [FILED])
  gateway.reload()
  expect((await gateway.chat({ model: 'pair' })).status).toBe(200)
  writeFilings(gateway.config_dir, [UNKNOWN])
  gateway.reload()
  expect((await gateway.chat({ model: 'pair' })).headers.get('x-weir-filing')).toBe(UNKNOWN)
})

it.each([
  ['en', ['The model pair has no filing number', 'GET /v1/models', 'internal']],
  ['zh', ['模型 pair 在本网关的备案名录中没有备案号', 'GET /v1/models', 'internal']],
] as const)('the official SDK is told in %s what to do where no endpoint is in the registry', async (locale, words) => {
  const { gateway, upstream } = await start({ tenant: { audience: 'public', locale }, filings: [] })
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 2 })
  const error: unknown = await client.chat.completions.create({ model: 'pair', messages: QUESTION }).then(
    () => null,
    (cause: unknown) => cause,
  )
  expect(error).toBeInstanceOf(PermissionDeniedError)
  expect(error).toMatchObject({ status: 403, code: 'filing_required', param: 'model' })
  for (const word of words) expect((error as PermissionDeniedError).message).toContain(word)
  expect(upstream.served().totals.requests).toBe(0)
})

it('the list of models has filing number, registration and entity', async () => {
  const { gateway } = await start({ tenant: { audience: 'public' } })
  const { data } = (await (await gateway.get('/v1/models')).json()) as { data: readonly object[] }
  expect(data).toMatchObject([{ id: 'pair', filing: FILED, registration: REGISTRATION, filing_entity: `Of ${FILED} 公司` }])
  expect(await (await gateway.get('/v1/models/pair')).json()).toMatchObject({ filing: FILED, registration: REGISTRATION })
})
