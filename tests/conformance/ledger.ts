import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { UnbalancedTransaction } from '../../src/storage/accounts.ts'
import { type Account, type AccountCode, BadCursor, type Ledger, type LedgerTransaction } from '../../src/storage/ports.ts'
import type { GrantRecord } from '../../src/storage/records.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { closingEvent } from '../support/storage.ts'
import type { StorageSubject } from './usage-log.ts'

function account(code: AccountCode, owner: string, ref = '', unit: Account['unit'] = 'nano_cny'): Account {
  return { code, owner, ref, unit }
}

function topUp(id: string, amount: bigint): LedgerTransaction {
  return {
    id,
    at: ADMITTED_AT,
    kind: 'top_up',
    note: 'bank transfer',
    entries: [
      { account: account('cash_clearing', 'acme'), amount },
      { account: account('wallet_liability', 'acme', 'wallet-acme'), amount: -amount },
    ],
  }
}

function grantRecord(id: string, kind: GrantRecord['kind'], unit: GrantRecord['unit'] = 'nano_cny'): GrantRecord {
  return { id, tenant: 'acme', kind, unit, amount: 1000n, priority: 1, models: null, weights: null, expires_at: null, created_at: 1 }
}

async function balancesOf(ledger: Ledger): Promise<Record<string, bigint>> {
  const entries = await ledger.balances()
  return Object.fromEntries(
    entries
      .filter(({ amount }) => amount !== 0n)
      .map(({ account: of, amount }) => [[of.code, of.owner, of.ref, of.unit].join(' ').replace('  ', ' '), amount]),
  )
}

const CLEAN = {
  unbalanced: [],
  missing_events: [],
  unexplained_events: [],
  differing_events: [],
  gaps: [],
  wrong_sums: [],
  wrong_rollups: [],
  open_requests: [],
}

const ALWAYS = { from_ms: 0, to_ms: 8_640_000_000_000_000 }

/** Every driver of the ledger passes these. */
export function ledgerConformance(name: string, make: () => Promise<StorageSubject>): void {
  describe(`ledger: ${name}`, () => {
    let subject: StorageSubject
    beforeEach(async () => {
      subject = await make()
    })
    afterEach(() => subject.end())
    postingTests(() => subject)
    queryTests(() => subject)
    usageTests(() => subject)
    transactionTests(() => subject)
  })
}

