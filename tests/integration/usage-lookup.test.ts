import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { startGateway } from '../support/gateway.ts'
import { errorOf } from '../support/sse.ts'

interface UsagePage {
  readonly totals: ReadonlyArray<Record<string, unknown>>
  readonly events: ReadonlyArray<Record<string, unknown>>
  readonly next_cursor: string | null
}

it('a request can be asked about by its id: route, tokens, price, amount, and who paid', async () => {
  const gateway = await startGateway()
  const answer = await gateway.chat({ model: 'fast', sandbox: { tokens: 20 } })
  const id = answer.headers.get('x-request-id')
  const event = await gateway.event(id)
  const seen = (await (await gateway.get(`/v1/usage/${id}`)).json()) as Record<string, unknown>
  expect(seen).toMatchObject({
    id,
    refused: false,
    model: 'solo',
    model_asked: 'fast',
    status: 'completed',
    price_version: expect.stringContaining('solo@v1'),
    tokens: { output: 20 },
  })
  expect(seen['amount_cny']).toBe(cnyFromNano(event?.amount_nano ?? -1n))
  expect(seen['paid_by']).toEqual([{ grant: `wallet:${gateway.tenant}`, unit: 'nano_cny', amount: seen['amount_cny'] }])
  expect(JSON.stringify(seen)).not.toContain('cost')
})

it('a refusal can be asked about too', async () => {
  const gateway = await startGateway()
  const refused = await gateway.chat({ model: 'none' })
  const seen = (await (await gateway.get(`/v1/usage/${refused.headers.get('x-request-id')}`)).json()) as Record<string, unknown>
  expect(seen).toMatchObject({ refused: true, code: 'model_not_found', amount_cny: '0' })
})

it('another tenant’s request, a refused one of another tenant and one that never was look the same: not found', async () => {
  const gateway = await startGateway()
  const other = await gateway.account()
  const [answered, refused] = [await gateway.chat({}), await gateway.chat({ model: 'none' })]
  for (const id of [answered.headers.get('x-request-id'), refused.headers.get('x-request-id'), '0199-none', '%00', "' OR 1=1"]) {
    const response = await gateway.get(`/v1/usage/${id}`, other.secret)
    expect([id, response.status, (await errorOf(response)).code]).toEqual([id, 404, 'not_found'])
  }
})

it('two tenants see, spend and hold their own only', async () => {
  const gateway = await startGateway()
  const other = await gateway.account({ wallet_cny: '5' })
  await (await gateway.chat({})).text()
  await (await gateway.chat({ stream: true })).text()
  const mine = (await (await gateway.get('/v1/usage')).json()) as UsagePage
  const theirs = (await (await gateway.get('/v1/usage', other.secret)).json()) as UsagePage
  expect([mine.events.length, theirs.events.length, theirs.totals.length]).toEqual([2, 0, 0])
  expect(await (await gateway.get('/v1/balance', other.secret)).json()).toMatchObject({
    available_cny: '5',
    held_cny: '0',
    open_requests: 0,
  })
  const asked_for = (await (await gateway.get(`/v1/usage?key=${gateway.main_account.key.id}`, other.secret)).json()) as UsagePage
  expect(asked_for.events).toEqual([])
})

it('the balance shows every limit that its caller must fit into, and where it stands', async () => {
  const gateway = await startGateway()
  const plan = { kind: 'requests_window', model: null, limit: '10', window: '5h' } as const
  const spend = { kind: 'budget', model: null, limit: '5000000000', window: 'month' } as const
  const { secret } = await gateway.account({ key: { limits: [plan] }, tenant: { limits: [spend] } })
  await (await gateway.chat({}, { authorization: `Bearer ${secret}` })).text()
  expect(await (await gateway.get('/v1/balance', secret)).json()).toMatchObject({
    limits: [
      { scope: 'key', kind: 'requests_window', window: '5h', limit: '10', used: '1', held: '0', available: '9' },
      { scope: 'tenant', kind: 'budget', window: 'month', limit: '5', held: '0' },
    ],
  })
})

it('totals are the sum of the events, and pages together are all of them, once each', async () => {
  const gateway = await startGateway()
  for (let index = 0; index < 7; index += 1)
    await (await gateway.chat({ model: index % 2 === 0 ? 'solo' : 'pair', sandbox: { tokens: index + 1 } })).text()
  const ids: unknown[] = []
  let cursor: string | null = ''
  let pages = 0
  while (cursor !== null) {
    const page = (await (
      await gateway.get(`/v1/usage?limit=3${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)
    ).json()) as UsagePage
    ids.push(...page.events.map(({ id }) => id))
    cursor = page.next_cursor
    pages += 1
  }
  expect([ids.length, new Set(ids).size]).toEqual([7, 7])
  expect(pages).toBeLessThanOrEqual(4)
  const { totals } = (await (await gateway.get('/v1/usage')).json()) as UsagePage
  expect(totals.map(({ model, requests, tokens }) => [model, requests, (tokens as { output: number }).output])).toEqual(
    expect.arrayContaining([
      ['solo', 4, 16],
      ['pair', 3, 12],
    ]),
  )
  const only_pair = (await (await gateway.get('/v1/usage?model=pair')).json()) as UsagePage
  expect(only_pair.events).toHaveLength(3)
})

it.each(['limit=0', 'limit=x', 'limit=1001', 'from=yesterday', 'tenant=other', `cursor=${'x'.repeat(300)}`])(
  'a query that cannot be meant is refused: %s',
  async (query) => {
    const gateway = await startGateway()
    const response = await gateway.get(`/v1/usage?${query}`)
    expect([response.status, (await errorOf(response)).code]).toEqual([400, 'invalid_request'])
  },
)

it('the balance shows what an open request holds, and shows it free again', async () => {
  const gateway = await startGateway({ wallet_cny: '1' })
  const open = await gateway.chat({ stream: true, max_tokens: 100, sandbox: { tokens: 50, token_delay_ms: 20 } })
  const during = (await (await gateway.get('/v1/balance')).json()) as { held_cny: string; open_requests: number }
  expect(during.open_requests).toBe(1)
  expect(Number(during.held_cny)).toBeGreaterThan(0)
  await open.text()
  const { amount_nano } = await gateway.audit()
  expect(await (await gateway.get('/v1/balance')).json()).toMatchObject({
    available_cny: cnyFromNano(1_000_000_000n - amount_nano),
    held_cny: '0',
    open_requests: 0,
  })
})
