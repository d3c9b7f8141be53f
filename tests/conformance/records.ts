import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type GrantRecord,
  type KeyRecord,
  type LoadedRecords,
  PriceVersionConflict,
  type PriceVersionRecord,
  type ProjectRecord,
  type ProviderKeyRecord,
  PublicSlugTaken,
  type RecordChange,
  type Records,
  type RoutingRecord,
  TENANT_DEFAULTS,
  type TenantRecord,
} from '../../src/storage/records.ts'
import type { StorageSubject } from './usage-log.ts'

const TENANT: TenantRecord = {
  id: 'acme',
  name: '某某科技',
  audience: 'public',
  status: 'active',
  locale: 'zh',
  time_zone: 'Asia/Shanghai',
  zones: ['domestic'],
  on_client_abort: 'cancel',
  on_limits_away: 'closed',
  priority: 'normal',
  queue_weight: 1,
  credit_line_nano: 9_007_199_254_740_993n,
  limits: [{ kind: 'requests_per_minute', model: null, limit: '600', window: null }],
  registration_number: 'Hunan-Sibionics-20250905S0006',
  public_slug: 'acme-app',
  label: 'explicit',
  label_text: '（AI生成）',
  label_place: 'end',
  created_at: 1_700_000_000_000,
}
const PROJECT: ProjectRecord = { id: 'web', tenant: 'acme', name: 'Web', limits: [], zones: null, created_at: 2 }
const KEY: KeyRecord = {
  id: 'key-1',
  tenant: 'acme',
  project: 'web',
  name: 'server',
  hash: 'ab'.repeat(32),
  last4: 'wxyz',
  scopes: ['chat'],
  models: ['qwen3-max'],
  zones: null,
  limits: [],
  expires_at: null,
  revoked_at: null,
  created_at: 3,
}
const GRANT: GrantRecord = {
  id: 'pack-1',
  tenant: 'acme',
  kind: 'pack',
  unit: 'tokens',
  amount: 9_007_199_254_740_993n,
  priority: 5,
  models: ['qwen3-max'],
  weights: { 'qwen3-max': '1.5' },
  expires_at: 1_800_000_000_000,
  created_at: 4,
}
const ROUTING: RoutingRecord = {
  tenant: 'acme',
  version: 1,
  rules: [{ domain: 'finance', keywords: ['理财', '"\\\u0000'] }],
  samples: [{ text: '我的快递到哪了\u0000\ud800😀', domain: 'parcels' }],
  models: [
    {
      id: 'acme/fast',
      domain: null,
      prefer: 'cost',
      candidates: [{ model: 'qwen3-max', domain: 'finance', weight: 3, quality: 50 }],
      canary: { model: 'qwen3-max', percent: 2.5 },
      max_price_pico: { input: 9_007_199_254_740_993n, output: null },
    },
  ],
  updated_at: 7,
}
const PRICE: PriceVersionRecord = { id: 'p@1', side: 'sell', subject: 'qwen3-max', effective_from: 5, body: '{"a":1}', created_at: 6 }
const PROVIDER_KEY: ProviderKeyRecord = {
  id: 'deepseek/main',
  provider: 'deepseek',
  name: 'main',
  secret: 'v1.0123456789abcdef.wrapped.sealed',
  last4: 'wxyz',
  weight: 3,
  concurrency: null,
  requests_per_minute: 600,
  tokens_per_minute: 1_000_000_000_000,
  status: 'active',
  created_at: 7,
  changed_at: 8,
}
const ALL: readonly RecordChange[] = [
  { kind: 'tenant', record: TENANT },
  { kind: 'project', record: PROJECT },
  { kind: 'key', record: KEY },
  { kind: 'grant', record: GRANT },
  { kind: 'routing', record: ROUTING },
]

interface Everything extends LoadedRecords {
  readonly keys: readonly KeyRecord[]
  readonly routing: readonly RoutingRecord[]
}

async function loadAll(records: Records): Promise<Everything> {
  const keys: KeyRecord[] = []
  const routing: RoutingRecord[] = []
  const rest = await records.load(
    (page) => void keys.push(...page),
    (page) => void routing.push(...page),
  )
  return { ...rest, keys, routing }
}

/** Some at a time: only so many writes may wait. */
async function putKeys(records: Records, keys: readonly KeyRecord[]): Promise<void> {
  for (let at = 0; at < keys.length; at += 500) {
    await Promise.all(keys.slice(at, at + 500).map((record) => records.put({ kind: 'key', record })))
  }
}

