import { expect, it } from 'vitest'
import type { TenantRecord } from '../../src/storage/records.ts'
import { type GatewayOptions, startGateway, type TestGateway, writeFilings } from '../support/gateway.ts'

const FILED = 'Beijing-TestChat-202404280016'
const ABROAD = 'Shanghai-Abroad-202404280017'
const UNKNOWN = 'Beijing-Circulating-202404280099'
const REGISTRATION = 'Hunan-TestApp-20250905S0006'
const OPERATOR = { name: '<b>某公司</b> & "Sons"', registration: 'Hunan-Operator-20250905S0001', contact: '12377' }

/** `solo` and `pair` are filed, `pair` for an application and overseas; `embed` has a number that nobody knows. */
async function start(settings: object = { operator: OPERATOR }): Promise<TestGateway> {
  const endpoint = (id: string, filing: object, zone = 'domestic'): object => ({
    ...{ id, provider: 'vllm', base_url: 'http://127.0.0.1:9/v1', zone, filing: { evidence: 'test', ...filing } },
  })
  const models: GatewayOptions['models'] = {
    solo: { endpoints: [endpoint('solo-a', { number: FILED }), endpoint('solo-b', { number: FILED })] },
    pair: { endpoints: [endpoint('pair-a', { number: ABROAD, registration: REGISTRATION }, 'overseas')] },
    embed: { endpoints: [endpoint('embed-a', { number: UNKNOWN })] },
  }
  return await startGateway({ settings: { ...settings }, models, filings: [FILED, ABROAD] })
}

function read(gateway: TestGateway, path: string, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
  return fetch(gateway.url + path, { headers })
}

async function putTenant(gateway: TestGateway, changes: Partial<TenantRecord>): Promise<void> {
  const { records } = gateway.storage
  const known = await records.tenant(gateway.tenant)
  if (known === null) throw new Error('the tenant of the test is gone')
  await records.put({ kind: 'tenant', record: { ...known, ...changes } })
  await gateway.plane.keys.follow(records)
}

it('anybody may read which filed models are in use, as JSON and in the language that the browser asks for', async () => {
  const gateway = await start()
  for (const response of [await read(gateway, '/filings.json'), await read(gateway, '/filings', { accept: 'application/json' })]) {
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json; charset=utf-8'])
    const row = { model: 'solo', service: `Name of ${FILED}`, entity: `Of ${FILED} 公司`, filing: FILED, registration: null }
    expect(await response.json()).toEqual({
      object: 'filings',
      operator: OPERATOR,
      registry_date: '2026-08-24',
      models: [
        row,
        { ...row, model: 'pair', service: `Name of ${ABROAD}`, entity: `Of ${ABROAD} 公司`, filing: ABROAD, registration: REGISTRATION },
      ],
      left_out: 0,
    })
  }
  const zh = await read(gateway, '/filings', { 'accept-language': 'zh-CN,zh;q=0.9', accept: 'text/html,application/json' })
  const en = await read(gateway, '/filings', { 'accept-language': 'en' })
  expect([zh.headers.get('content-type'), zh.headers.get('content-language'), en.headers.get('content-language')]).toEqual([
    'text/html; charset=utf-8',
    'zh',
    'en',
  ])
  const [page_zh, page_en] = [await zh.text(), await en.text()]
  for (const word of ['备案号', FILED, ABROAD, REGISTRATION, '12377', OPERATOR.registration, '2026-08-24']) expect(page_zh).toContain(word)
  expect(page_en).toContain('Filing number')
  for (const page of [page_zh, page_en]) {
    expect(page).toContain('&lt;b&gt;某公司&lt;/b&gt; &amp; &quot;Sons&quot;')
    expect(page).not.toMatch(/<script|<b>|https?:|src=|href=|embed|Circulating/)
  }
})

it('may be kept, is asked for again without its body, and changes with the configuration', async () => {
  const gateway = await start()
  const first = await read(gateway, '/filings')
  const etag = first.headers.get('etag') ?? ''
  expect([first.headers.get('cache-control'), first.headers.get('vary')]).toEqual([
    'public, max-age=300',
    'accept, accept-language, origin',
  ])
  expect(first.headers.get('content-security-policy')).toContain("default-src 'none'")
  const again = await read(gateway, '/filings', { 'if-none-match': `"x", W/${etag}` })
  expect([again.status, await again.text()]).toEqual([304, ''])
  expect((await read(gateway, '/filings', { 'if-none-match': etag, 'accept-language': 'zh' })).status).toBe(200)
  const head = await fetch(`${gateway.url}/filings`, { method: 'HEAD' })
  expect([head.status, head.headers.get('etag'), await head.text()]).toEqual([200, etag, ''])
  writeFilings(gateway.config_dir, [FILED])
  gateway.reload()
  expect(await (await read(gateway, '/filings', { 'if-none-match': etag })).text()).not.toContain(ABROAD)
})

it("a tenant's page has its own name and number, and the models that it can call; it comes and goes with its slug", async () => {
  const gateway = await start()
  expect((await read(gateway, '/filings/acme')).status).toBe(404)
  await putTenant(gateway, { public_slug: 'acme', name: '甲应用', registration_number: REGISTRATION })
  const page = await (await read(gateway, '/filings/acme.json')).json()
  expect(page).toMatchObject({
    tenant: { name: '甲应用', registration: REGISTRATION },
    operator: OPERATOR,
    models: [{ model: 'solo', filing: FILED }],
  })
  expect((page as { models: readonly object[] }).models).toHaveLength(1)
  expect(await (await read(gateway, '/filings/acme', { 'accept-language': 'zh' })).text()).toContain('甲应用')
  await putTenant(gateway, { public_slug: 'other', status: 'suspended' })
  expect([(await read(gateway, '/filings/acme')).status, (await read(gateway, '/filings/other')).status]).toEqual([404, 404])
  await putTenant(gateway, { status: 'active' })
  expect((await read(gateway, '/filings/other')).status).toBe(200)
})

it.each(['/filings/nobody', '/filings/nobody.json', '/filings/', '/filings/A', '/filings/..%2f', '/filings/a/b', '/filings.xml'])(
  '%s is not found',
  async (path) => {
    const gateway = await start()
    const response = await read(gateway, path)
    expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([404, 'not_found'])
  },
)

it('only reading is allowed, and without an operator or a filed model the page says so', async () => {
  const gateway = await startGateway()
  const posted = await fetch(`${gateway.url}/filings`, { method: 'POST' })
  expect([posted.status, posted.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
  expect(await (await read(gateway, '/filings.json')).json()).toEqual({
    object: 'filings',
    operator: null,
    registry_date: null,
    models: [],
    left_out: 0,
  })
  expect(await (await read(gateway, '/filings')).text()).toContain('No model serves the public at present.')
})

it('visitors of pages are bounded together, like one tenant', async () => {
  const gateway = await start({ limits: { max_open_requests: 4, tenant_share_percent: 50, upstream_connections_per_origin: 10 } })
  const leave = [1, 2].map(() => gateway.plane.open.enter('', 4, 50))
  const refused = await read(gateway, '/filings')
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
  for (const end of leave) end()
  expect((await read(gateway, '/filings')).status).toBe(200)
  expect(gateway.plane.open.total).toBe(0)
})
