import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { UnbalancedTransaction } from '../../src/storage/accounts.ts'
import type { Account, AccountCode, GrantRecord, Ledger, LedgerTransaction } from '../../src/storage/ports.ts'
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

const CLEAN = { unbalanced: [], missing_events: [], unexplained_events: [], differing_events: [], wrong_sums: [], open_requests: [] }

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
    expect(await ledger.auditFacts()).toEqual({ ...CLEAN, events: 2, amount_nano: 300n })
  })

  it('posting twice at once posts everything once', async () => {
    const { ledger, log } = the().storage
    await Promise.all(Array.from({ length: 700 }, (_, index) => log.close(closingEvent(`e${index}`))))
    await Promise.all([ledger.post(), ledger.post(), ledger.post()])
    expect(await ledger.post()).toEqual({ events: 0, transactions: 0 })
    expect(await ledger.auditFacts()).toEqual({ ...CLEAN, events: 700, amount_nano: 700_000n })
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
      expect(await ledger.totals({})).toMatchObject([{ requests: 1, amount_nano: 1500n }])
      expect(await ledger.auditFacts()).toEqual({ ...CLEAN, events: 1, amount_nano: 1500n })
    },
  )

  it('keeps everything over a restart', async () => {
    const { ledger, log } = the().storage
    await ledger.transact(topUp('t1', 5000n))
    await log.close(closingEvent('a'))
    const again = await the().reopen()
    expect(await again.ledger.auditFacts()).toEqual({ ...CLEAN, events: 1, amount_nano: 1000n })
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

  it('totals by tenant, project, key and model, within a half-open time', async () => {
    const { ledger, log } = the().storage
    await log.close(closingEvent('a'))
    await log.close(closingEvent('b', { status: 'truncated', admitted_at: ADMITTED_AT + 10 }))
    await log.close(closingEvent('c', { project: 'app', amount_nano: 9_007_199_254_740_993n, admitted_at: ADMITTED_AT + 20 }))
    await ledger.post()
    const tokens = { input: 200, cached_input: 40, cache_write: 0, output: 100, reasoning: 20 }
    expect(await ledger.totals({ tenant: 'acme', project: 'web' })).toEqual([
      {
        tenant: 'acme',
        project: 'web',
        key: 'key-1',
        model: 'qwen3-max',
        requests: 2,
        completed: 1,
        tokens,
        amount_nano: 2000n,
        cost_nano: 800n,
      },
    ])
    expect(await ledger.totals({ from_ms: ADMITTED_AT + 20 })).toMatchObject([{ project: 'app', amount_nano: 9_007_199_254_740_993n }])
    expect(await ledger.totals({ to_ms: ADMITTED_AT + 10 })).toMatchObject([{ requests: 1 }])
  })

  it('finds an event on any day, and null for an unknown id', async () => {
    const { ledger, log } = the().storage
    for (const day of ['2026-11-20', '2026-11-22', '2026-11-23']) await log.close(closingEvent(`on-${day}`, { day }))
    await ledger.post()
    expect((await ledger.event('on-2026-11-22'))?.day).toBe('2026-11-22')
    expect(await ledger.event('nobody')).toBeNull()
  })
}
