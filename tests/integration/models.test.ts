import { expect, it } from 'vitest'
import { startGateway } from '../support/gateway.ts'

const FILING = { number: 'Beijing-TestChat-202404280016', evidence: 'test' }
const ids = async (response: Response): Promise<string[]> =>
  ((await response.json()) as { data: Array<{ id: string }> }).data.map(({ id }) => id)

it('a key sees the models it may call and no others', async () => {
  const gateway = await startGateway()
  const limited = await gateway.account({ key: { models: ['pair'] } })
  const abroad = await gateway.account({ key: { zones: ['overseas'] } })
  const serves_the_public = await gateway.account({ tenant: { audience: 'public' } })
  expect(await ids(await gateway.get('/v1/models'))).toEqual(['solo', 'pair', 'embed'])
  expect(await ids(await gateway.get('/v1/models', limited.secret))).toEqual(['pair'])
  expect(await ids(await gateway.get('/v1/models', abroad.secret))).toEqual([])
  expect(await ids(await gateway.get('/v1/models', serves_the_public.secret))).toEqual([])
  expect((await gateway.get('/v1/models/solo', limited.secret)).status).toBe(404)
})

it('a key that may call an alias alone sees the alias', async () => {
  const gateway = await startGateway()
  const { secret } = await gateway.account({ key: { models: ['fast'] } })
  expect(await ids(await gateway.get('/v1/models', secret))).toEqual(['fast'])
  expect(((await (await gateway.get('/v1/models/fast', secret)).json()) as { id: string }).id).toBe('fast')
  expect((await gateway.get('/v1/models/solo', secret)).status).toBe(404)
  expect((await gateway.chat({ model: 'fast' }, { authorization: `Bearer ${secret}` })).status).toBe(200)
})

it.each([
  ['zones of the key', { key: { zones: ['overseas'] } }, 403, 'zone_not_allowed'],
  ['zones of the tenant', { tenant: { zones: ['domestic'] } }, 403, 'zone_not_allowed'],
  ['models of the key', { key: { models: ['pair'] } }, 403, 'model_not_allowed'],
  ['an audience that needs a filing', { tenant: { audience: 'public' } }, 403, 'filing_required'],
] as const)('%s are kept', async (_, account, status, code) => {
  const gateway = await startGateway()
  const other = await gateway.account(account)
  const response = await gateway.chat({}, { authorization: `Bearer ${other.secret}` })
  expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([status, code])
  expect(gateway.sandbox.served().totals.requests).toBe(0)
})

it('traffic that serves the public goes to the filed endpoint alone, even when that one fails', async () => {
  const plain = await startGateway()
  const endpoint = (prefix: string, tier: number): object => ({
    id: prefix,
    provider: 'sandbox',
    base_url: `${plain.sandbox.url}/${prefix}/v1`,
    tier,
  })
  const gateway = await startGateway({
    models: { pair: { endpoints: [endpoint('a', 1), { ...endpoint('b', 2), filing: FILING }] } },
    tenant: { audience: 'public' },
  })
  const good = await gateway.chat({ model: 'pair' })
  expect(good.status).toBe(200)
  expect((await gateway.event(good.headers.get('x-request-id')))?.filing).toBe(FILING.number)
  expect((await gateway.chat({ model: 'pair', sandbox: { fail: { kind: 'refuse', status: 500 } } })).status).toBe(502)
  expect(plain.sandbox.served().served.map(({ path }) => path.slice(0, 3))).toEqual(['/b/', '/b/'])
})

it('an answer of the sandbox says so and carries no filing number', async () => {
  const gateway = await startGateway()
  const response = await gateway.chat({})
  expect(response.headers.get('x-weir-sandbox')).toBe('1')
  expect(response.headers.get('x-weir-filing')).toBeNull()
})
