import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startAdmin } from '../../src/admin.ts'
import { uuidv7 } from '../../src/base/ids.ts'
import { createControlApi } from '../../src/control/api.ts'
import { createDemo } from '../../src/control/demo.ts'
import { publishPrices } from '../../src/control/prices.ts'
import type { PriceBook } from '../../src/config/model.ts'
import type { HoldRequest } from '../../src/storage/ports.ts'
import { configurationOrThrow } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { openControl, type TestControl } from '../support/control.ts'
import { testClock, ADMITTED_AT } from '../support/clock.ts'
import { REPO_ROOT } from '../support/root.ts'
import { closingEvent, openRow } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const CNY = 1_000_000_000n

async function withTenant(data_dir = tempDir()): Promise<TestControl> {
  const control = await openControl(data_dir)
  expect((await control.call('POST', '/admin/v1/tenants', { id: 'acme' })).status).toBe(201)
  return control
}

function holdRequest(key: string, overrides: Partial<HoldRequest> = {}): HoldRequest {
  return {
    v: 1,
    id: uuidv7(Date.now()),
    tenant: 'acme',
    project: 'acme/default',
    key,
    model: 'qwen3-max',
    lease_ms: 30_000,
    tokens: 10,
    amount_nano: CNY,
    grant_tokens: 10,
    minimum_tokens: 10,
    minimum_nano: CNY,
    rules: [],
    credit_line_nano: 0n,
    ...overrides,
  }
}

describe('who may call', () => {
  test('everything below /admin needs the token; health and metrics do not', async () => {
    const control = await openControl(tempDir())
    const app = createControlApi(control.deps)
    for (const authorization of [undefined, '', 'Bearer', 'Bearer wrong', `Basic ${control.deps.token}`, `Bearer ${control.deps.token}x`]) {
      const response = await app.request('/admin/v1/tenants', authorization === undefined ? {} : { headers: { authorization } })
      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject({ error: { code: 'invalid_api_key', type: 'authentication_error' } })
    }
    expect((await app.request('/healthz')).status).toBe(200)
    const metrics = await app.request('/metrics')
    expect(metrics.headers.get('content-type')).toContain('text/plain')
    expect(await metrics.text()).toContain('weir_open_holds 0')
  })

  test('an empty token admits nobody', async () => {
    const control = await openControl(tempDir())
    const app = createControlApi({ ...control.deps, token: '' })
    expect((await app.request('/admin/v1/tenants', { headers: { authorization: 'Bearer ' } })).status).toBe(401)
  })

  test('an unknown path, a broken body and a large body are refused in the common shape', async () => {
    const control = await openControl(tempDir())
    expect(await control.call('GET', '/admin/v1/nothing')).toMatchObject({ status: 404, body: { error: { code: 'not_found' } } })
    const app = createControlApi(control.deps)
    const headers = { authorization: `Bearer ${control.deps.token}` }
    const broken = await app.request('/admin/v1/tenants', { method: 'POST', headers, body: '{' })
    expect([broken.status, await broken.json()]).toMatchObject([
      400,
      { error: { code: 'invalid_request', message: 'The body is not JSON.' } },
    ])
    const large = await app.request('/admin/v1/tenants', { method: 'POST', headers, body: 'x'.repeat(1_100_000) })
    expect(large.status).toBe(413)
  })
})