function postingTests(the: () => StorageSubject): void {
  it('posts a top-up once, and refuses one that does not balance', async () => {
    const { ledger } = the().storage
    expect(await ledger.transact(topUp('t1', 9_007_199_254_740_993n))).toBe('posted')
    expect(await ledger.transact(topUp('t1', 5n))).toBe('duplicate')
    const { entries } = topUp('t2', 5n)
    await expect(ledger.transact({ ...topUp('t2', 5n), entries: entries.slice(1) })).rejects.toBeInstanceOf(UnbalancedTransaction)
    await expect(ledger.transact(topUp('t3', 2n ** 63n))).rejects.toBeInstanceOf(UnbalancedTransaction)
    expect(await balancesOf(ledger)).toEqual({
      'cash_clearing acme nano_cny': 9_007_199_254_740_993n,
      'wallet_liability acme wallet-acme nano_cny': -9_007_199_254_740_993n,
    })
  })

  it('an amount that would leave 64 bits is refused and nothing of it stays', async () => {
    const { ledger } = the().storage
    await ledger.transact(topUp('t1', 2n ** 63n - 1n))
    await expect(ledger.transact(topUp('t2', 1n))).rejects.toThrow('64 bits')
    expect(await ledger.transact(topUp('t2', -1n))).toBe('posted')
    expect(await ledger.auditFacts()).toMatchObject({ unbalanced: [], wrong_sums: [] })
  })

  it('posts each part to the account of its grant, and the cost to the supplier', async () => {
    const { ledger, log, records } = the().storage
    for (const kind of ['subscription', 'contract', 'promo'] as const) {
      await records.put({ kind: 'grant', record: grantRecord(`${kind}-1`, kind) })
    }
    const parts = [
      { grant: 'wallet-acme', unit: 'nano_cny', amount: 10n },
      { grant: 'subscription-1', unit: 'nano_cny', amount: 20n },
      { grant: 'contract-1', unit: 'nano_cny', amount: 30n },
      { grant: 'promo-1', unit: 'nano_cny', amount: 40n },
      { grant: 'credit', unit: 'nano_cny', amount: 50n },
      { grant: 'pack-1', unit: 'tokens', amount: 60n },
    ] as const
    await log.close(closingEvent('a', { parts, amount_nano: 150n, cost_nano: 7n }))
    await log.close(closingEvent('b', { parts, amount_nano: 150n, cost_nano: 7n }))
    await ledger.post()
    expect(await balancesOf(ledger)).toEqual({
      'wallet_liability acme wallet-acme nano_cny': 20n,
      'prepaid_grant acme subscription-1 nano_cny': 40n,
      'contract_commitment acme contract-1 nano_cny': 60n,
      'wallet_liability acme promo-1 nano_cny': 80n,
      'receivable acme nano_cny': 100n,
      'prepaid_grant acme pack-1 tokens': 120n,
      'usage_revenue acme nano_cny': -300n,
      'usage_revenue acme tokens': -120n,
      'supplier_cost dashscope nano_cny': 14n,
      'supplier_payable dashscope nano_cny': -14n,
    })
    expect(await ledger.auditFacts()).toMatchObject({ ...CLEAN, events: 2, amount_nano: 300n })
  })

  it('posting twice at once posts everything once', async () => {
    const { ledger, log } = the().storage
    await Promise.all(Array.from({ length: 700 }, (_, index) => log.close(closingEvent(`e${index}`))))
    await Promise.all([ledger.post(), ledger.post(), ledger.post()])
    expect(await ledger.post()).toEqual({ events: 0, transactions: 0 })
    expect(await ledger.auditFacts()).toMatchObject({ ...CLEAN, events: 700, amount_nano: 700_000n })
    expect((await balancesOf(ledger))['usage_revenue acme nano_cny']).toBe(-700_000n)
  })

  it.each([{ together: true }, { together: false }])(
    'a second revision reverses the first (posted together: $together)',
    async ({ together }) => {
      const { ledger, log } = the().storage
      await log.close(closingEvent('a', { status: 'swept', usage_source: 'swept' }))
      if (!together) await ledger.post()
      const parts = [{ grant: 'wallet-acme', unit: 'nano_cny', amount: 1500n }] as const
      await log.close(closingEvent('a', { revision: 2, amount_nano: 1500n, cost_nano: 900n, parts }))
      await ledger.post()
      expect(await balancesOf(ledger)).toEqual({
        'wallet_liability acme wallet-acme nano_cny': 1500n,
        'usage_revenue acme nano_cny': -1500n,
        'supplier_cost dashscope nano_cny': 900n,
        'supplier_payable dashscope nano_cny': -900n,
      })
      expect(await ledger.event('a')).toMatchObject({ revision: 2, amount_nano: 1500n })
      expect((await ledger.usage({ periods: [ALWAYS], by: [], limit: 10 })).rows).toMatchObject([{ requests: 1, amount_nano: 1500n }])
      expect(await ledger.auditFacts()).toMatchObject({ ...CLEAN, events: 1, amount_nano: 1500n })
    },
  )

  it('keeps everything over a restart', async () => {
    const { ledger, log } = the().storage
    await ledger.transact(topUp('t1', 5000n))
    await log.close(closingEvent('a'))
    const again = await the().reopen()
    expect(await again.ledger.auditFacts()).toMatchObject({ ...CLEAN, events: 1, amount_nano: 1000n })
    expect((await balancesOf(again.ledger))['wallet_liability acme wallet-acme nano_cny']).toBe(-4000n)
    expect(await again.ledger.transact(topUp('t1', 5000n))).toBe('duplicate')
  })
}

