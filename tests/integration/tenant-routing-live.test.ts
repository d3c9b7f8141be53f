import { expect, test } from 'vitest'
import type { RoutingRecord } from '../../src/storage/records.ts'
import { type ShippedGateway, startShipped } from '../support/shipped.ts'

const candidate = (model: string, domain: string | null = null): RoutingRecord['models'][number]['candidates'][number] => ({
  ...{ model, domain, weight: 100, quality: 50 },
})
const ROUTING: Omit<RoutingRecord, 'tenant' | 'version'> = {
  rules: [{ domain: 'legal', keywords: ['鲸鱼'] }],
  samples: [{ text: 'Where is my parcel? The tracking number shows nothing.', domain: 'parcels' }],
  models: [
    {
      id: 'acme/desk',
      domain: null,
      prefer: 'balanced',
      candidates: [candidate('deepseek-flash'), candidate('qwen-plus', 'parcels'), candidate('qwen-turbo', 'legal')],
      canary: null,
      max_price_pico: { input: null, output: null },
    },
  ],
  updated_at: 1,
}

async function say(gateway: ShippedGateway, version: number, routing: typeof ROUTING): Promise<void> {
  const { storage, plane, account_of_test } = gateway
  await storage.records.put({ kind: 'routing', record: { ...routing, tenant: account_of_test.tenant, version } })
  await plane.keys.follow(storage.records)
}

test("a tenant's own words, samples and names decide its calls, and nobody else's, from the change on", async () => {
  const gateway = await startShipped()
  const { post } = gateway
  const route = async (model: string, content: string): Promise<{ status: number; body: Record<string, unknown> }> => {
    const response = await post('/v1/route', { model, messages: [{ role: 'user', content }] })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  expect((await route('acme/desk', '你好')).status).toBe(404)
  await say(gateway, 1, ROUTING)
  expect(await route('acme/desk', '鲸鱼')).toMatchObject({
    status: 200,
    body: { model: 'qwen-turbo', domain: 'legal', by: 'rule', keyword: '鲸鱼' },
  })
  expect(await route('acme/desk', 'where is my parcel, tracking shows nothing')).toMatchObject({
    body: { model: 'qwen-plus', domain: 'parcels', by: 'sample' },
  })
  expect(await route('auto', '鲸鱼')).toMatchObject({ status: 200, body: { domain: 'legal', by: 'rule' } })
  const chat = await post('/v1/chat/completions', { model: 'acme/desk', messages: [{ role: 'user', content: '鲸鱼' }], max_tokens: 5 })
  expect(chat.status).toBe(200)
  expect(chat.headers.get('x-weir-route')).toContain('legal')
  expect(((await chat.json()) as { model: string }).model).toBe('acme/desk')
  const other = await gateway.account({ wallet_cny: '1' })
  const theirs = await fetch(`${gateway.url}/v1/route`, {
    method: 'POST',
    headers: { authorization: `Bearer ${other.secret}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'acme/desk', messages: [{ role: 'user', content: '鲸鱼' }] }),
  })
  expect(theirs.status).toBe(404)
  expect(gateway.log_lines.join('')).not.toContain('鲸鱼')
  await say(gateway, 2, { ...ROUTING, rules: [], samples: [], models: [] })
  expect((await route('acme/desk', '鲸鱼')).status).toBe(404)
})