describe('tenants and projects', () => {
  test('a tenant begins public, in Shanghai time, with a wallet and a project', async () => {
    const control = await withTenant()
    const { body } = await control.call('GET', '/admin/v1/tenants')
    expect(body['data']).toMatchObject([
      { id: 'acme', name: 'acme', audience: 'public', time_zone: 'Asia/Shanghai', locale: 'zh', credit_line_cny: '0' },
    ])
    expect(await control.call('GET', '/admin/v1/projects?tenant=acme')).toMatchObject({
      body: { data: [{ id: 'acme/default', name: 'default' }] },
    })
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({
      body: { available_cny: '0', grants: [{ id: 'wallet:acme' }] },
    })
  })

  test('every mistake is named at once, and an id is taken once', async () => {
    const control = await withTenant()
    const wrong = { id: 'A B', time_zone: 'Mars/Olympus', audience: 'secret', credit_line_cny: 5, colour: 'red' }
    const { status, text } = await control.call('POST', '/admin/v1/tenants', wrong)
    expect(status).toBe(400)
    for (const word of ['id:', 'time_zone:', 'audience:', 'credit_line_cny:', 'colour']) expect(text).toContain(word)
    expect(await control.call('POST', '/admin/v1/tenants', { id: 'acme' })).toMatchObject({ status: 400, body: { error: { param: 'id' } } })
  })

  test('a tenant waits in a class and with a weight, which can be changed', async () => {
    const control = await withTenant()
    const first = await control.call('GET', '/admin/v1/tenants')
    expect(first.body['data']).toMatchObject([{ id: 'acme', priority: 'normal', queue_weight: 1 }])
    const changed = await control.call('PATCH', '/admin/v1/tenants/acme', { priority: 'high', queue_weight: 7 })
    expect(changed).toMatchObject({ status: 200, body: { priority: 'high', queue_weight: 7 } })
    for (const wrong of [{ priority: 'urgent' }, { queue_weight: 0 }, { queue_weight: 101 }, { queue_weight: 1.5 }])
      expect((await control.call('PATCH', '/admin/v1/tenants/acme', wrong)).status).toBe(400)
    const then = await control.call('GET', '/admin/v1/tenants')
    expect(then.body['data']).toMatchObject([{ id: 'acme', priority: 'high', queue_weight: 7 }])
  })

  test('projects of two tenants never share an id', async () => {
    const control = await withTenant()
    await control.call('POST', '/admin/v1/tenants', { id: 'other' })
    await control.call('POST', '/admin/v1/projects', { tenant: 'acme', id: 'web' })
    await control.call('POST', '/admin/v1/projects', { tenant: 'other', id: 'web' })
    const { body } = await control.call('GET', '/admin/v1/projects')
    expect((body['data'] as { id: string }[]).map(({ id }) => id).toSorted()).toEqual([
      'acme/default',
      'acme/web',
      'other/default',
      'other/web',
    ])
    expect((await control.call('POST', '/admin/v1/projects', { tenant: 'acme', id: 'web' })).status).toBe(400)
    expect((await control.call('POST', '/admin/v1/projects', { tenant: 'nobody', id: 'web' })).status).toBe(404)
  })

  test('amounts of limits are written in CNY and stored in nano-yuan', async () => {
    const control = await openControl(tempDir())
    const limits = [
      { kind: 'budget', limit: '12.5', window: 'month' },
      { kind: 'requests_per_minute', limit: 60 },
    ]
    const { body } = await control.call('POST', '/admin/v1/tenants', { id: 'acme', limits })
    expect(body['limits']).toMatchObject([
      { kind: 'budget', limit: '12.5' },
      { kind: 'requests_per_minute', limit: '60' },
    ])
    expect((await control.storage.records.tenant('acme'))?.limits[0]?.limit).toBe('12500000000')
    const wrong = [
      { kind: 'tokens_window', limit: 5 },
      { kind: 'concurrency', limit: '1.5' },
      { kind: 'concurrency', limit: 5, window: 'day' },
    ]
    expect((await control.call('PATCH', '/admin/v1/tenants/acme', { limits: wrong })).text).toMatch(
      /needs a window.*whole number.*has no window/,
    )
  })

  test('a suspended tenant is refused from the moment the call returns, until it is active again', async () => {
    const control = await withTenant()
    await control.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '5' })
    await control.call('PATCH', '/admin/v1/tenants/acme', { status: 'suspended' })
    expect(await control.storage.limits.hold(holdRequest('k'))).toMatchObject({ ok: false, refusal: { reason: 'tenant_suspended' } })
    expect((await control.call('PATCH', '/admin/v1/tenants/acme', { status: 'active' })).body).toMatchObject({
      status: 'active',
      name: 'acme',
    })
    expect(await control.storage.limits.hold(holdRequest('k'))).toMatchObject({ ok: true })
  })
})