function queryTests(the: () => StorageSubject): void {
  it('pages events newest first without repeating or losing one, also where times are equal', async () => {
    const { ledger, log } = the().storage
    const ids = Array.from({ length: 25 }, (_, index) => `e${String(index).padStart(2, '0')}`)
    await Promise.all(ids.map((id, index) => log.close(closingEvent(id, { admitted_at: ADMITTED_AT + Math.floor(index / 5) }))))
    await ledger.post()
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const page = await ledger.events({ tenant: 'acme', limit: 7, ...(cursor === null ? {} : { cursor }) })
      seen.push(...page.events.map((event) => event.id))
      cursor = page.next_cursor
    } while (cursor !== null)
    expect(seen).toEqual(ids.toReversed())
    expect((await ledger.events({ tenant: 'other', limit: 5 })).events).toEqual([])
  })

  it('finds an event on any day, and null for an unknown id', async () => {
    const { ledger, log } = the().storage
    for (const day of ['2026-11-20', '2026-11-22', '2026-11-23']) await log.close(closingEvent(`on-${day}`, { day }))
    await ledger.post()
    expect((await ledger.event('on-2026-11-22'))?.day).toBe('2026-11-22')
    expect(await ledger.event('nobody')).toBeNull()
  })
}

function usageTests(the: () => StorageSubject): void {
  const minutes = (count: number): number => ADMITTED_AT + count * 60_000

  it('sums by period and dimensions, exactly, within half-open times', async () => {
    const { ledger, log } = the().storage
    await log.close(closingEvent('a', { calls: { search: 2, image: 1 } }))
    await log.close(closingEvent('b', { status: 'truncated', admitted_at: ADMITTED_AT + 10, overrun_nano: 7n }))
    await log.close(closingEvent('c', { project: 'app', amount_nano: 9_007_199_254_740_993n, admitted_at: ADMITTED_AT + 20 }))
    await ledger.post()
    const tokens = { input: 200, cached_input: 40, cache_write: 0, output: 100, reasoning: 20 }
    const calls = { search: 2, image: 1 }
    const sums = { requests: 2, completed: 1, tokens, calls, amount_nano: 2000n, cost_nano: 800n, overrun_nano: 7n }
    const by = ['key', 'model', 'endpoint'] as const
    expect(await ledger.usage({ tenant: 'acme', project: 'web', periods: [ALWAYS], by, limit: 10 })).toEqual({
      rows: [{ period: 0, group: ['key-1', 'qwen3-max', 'dashscope/qwen3-max'], ...sums }],
      next_cursor: null,
    })
    const halves = [
      { from_ms: ADMITTED_AT, to_ms: ADMITTED_AT + 20 },
      { from_ms: ADMITTED_AT + 20, to_ms: minutes(1) },
      { from_ms: minutes(1), to_ms: minutes(2) },
    ]
    expect((await ledger.usage({ periods: halves, by: ['tenant', 'project'], limit: 10 })).rows).toMatchObject([
      { period: 0, group: ['acme', 'web'], ...sums },
      { period: 1, group: ['acme', 'app'], requests: 1, amount_nano: 9_007_199_254_740_993n },
    ])
  })

  it('sums by tag leave out events without that tag, sums by end user those without one', async () => {
    const { ledger, log } = the().storage
    await log.close(closingEvent('a', { tags: { team: 'x', 'odd.name-1': 'a b:c/d' }, end_user: 'u1' }))
    await log.close(closingEvent('b', { tags: { team: 'y' } }))
    await log.close(closingEvent('c', { tags: {}, end_user: 'u1' }))
    await ledger.post()
    const rows = async (query: object): Promise<readonly (readonly [string, number])[]> => {
      const page = await ledger.usage({ periods: [ALWAYS], by: [], limit: 10, ...query })
      return page.rows.map(({ group, requests }) => [group.join(' '), requests] as const)
    }
    expect(await rows({ by: ['tag:team', 'model'] })).toEqual([
      ['x qwen3-max', 1],
      ['y qwen3-max', 1],
    ])
    expect(await rows({ by: ['end_user'] })).toEqual([['u1', 2]])
    expect(await rows({ tag: { name: 'odd.name-1', value: 'a b:c/d' } })).toEqual([['', 1]])
    expect(await rows({ tag: { name: 'odd.name-1', value: 'other' } })).toEqual([])
    expect(await rows({ end_user: 'u1', by: ['tenant'] })).toEqual([['acme', 2]])
    expect(await rows({})).toEqual([['', 3]])
  })

  it('a late event and a second revision change the sums of their own minute, also after a restart', async () => {
    const { ledger, log } = the().storage
    await log.close(closingEvent('a', { status: 'swept', admitted_at: minutes(-3000), end_user: 'u1' }))
    await log.close(closingEvent('now'))
    await ledger.post()
    await log.close(closingEvent('a', { revision: 2, amount_nano: 5n, model: 'other', admitted_at: minutes(-3000), tags: {} }))
    await log.close(closingEvent('late', { admitted_at: minutes(-3000) + 1 }))
    const again = (await the().reopen()).ledger
    const old = { from_ms: minutes(-3000), to_ms: minutes(-2999) }
    const { rows } = await again.usage({ periods: [old, { from_ms: minutes(0), to_ms: minutes(1) }], by: ['model'], limit: 10 })
    expect(rows).toMatchObject([
      { period: 0, group: ['other'], requests: 1, completed: 1, amount_nano: 5n },
      { period: 0, group: ['qwen3-max'], requests: 1, amount_nano: 1000n },
      { period: 1, group: ['qwen3-max'], requests: 1 },
    ])
    expect((await again.usage({ periods: [ALWAYS], by: ['end_user'], limit: 10 })).rows).toEqual([])
    expect((await again.usage({ periods: [ALWAYS], by: ['tag:team'], limit: 10 })).rows).toMatchObject([{ requests: 2 }])
  })

  it('pages of sums are the whole, and a sum that leaves 64 bits is an error, never a rounded figure', async () => {
    const { ledger, log } = the().storage
    await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        log.close(closingEvent(`e${index}`, { key: `key-${index % 7}`, admitted_at: minutes(index) })),
      ),
    )
    await ledger.post()
    const periods = [0, 1, 2].map((hour) => ({ from_ms: minutes(hour * 7), to_ms: minutes(hour * 7 + 7) }))
    const whole = await ledger.usage({ periods, by: ['key'], limit: 1000 })
    const found: unknown[] = []
    let cursor: string | null = null
    do {
      const page = await ledger.usage({ periods, by: ['key'], limit: 3, ...(cursor === null ? {} : { cursor }) })
      found.push(...page.rows)
      cursor = page.next_cursor
    } while (cursor !== null)
    expect([found, whole.next_cursor]).toEqual([whole.rows, null])
    expect(found).toHaveLength(20)
    const parts: [] = []
    for (const id of ['x', 'y']) await log.close(closingEvent(id, { key: id, amount_nano: 2n ** 63n - 1n, cost_nano: 0n, parts }))
    await ledger.post()
    expect((await ledger.usage({ key: 'x', periods: [ALWAYS], by: [], limit: 1 })).rows).toMatchObject([{ amount_nano: 2n ** 63n - 1n }])
    await expect(ledger.usage({ periods: [ALWAYS], by: [], limit: 1 })).rejects.toThrow('overflow')
  })

  it('refuses what rollups cannot tell, and cursors that it did not give', async () => {
    const { ledger } = the().storage
    const day = { from_ms: 0, to_ms: 86_400_000 }
    const tag = { name: 'team', value: 'x' }
    const questions = [
      { periods: Array.from({ length: 401 }, (_, index) => ({ from_ms: index, to_ms: index + 1 })) },
      { periods: [day, day] },
      { periods: [{ from_ms: 1, to_ms: 0 }] },
      { periods: [{ from_ms: Number.NaN, to_ms: 0 }] },
      { by: ['tenant', 'project', 'key', 'model'] },
      { by: ['tag:a', 'tag:b'] },
      { by: ['end_user'], tag },
      { end_user: 'u1', tag },
    ] as const
    for (const question of questions) {
      await expect(ledger.usage({ periods: [day], by: [], limit: 1, ...question })).rejects.toBeInstanceOf(RangeError)
    }
    const foreign = Buffer.from('[0,"a","b"]').toString('base64url')
    for (const cursor of [
      '',
      'x',
      '12',
      foreign,
      Buffer.from('[7,"a"]').toString('base64url'),
      Buffer.from('[0,1]').toString('base64url'),
    ]) {
      await expect(ledger.usage({ periods: [day], by: ['model'], limit: 1, cursor })).rejects.toBeInstanceOf(BadCursor)
    }
    for (const cursor of ['', 'x', '.id', '12', '12.', '99999999999999999.id']) {
      await expect(ledger.events({ limit: 1, cursor })).rejects.toBeInstanceOf(BadCursor)
      await expect(ledger.transactions({ limit: 1, cursor })).rejects.toBeInstanceOf(BadCursor)
    }
  })

  it('finds events by endpoint, end user, tag, and those that cost more than was held', async () => {
    const { ledger, log } = the().storage
    await log.close(closingEvent('a', { endpoint: 'other', end_user: 'u1', overrun_nano: 5n }))
    await log.close(closingEvent('b', { tags: { team: 'x' }, admitted_at: ADMITTED_AT + 1, overrun_nano: 9n, tenant: 'zeta' }))
    await log.close(closingEvent('c', { admitted_at: ADMITTED_AT + 2, revision: 1 }))
    await ledger.post()
    const found = async (query: object): Promise<readonly string[]> =>
      (await ledger.events({ limit: 10, ...query })).events.map((event) => event.id)
    expect(await found({ endpoint: 'other' })).toEqual(['a'])
    expect(await found({ end_user: 'u1' })).toEqual(['a'])
    expect(await found({ tag: { name: 'team', value: 'x' } })).toEqual(['b'])
    expect(await found({ overrun: true })).toEqual(['b', 'a'])
    expect(await found({ overrun: true, tenant: 'acme' })).toEqual(['a'])
    expect(await found({ overrun: true, from_ms: ADMITTED_AT + 1 })).toEqual(['b'])
    expect(await found({ overrun: false })).toEqual(['c', 'b', 'a'])
  })
}