/** Every driver of the records passes these. */
export function recordsConformance(name: string, make: () => Promise<StorageSubject>): void {
  describe(`records: ${name}`, () => {
    let subject: StorageSubject
    beforeEach(async () => {
      subject = await make()
    })
    afterEach(() => subject.end())

    it('gives back what was put, exactly, also after a restart', async () => {
      for (const change of ALL) await subject.storage.records.put(change)
      const { records } = await subject.reopen()
      expect(await records.tenant('acme')).toEqual(TENANT)
      expect(await records.tenant('nobody')).toBeNull()
      expect(await records.tenants()).toEqual([TENANT])
      expect(await records.projects('acme')).toEqual([PROJECT])
      expect(await records.keys('acme')).toEqual([KEY])
      expect(await records.keys('nobody')).toEqual([])
      expect(await records.key('key-1')).toEqual(KEY)
      expect(await records.grants()).toEqual([GRANT])
      expect(await records.routing('acme')).toEqual(ROUTING)
      expect(await records.routing('nobody')).toBeNull()
      const rest = { seq: 5, tenants: [TENANT], projects: [PROJECT], grants: [GRANT] }
      expect(await loadAll(records)).toEqual({ ...rest, keys: [KEY], routing: [ROUTING] })
    })

    it('keeps keys of providers, whose changes are numbered and tell nothing of their secrets', async () => {
      const { records } = subject.storage
      expect(await records.providerKeys()).toEqual([])
      const other = { ...PROVIDER_KEY, id: 'deepseek/a', name: 'a', last4: null, requests_per_minute: null, tokens_per_minute: null }
      const first = await records.put({ kind: 'provider_key', record: PROVIDER_KEY })
      await records.put({ kind: 'provider_key', record: other })
      const removed = { ...other, secret: '', status: 'removed' } as const
      await records.put({ kind: 'provider_key', record: removed })
      expect(await records.changesAfter(first - 1, 10)).toEqual(
        [PROVIDER_KEY, other, removed].map((record, index) => ({
          seq: first + index,
          change: { kind: 'provider_key', record: { ...record, secret: '' } },
        })),
      )
      const reopened = await subject.reopen()
      expect(await reopened.records.providerKeys()).toEqual([removed, PROVIDER_KEY])
    })

    it('loads every key once, each as it was put, however many there are', async () => {
      const { records } = subject.storage
      expect(await loadAll(records)).toEqual({ seq: 0, tenants: [], projects: [], keys: [], grants: [], routing: [] })
      const lists: readonly Partial<KeyRecord>[] = [
        { scopes: [], models: null, zones: ['domestic'] },
        { models: [], limits: [{ kind: 'budget', model: '"', limit: '9', window: null }], revoked_at: 0 },
        { limits: TENANT.limits, expires_at: 8_640_000_000_000_000, name: '"\\某\u0001\n' },
      ]
      const put = Array.from({ length: 2100 }, (_, index): KeyRecord => {
        const number = String(index * 7919).padStart(9, '0')
        return { ...KEY, id: `key-${number}`, hash: number.padStart(64, '0'), tenant: `t${index % 7}`, ...lists[index % 3] }
      })
      await putKeys(records, put.toReversed())
      const { seq, keys } = await loadAll(records)
      expect(seq).toBe(put.length)
      expect(keys.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(put)
    })

    it('a change made while everything is loaded is there, or follows', async () => {
      const { records } = subject.storage
      const put = Array.from({ length: 2100 }, (_, index): KeyRecord => ({ ...KEY, id: `key-${1000 + index}`, hash: `hash-${index}` }))
      await putKeys(records, put)
      const [first = KEY] = put
      const known = new Map<string, KeyRecord>()
      const writes: Promise<number>[] = []
      const { seq } = await records.load((keys) => {
        for (const key of keys) known.set(key.id, key)
        if (writes.length > 0) return
        writes.push(records.put({ kind: 'key', record: { ...first, revoked_at: 5 } }))
        for (const id of ['a', 'z']) writes.push(records.put({ kind: 'key', record: { ...KEY, id, hash: id } }))
      })
      await Promise.all(writes)
      for (const { change } of await records.changesAfter(seq, 10)) if (change?.kind === 'key') known.set(change.record.id, change.record)
      expect(known.size).toBe(2102)
      expect(known.get(first.id)?.revoked_at).toBe(5)
      expect(await records.keys()).toEqual([...known.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1)))
    })

    it('what a page of keys meets ends the load', async () => {
      const { records } = subject.storage
      await records.put({ kind: 'key', record: KEY })
      const failing = records.load(() => {
        throw new Error('no room')
      })
      await expect(failing).rejects.toThrow('no room')
    })

    it('gives the grants that expired in a period and have something left, slice by slice', async () => {
      const { records, ledger } = subject.storage
      const expiring = (id: string, expires_at: number | null): GrantRecord => ({ ...GRANT, id, expires_at })
      const given = [
        expiring('b', 100),
        expiring('a', 100),
        expiring('c', 300),
        expiring('empty', 200),
        expiring('never', null),
        expiring('d', 301),
      ]
      for (const record of given) await records.put({ kind: 'grant', record })
      for (const { id, tenant: owner, unit } of given) {
        if (id === 'empty') continue
        const entries = [
          { account: { code: 'cash_clearing', owner, ref: '', unit }, amount: 5n },
          { account: { code: 'prepaid_grant', owner, ref: id, unit }, amount: -5n },
        ] as const
        await ledger.transact({ id: `grant:${id}`, at: 1, kind: 'grant', note: '', entries })
      }
      const all = await records.expiredGrants({ from_ms: 100, to_ms: 300, after: null, limit: 10 })
      expect([all.grants.map(({ id }) => id), all.last]).toEqual([['a', 'b', 'c'], null])
      expect(all.grants[0]).toEqual(expiring('a', 100))
      const first = await records.expiredGrants({ from_ms: 0, to_ms: 300, after: null, limit: 3 })
      expect([first.grants.map(({ id }) => id), first.last]).toEqual([['a', 'b'], { expires_at: 200, id: 'empty' }])
      const rest = await records.expiredGrants({ from_ms: 0, to_ms: 300, after: first.last, limit: 10 })
      expect([...first.grants, ...rest.grants]).toEqual(all.grants)
      expect(await records.expiredGrants({ from_ms: 101, to_ms: 299, after: null, limit: 10 })).toEqual({ grants: [], last: null })
    })

    it('numbers every change, and gives those after a number', async () => {
      const { records } = subject.storage
      for (const change of ALL) await records.put(change)
      const revoked = { ...KEY, revoked_at: 99 }
      expect(await records.put({ kind: 'key', record: revoked })).toBe(6)
      expect(await records.key('key-1')).toEqual(revoked)
      expect(await records.changesAfter(0, 5)).toEqual(ALL.map((change, index) => ({ seq: index + 1, change })))
      expect(await records.changesAfter(5, 10)).toEqual([{ seq: 6, change: { kind: 'key', record: revoked } }])
    })

    it('keeps one routing of a tenant, the last, also in the log of changes', async () => {
      const { records } = subject.storage
      const emptied: RoutingRecord = { ...ROUTING, version: 2, rules: [], samples: [], models: [] }
      const other: RoutingRecord = { ...ROUTING, tenant: 'other' }
      for (const record of [ROUTING, other, emptied]) await records.put({ kind: 'routing', record })
      expect(await records.routing('acme')).toEqual(emptied)
      expect((await records.changesAfter(0, 10)).map(({ change }) => change?.record)).toEqual([emptied, other, emptied])
      const many = Array.from({ length: 45 }, (_, index): RoutingRecord => ({ ...ROUTING, tenant: `t${100 + index}` }))
      await Promise.all(many.map((record) => records.put({ kind: 'routing', record })))
      expect((await loadAll(records)).routing).toEqual([emptied, other, ...many])
    })

    it('a public slug is of one tenant, which may go on with it or give it up', async () => {
      const { records } = subject.storage
      const other: TenantRecord = { ...TENANT, id: 'beta' }
      await records.put({ kind: 'tenant', record: TENANT })
      await expect(records.put({ kind: 'tenant', record: other })).rejects.toBeInstanceOf(PublicSlugTaken)
      expect([await records.tenants(), await records.changesAfter(1, 10)]).toEqual([[TENANT], []])
      const without = { ...TENANT, ...TENANT_DEFAULTS }
      for (const record of [{ ...TENANT, name: 'Acme' }, without, { ...without, id: 'gamma' }, other])
        await records.put({ kind: 'tenant', record })
      expect(await records.tenants()).toEqual([without, other, { ...without, id: 'gamma' }])
      await expect(records.put({ kind: 'tenant', record: TENANT })).rejects.toBeInstanceOf(PublicSlugTaken)
    })

    it('a refused write leaves neither record nor change', async () => {
      const { records } = subject.storage
      await records.put({ kind: 'key', record: KEY })
      await expect(records.put({ kind: 'key', record: { ...KEY, id: 'key-2' } })).rejects.toThrow('UNIQUE')
      expect(await records.key('key-2')).toBeNull()
      expect(await records.changesAfter(1, 10)).toEqual([])
    })

    it('keeps published price versions: the same again is nothing, another body a conflict', async () => {
      const { records } = subject.storage
      await records.putPriceVersions([PRICE])
      await records.putPriceVersions([PRICE, { ...PRICE, id: 'p@2' }])
      const edited = [
        { ...PRICE, id: 'p@3' },
        { ...PRICE, body: '{"a":2}' },
      ]
      await expect(records.putPriceVersions(edited)).rejects.toBeInstanceOf(PriceVersionConflict)
      expect((await records.priceVersions()).map(({ id }) => id)).toEqual(['p@1', 'p@2'])
    })
  })
}