describe('credits', () => {
  test('the same id again changes neither ledger nor limits', async () => {
    const control = await withTenant()
    const credit = { id: 'invoice-7', amount_cny: '12.34', note: 'bank transfer' }
    const path = '/admin/v1/tenants/acme/credit'
    expect(await control.call('POST', path, credit)).toMatchObject({ status: 200, body: { state: 'posted', amount_cny: '12.34' } })
    const again = await Promise.all([control.call('POST', path, credit), control.call('POST', path, credit)])
    expect(again.map(({ body }) => body['state'])).toEqual(['duplicate', 'duplicate'])
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '12.34', held_cny: '0' } })
    expect(await control.call('GET', '/admin/v1/audit')).toMatchObject({ body: { ok: true, findings: [] } })
  })

  test('many at once all arrive', async () => {
    const control = await withTenant()
    const ids = Array.from({ length: 20 }, (_, index) => ({
      id: `c${index}`,
      amount_cny: '0.05',
      kind: index % 2 === 0 ? 'promo' : 'top_up',
    }))
    await Promise.all(ids.map((credit) => control.call('POST', '/admin/v1/tenants/acme/credit', credit)))
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '1' } })
    expect(await control.call('GET', '/admin/v1/audit')).toMatchObject({ body: { ok: true } })
  })

  test('a credit survives a restart', async () => {
    const data_dir = tempDir()
    const before = await withTenant(data_dir)
    await before.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '9007199.254740993' })
    await before.close()
    const after = await openControl(data_dir)
    expect(await after.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '9007199.254740993' } })
    await after.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '9007199.254740993' })
    await after.call('POST', '/admin/v1/tenants/acme/credit', { id: 'b', amount_cny: '1' })
    expect(await after.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '9007200.254740993' } })
  })

  test('a credit whose first try failed after the ledger had it reaches the limits with the second', async () => {
    const control = await withTenant()
    const { ledger } = control.deps
    const app = createControlApi({
      ...control.deps,
      logger: { error: () => {} },
      ledger: Object.assign(Object.create(ledger) as typeof ledger, {
        transaction: (id: string) => ledger.transaction(id),
        transact: async (transaction: Parameters<typeof ledger.transact>[0]) => {
          await ledger.transact(transaction)
          throw new Error('the answer was lost')
        },
      }),
    })
    const headers = { authorization: `Bearer ${control.deps.token}` }
    const body = JSON.stringify({ id: 'a', amount_cny: '3' })
    expect((await app.request('/admin/v1/tenants/acme/credit', { method: 'POST', headers, body })).status).toBe(500)
    expect(await control.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '3' })).toMatchObject({
      body: { state: 'duplicate' },
    })
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '3' } })
  })

  test('amounts that are not exact, not positive or for nobody are refused', async () => {
    const control = await withTenant()
    for (const amount_cny of ['0', '-1', '1e3', '1.0000000001', '', 5]) {
      expect(await control.call('POST', '/admin/v1/tenants/acme/credit', { id: 'x', amount_cny })).toMatchObject({
        status: 400,
        body: { error: { param: 'amount_cny' } },
      })
    }
    expect((await control.call('POST', '/admin/v1/tenants/nobody/credit', { id: 'x', amount_cny: '1' })).status).toBe(404)
  })
})

