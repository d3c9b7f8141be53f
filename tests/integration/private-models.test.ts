import { expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../support/gateway.ts'

const SHARED = { kind: 'chat', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 }

async function start(): Promise<{ gateway: TestGateway; bank: string; shop: string }> {
  const outer = await startGateway()
  const at = (id: string, prefix: string, more: object = {}): object => ({
    id,
    provider: 'sandbox',
    base_url: `${outer.sandbox.url}/${prefix}/v1`,
    ...more,
  })
  const gateway = await startGateway({
    models: {
      'bank-own': { ...SHARED, aliases: ['own'], tenants: ['bank'], endpoints: [at('own-a', 'own')] },
      'bank-by-endpoint': { ...SHARED, endpoints: [at('by-endpoint', 'own', { tenants: ['bank'] })] },
      shared: {
        ...SHARED,
        endpoints: [at('shared-own', 'own', { tenants: ['bank'], tier: 1 }), at('shared-all', 'all', { tier: 2 })],
      },
      old: { ...SHARED, life: 'deprecated', replaced_by: 'bank-own', endpoints: [at('old-a', 'all')] },
      gone: { ...SHARED, retires_on: '2026-01-02', replaced_by: 'bank-own', endpoints: [at('gone-a', 'all')] },
    },
  })
  const bank = await gateway.account({ tenant: { id: 'bank' } })
  const shop = await gateway.account({ tenant: { id: 'shop' }, key: { models: null } })
  return { gateway, bank: bank.secret, shop: shop.secret }
}

const idsOf = async (response: Response): Promise<string[]> =>
  ((await response.json()) as { data: { id: string }[] }).data.map(({ id }) => id)
const bearer = (secret: string): Record<string, string> => ({ authorization: `Bearer ${secret}` })

it('a private model exists for the tenants that it names alone', async () => {
  const { gateway, bank, shop } = await start()
  expect(await idsOf(await gateway.get('/v1/models', bank))).toEqual(expect.arrayContaining(['bank-own', 'bank-by-endpoint', 'shared']))
  expect(await idsOf(await gateway.get('/v1/models', shop))).toEqual(['solo', 'pair', 'shared', 'old', 'embed'])
  for (const name of ['bank-own', 'own', 'bank-by-endpoint']) {
    expect((await gateway.chat({ model: name }, bearer(bank))).status).toBe(200)
    const refused = await gateway.chat({ model: name }, bearer(shop))
    const unknown = await gateway.chat({ model: 'nothing-here' }, bearer(shop))
    const words = async (response: Response): Promise<unknown> => ({
      ...((await response.json()) as { error: object }).error,
      request_id: null,
    })
    expect([refused.status, JSON.stringify(await words(refused)).replaceAll(name, 'nothing-here')]).toEqual([
      404,
      JSON.stringify(await words(unknown)),
    ])
    expect((await gateway.get(`/v1/models/${name}`, shop)).status).toBe(404)
  }
})

it('an endpoint that is reserved is no target of others, also when theirs fail', async () => {
  const { gateway, bank, shop } = await start()
  const fail = { sandbox: { fail: { kind: 'refuse', status: 500 } } }
  expect((await gateway.event((await gateway.chat({ model: 'shared' }, bearer(bank))).headers.get('x-request-id')))?.endpoint).toBe(
    'shared-own',
  )
  expect((await gateway.event((await gateway.chat({ model: 'shared' }, bearer(shop))).headers.get('x-request-id')))?.endpoint).toBe(
    'shared-all',
  )
  const failed = await gateway.chat({ model: 'shared', ...fail }, bearer(shop))
  expect([failed.status, await failed.text()]).toEqual([502, expect.not.stringContaining('own') as unknown])
})

it('a successor that is private is named to those alone for whom it exists', async () => {
  const { gateway, bank, shop } = await start()
  const old = async (secret: string): Promise<string | null> =>
    (await gateway.chat({ model: 'old' }, bearer(secret))).headers.get('x-weir-replaced-by')
  expect([await old(bank), await old(shop)]).toEqual(['bank-own', null])
  const gone = async (secret: string): Promise<string> => await (await gateway.chat({ model: 'gone' }, bearer(secret))).text()
  expect(await gone(bank)).toContain('Use bank-own instead')
  expect(await gone(shop)).not.toContain('bank')
  const listed = (await (await gateway.get('/v1/models/old', shop)).json()) as { replaced_by?: string }
  expect(listed.replaced_by).toBeUndefined()
})
