import { expect, it, vi } from 'vitest'
import { windowAround } from '../../src/money/window.ts'
import { rebuildLimits } from '../../src/storage/memory/rebuild.ts'
import {
  type KeyRecord,
  type LoadedRecords,
  type ProjectRecord,
  type Records,
  TENANT_DEFAULTS,
  type TenantRecord,
} from '../../src/storage/records.ts'
import { SqlRecords } from '../../src/storage/sql/records.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { startWhole } from '../support/whole.ts'

const TENANTS = 40
const KEYS_EACH = 30

function tenantOf(id: string): TenantRecord {
  return {
    id,
    name: id,
    audience: 'internal',
    status: 'active',
    locale: 'en',
    time_zone: 'Asia/Shanghai',
    zones: ['private'],
    on_client_abort: 'cancel',
    on_limits_away: 'closed',
    credit_line_nano: 0n,
    limits: [{ kind: 'budget', model: null, limit: '9000', window: null }],
    ...TENANT_DEFAULTS,
    created_at: 1,
  }
}

function projectOf(tenant: string): ProjectRecord {
  return { id: `${tenant}/default`, tenant, name: 'default', limits: [], zones: null, created_at: 1 }
}

function keyOf(tenant: string, index: number): KeyRecord {
  return {
    id: `${tenant}-key-${index}`,
    tenant,
    project: `${tenant}/default`,
    name: 'k',
    hash: `hash of ${tenant} ${index}`,
    last4: 'abcd',
    scopes: [],
    models: null,
    zones: null,
    limits: [{ kind: 'requests_window', model: null, limit: '100', window: 'day' }],
    expires_at: null,
    revoked_at: index === 0 ? 5 : null,
    created_at: 1,
  }
}

const TENANT_IDS = Array.from({ length: TENANTS }, (_, index) => `tenant-${index}`)

it('a start reads every key once, and the keys work', async () => {
  const whole = await startWhole()
  await whole.weir.drain()
  const storage = await openTest(whole.data_dir)
  for (const id of TENANT_IDS.slice(0, 4)) {
    await storage.records.put({ kind: 'tenant', record: tenantOf(id) })
    await storage.records.put({ kind: 'project', record: projectOf(id) })
    for (let index = 0; index < 5; index++) await storage.records.put({ kind: 'key', record: keyOf(id, index) })
  }
  await storage.close()
  const read: string[] = []
  const original = Object.getOwnPropertyDescriptor(SqlRecords.prototype, 'load')?.value as Records['load']
  const load = vi.spyOn(SqlRecords.prototype, 'load').mockImplementation(function (this: SqlRecords, onKeys) {
    return original.call(this, (keys) => {
      read.push(...keys.map(({ id }) => id))
      onKeys(keys)
    })
  })
  const keys = vi.spyOn(SqlRecords.prototype, 'keys')
  try {
    const again = await whole.again()
    // Keys of one tenant are asked for once more: whether the demo has any.
    expect([load.mock.calls.length, keys.mock.calls]).toEqual([1, [['demo']]])
    // The demo's own key is one more.
    expect([read.length, new Set(read).size]).toEqual([21, 21])
    expect((await fetch(`${again.url}/v1/models`, { headers: { authorization: `Bearer ${whole.key}` } })).status).toBe(200)
  } finally {
    load.mockRestore()
    keys.mockRestore()
  }
})

it('rebuilding limits looks at every key once, however many tenants there are', async () => {
  const clock = testClock(ADMITTED_AT)
  const storage = await openTest(tempDir(), { clock })
  let looks = 0
  const counted = (key: KeyRecord): KeyRecord =>
    new Proxy(key, {
      get: (target, property) => {
        if (property === 'limits') looks += 1
        return Reflect.get(target, property) as unknown
      },
    })
  const pages = TENANT_IDS.map((id) => Array.from({ length: KEYS_EACH }, (_, index) => counted(keyOf(id, index))))
  const rest: LoadedRecords = { seq: 1, tenants: TENANT_IDS.map(tenantOf), projects: TENANT_IDS.map(projectOf), grants: [] }
  const load: Records['load'] = (onKeys) => {
    for (const page of pages) onKeys(page)
    return Promise.resolve(rest)
  }
  await rebuildLimits(storage.limits, { load }, storage.ledger, { clock, windowAt: windowAround })
  expect(looks).toBe(TENANTS * KEYS_EACH)
  const request = { v: 1, id: 'h', tenant: 'tenant-7', project: 'tenant-7/default', model: 'm', lease_ms: 1, tokens: 1 } as const
  const nothing = { grant_tokens: 0, minimum_tokens: 0, amount_nano: 0n, minimum_nano: 0n, rules: [], credit_line_nano: 0n } as const
  const revoked = await storage.limits.hold({ ...request, ...nothing, key: 'tenant-7-key-0' })
  expect(revoked).toMatchObject({ ok: false, refusal: { reason: 'key_revoked' } })
  expect(await storage.limits.hold({ ...request, ...nothing, key: 'tenant-7-key-1' })).toMatchObject({ ok: true })
  await storage.close()
})