describe('keys', () => {
  test('the secret is in the answer to its creation and nowhere else', async () => {
    const control = await withTenant()
    const { status, body } = await control.call('POST', '/admin/v1/keys', {
      tenant: 'acme',
      name: 'site',
      models: ['qwen3-max'],
      expires_in_days: 30,
    })
    expect(status).toBe(201)
    const secret = String(body['secret'])
    expect(secret).toMatch(/^sk-weir-[\w-]{43}$/)
    const listed = await control.call('GET', '/admin/v1/keys?tenant=acme')
    expect(listed.body['data']).toMatchObject([
      { id: body['id'], name: 'site', project: 'acme/default', last4: secret.slice(-4), models: ['qwen3-max'] },
    ])
    expect(listed.text).not.toContain(secret)
    expect(listed.text).not.toContain('hash')
  })

  test('lists in pages', async () => {
    const control = await withTenant()
    for (let index = 0; index < 5; index++) await control.call('POST', '/admin/v1/keys', { tenant: 'acme' })
    const ids: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const { body } = await control.call('GET', `/admin/v1/keys?limit=2&cursor=${cursor}`)
      ids.push(...(body['data'] as { id: string }[]).map(({ id }) => id))
      cursor = body['next_cursor'] as string | null
    }
    expect(new Set(ids).size).toBe(5)
    expect(ids).toHaveLength(5)
  })

  test('a revoked key holds nothing from the moment the call returns; revoking again changes nothing', async () => {
    const control = await withTenant()
    await control.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '5' })
    const { body } = await control.call('POST', '/admin/v1/keys', { tenant: 'acme' })
    const id = String(body['id'])
    expect(await control.storage.limits.hold(holdRequest(id))).toMatchObject({ ok: true })
    const heard: number[] = []
    control.storage.changes.subscribe((seq) => heard.push(seq))
    const first = await control.call('POST', `/admin/v1/keys/${id}/revoke`)
    expect(await control.storage.limits.hold(holdRequest(id))).toMatchObject({ ok: false, refusal: { reason: 'key_revoked' } })
    expect(heard).toHaveLength(1)
    const second = await control.call('POST', `/admin/v1/keys/${id}/revoke`)
    expect(second.body['revoked_at']).toBe(first.body['revoked_at'])
    expect((await control.call('POST', '/admin/v1/keys/nothing/revoke')).status).toBe(404)
  })

  test('a model that the catalogue lacks, a past expiry and two expiries are refused', async () => {
    const control = await withTenant()
    const refused = async (extra: object): Promise<string> =>
      (await control.call('POST', '/admin/v1/keys', { tenant: 'acme', ...extra })).text
    expect(await refused({ models: ['qwen3-max', 'gpt-9'] })).toContain('gpt-9')
    expect(await refused({ expires_at: '2001-01-01T00:00:00Z' })).toContain('lies in the past')
    expect(await refused({ expires_at: '2101-01-01T00:00:00Z', expires_in_days: 1 })).toContain('not both')
    expect(await refused({ project: 'none' })).toContain('has no project')
  })

  test('answers only when the data plane has caught up', async () => {
    const control = await withTenant()
    let caught_up = 0
    const app = createControlApi({ ...control.deps, caughtUp: async () => void (await Promise.resolve().then(() => caught_up++)) })
    const headers = { authorization: `Bearer ${control.deps.token}` }
    await app.request('/admin/v1/keys', { method: 'POST', headers, body: JSON.stringify({ tenant: 'acme' }) })
    expect(caught_up).toBe(1)
  })
})