function transactionTests(the: () => StorageSubject): void {
  it('finds a transaction with its entries, and pages them newest first by tenant, kind and time', async () => {
    const { ledger, log } = the().storage
    for (const at of [1, 2, 3, 4, 5]) await ledger.transact({ ...topUp(`t${at}`, BigInt(at)), at: at < 4 ? 3 : at })
    const other = { ...account('cash_clearing', 'zeta') }
    const entries = [
      { account: other, amount: 1n },
      { account: account('wallet_liability', 'zeta', 'wallet-zeta'), amount: -1n },
    ]
    await ledger.transact({ id: 'z', at: 9, kind: 'promo', note: '', entries })
    await log.close(closingEvent('a'))
    await ledger.post()
    expect(await ledger.transaction('t2')).toEqual({ ...topUp('t2', 2n), at: 3 })
    expect(await ledger.transaction('nobody')).toBeNull()
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const page = await ledger.transactions({ tenant: 'acme', limit: 2, ...(cursor === null ? {} : { cursor }) })
      seen.push(...page.transactions.map(({ id, kind }) => (kind === 'usage' ? kind : id)))
      cursor = page.next_cursor
    } while (cursor !== null)
    expect(seen).toEqual(['usage', 't5', 't4', 't3', 't2', 't1'])
    const ids = async (query: object): Promise<readonly string[]> =>
      (await ledger.transactions({ limit: 10, ...query })).transactions.map(({ id }) => id)
    expect(await ids({ kind: 'top_up', from_ms: 4 })).toEqual(['t5', 't4'])
    expect(await ids({ kind: 'top_up', to_ms: 4, tenant: 'acme' })).toEqual(['t3', 't2', 't1'])
    expect(await ids({ tenant: 'zeta' })).toEqual(['z'])
    expect(await ids({ tenant: 'dashscope' })).toEqual([])
  })
}