describe('usage', () => {
  async function served(control: TestControl, id: string, overrides: Parameters<typeof closingEvent>[1] = {}): Promise<void> {
    const parts = [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 1000n }] as const
    const event = closingEvent(id, { parts, ...overrides })
    const { hold } = openRow(id)
    await control.storage.limits.hold(holdRequest('key-1', { id, credit_line_nano: CNY }))
    await control.storage.log.open(openRow(id, { hold: { ...hold, admitted_at: event.admitted_at } }))
    await control.storage.log.close(event)
    const settle = { id, tenant: 'acme', admitted_at: event.admitted_at, tokens: 170, amount_nano: 1000n, parts }
    await control.storage.limits.settle(settle)
  }

  test("totals of today in the tenant's time zone, by model and by key, and the events page by page", async () => {
    const control = await openControl(tempDir(), { clock: testClock(ADMITTED_AT + 3_600_000) })
    await control.call('POST', '/admin/v1/tenants', { id: 'acme' })
    await served(control, uuidv7(ADMITTED_AT))
    await served(control, uuidv7(ADMITTED_AT + 1), { model: 'sandbox-chat', key: 'key-2', status: 'aborted' })
    await served(control, uuidv7(ADMITTED_AT - 86_400_000), { admitted_at: ADMITTED_AT - 86_400_000, day: '2026-11-22' })
    const today = await control.call('GET', '/admin/v1/usage?tenant=acme')
    expect(today.body).toMatchObject({
      from: '2026-11-22T16:00:00.000Z',
      to: '2026-11-23T16:00:00.000Z',
      totals: {
        requests: 2,
        completed: 1,
        tokens: { input: 200, cached_input: 40, output: 100 },
        amount_cny: '0.000002',
        cost_cny: '0.0000008',
      },
      groups: [
        { id: 'qwen3-max', requests: 1 },
        { id: 'sandbox-chat', requests: 1 },
      ],
    })
    expect((await control.call('GET', '/admin/v1/usage?from=2026-11-22&to=2026-11-23&group=key')).body).toMatchObject({
      totals: { requests: 3 },
      groups: [
        { id: 'key-1', requests: 2 },
        { id: 'key-2', requests: 1 },
      ],
    })
    const first = await control.call('GET', '/admin/v1/events?from=2026-11-22&limit=2')
    expect(first.body['data']).toHaveLength(2)
    const rest = await control.call('GET', `/admin/v1/events?from=2026-11-22&limit=2&cursor=${String(first.body['next_cursor'])}`)
    expect(rest.body).toMatchObject({ data: [{ day: '2026-11-22', amount_cny: '0.000001', cost_cny: '0.0000004' }], next_cursor: null })
  })

  test.each(['from=yesterday', 'tz=Mars', 'group=colour', 'to=2026-01-01', 'tenant=nobody'])('refuses %s', async (query) => {
    const control = await openControl(tempDir())
    expect((await control.call('GET', `/admin/v1/usage?${query}`)).status).toBeGreaterThanOrEqual(400)
  })

  test.each([
    ['Pacific/Kiritimati', '2026-11-22T10:00:00.000Z'],
    ['Pacific/Niue', '2026-11-23T11:00:00.000Z'],
    ['Asia/Shanghai', '2026-11-22T16:00:00.000Z'],
  ])('a date begins at midnight in %s', async (tz, from) => {
    const control = await openControl(tempDir())
    expect((await control.call('GET', `/admin/v1/usage?from=2026-11-23&to=2026-11-23&tz=${tz}`)).body).toMatchObject({
      from,
      time_zone: tz,
    })
  })

  test('an audit names a balance that admission and ledger disagree on', async () => {
    const control = await withTenant()
    await control.call('POST', '/admin/v1/tenants/acme/credit', { id: 'a', amount_cny: '5' })
    await served(control, uuidv7(Date.now()))
    expect(await control.call('GET', '/admin/v1/audit')).toMatchObject({
      body: { ok: true, checked: { events: 1, tenants: 1, amount_cny: '0.000001' } },
    })
    const wallet = {
      id: 'wallet:acme',
      tenant: 'acme',
      unit: 'nano_cny',
      priority: 100,
      expires_at: null,
      created_at: 0,
      models: null,
      weights: null,
    } as const
    await control.storage.limits.credit({ grant: wallet, delta: 7n, seq: control.storage.limits.appliedSeq('acme') + 1 })
    expect(await control.call('GET', '/admin/v1/audit')).toMatchObject({
      body: {
        ok: false,
        findings: [
          { rule: 'admission and ledger agree on balances', id: 'acme wallet:acme', expected: '4.999999 CNY', found: '4.999999007 CNY' },
        ],
      },
    })
  })
})

describe('first start, prices, reload', () => {
  test('the demo is made once, internal, with 100 CNY and a key that works', async () => {
    const control = await openControl(tempDir())
    const { records, ledger, credits, turns, clock, random } = control.deps
    const demo = await createDemo({ records, ledger, credits, turns, clock, random, has_keys: false })
    expect(demo?.secret).toMatch(/^sk-weir-/)
    expect(await createDemo({ records, ledger, credits, turns, clock, random, has_keys: true })).toBeNull()
    expect(await control.call('GET', '/admin/v1/balance/demo')).toMatchObject({ body: { available_cny: '100' } })
    expect((await control.call('GET', '/admin/v1/tenants')).body['data']).toMatchObject([
      { id: 'demo', audience: 'internal', locale: 'en' },
    ])
    expect(await control.call('GET', '/admin/v1/audit')).toMatchObject({ body: { ok: true } })
  })

  test('a demo that was killed before its key was written is finished at the next start, without a second credit', async () => {
    const control = await openControl(tempDir())
    const { records, ledger, credits, turns, clock } = control.deps
    let draws = 0
    const random = (size: number): Uint8Array => {
      if (draws++ === 0) throw new Error('killed')
      return randomBytes(size)
    }
    await expect(createDemo({ records, ledger, credits, turns, clock, random, has_keys: false })).rejects.toThrow('killed')
    expect((await createDemo({ records, ledger, credits, turns, clock, random, has_keys: false }))?.secret).toMatch(/^sk-weir-/)
    expect(await control.call('GET', '/admin/v1/balance/demo')).toMatchObject({ body: { available_cny: '100' } })
  })

  test('publishing the same prices again is fine; a version edited in place is a conflict', async () => {
    const control = await openControl(tempDir())
    const book = (input: bigint): PriceBook => ({
      calendar: { windows: new Map(), holidays: new Set(), workdays: new Set() },
      sell: new Map([
        [
          'm',
          [
            {
              id: 'm@1',
              effective_from: 0,
              rules: [
                {
                  name: 'base',
                  when: {},
                  tokens: { input, cached_input: 0n, cache_write: 0n, output: 0n },
                  calls: { search: 0n, image: 0n },
                },
              ],
              source: 's',
              as_of: '2026-01-01',
            },
          ],
        ],
      ]),
      cost: new Map(),
    })
    await publishPrices(control.deps.records, book(1n), 0)
    await publishPrices(control.deps.records, book(1n), 5)
    await expect(publishPrices(control.deps.records, book(2n), 9)).rejects.toThrow('m@1 was changed')
  })

  test('a reload that finds mistakes is a refusal that lists them', async () => {
    const issue = { file: 'weir.yaml', path: 'port', line: 3, message: 'is wrong', expected: 'a port' }
    const control = await openControl(tempDir(), { reload: () => Promise.resolve({ ok: false, issues: [issue] }) })
    expect(await control.call('POST', '/admin/v1/reload')).toMatchObject({ status: 400, body: { ok: false, issues: [issue] } })
  })
})

describe('over a socket', () => {
  async function served(): Promise<{ url: string; headers: Record<string, string> }> {
    const control = await withTenant()
    const config_dir = join(REPO_ROOT, 'config')
    const { settings } = configurationOrThrow({ config_dir, env: { WEIR_DATA_DIR: tempDir(), WEIR_PORT: '0', WEIR_ADMIN_PORT: '0' } })
    const admin = await startAdmin({ control: control.deps, metrics: control.deps.metrics }, settings)
    atEnd(() => admin.close())
    return { url: `${admin.url}/admin/v1`, headers: { authorization: `Bearer ${control.deps.token}` } }
  }

  test('a request without a body and without its length is one without a body', async () => {
    const { url, headers } = await served()
    const set = { kind: 'budget', limit: '1', window: 'month' }
    await fetch(`${url}/limits`, { method: 'PUT', headers, body: JSON.stringify({ tenant: 'acme', set }) })
    const removed = await fetch(`${url}/limits?tenant=acme&kind=budget&window=month`, { method: 'DELETE', headers })
    expect([removed.status, await removed.json()]).toMatchObject([200, { data: [] }])
    expect((await fetch(`${url}/tenants/acme/routing`, { method: 'DELETE', headers })).status).toBe(200)
    expect((await fetch(`${url}/tenants`, { method: 'POST', headers })).status).toBe(400)
  })

  test('a body that comes in chunks is read, and refused where it is beyond the limit, which is larger for samples', async () => {
    const { url, headers } = await served()
    const send = async (path: string, method: string, text: string): Promise<number> => {
      const pieces = Array.from({ length: Math.ceil(text.length / 65_536) }, (_, at) => text.slice(at * 65_536, (at + 1) * 65_536))
      const body = ReadableStream.from(pieces.map((piece) => new TextEncoder().encode(piece)))
      const response = await fetch(url + path, { method, headers, body, duplex: 'half' })
      await response.body?.cancel()
      return response.status
    }
    expect(await send('/tenants', 'POST', '{"id":"chunked"}')).toBe(201)
    const samples = Array.from({ length: 500 }, (_, at) => ({ text: `${at}${'字'.repeat(1990)}`, domain: 'own' }))
    expect(await send('/tenants/acme/routing', 'PUT', JSON.stringify({ samples }))).toBe(200)
    expect(await send('/tenants', 'POST', JSON.stringify({ id: 'x', name: 'n'.repeat(1_100_000) }))).toBe(413)
  })
})
