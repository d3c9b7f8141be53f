import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dayOf } from '../../src/base/clock.ts'
import type { GrantUnit, PaymentPart } from '../../src/money/grant.ts'
import type { TokenUsage } from '../../src/money/usage.ts'
import { givingEntries, lapseEntries, reversedEntries, UnbalancedTransaction } from '../../src/storage/accounts.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { ClosingEvent, LedgerEntry, LedgerTransaction, UsageSums } from '../../src/storage/ports.ts'
import type { GrantRecord } from '../../src/storage/records.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { propertyRuns, propertySeed } from '../support/seed.ts'
import { closingEvent, openRow } from '../support/storage.ts'

/** Every run writes to a real database; more of them find nothing new. */
const MOST_RUNS = 300
const TIMEOUT_MS = 10 * 60_000
const SPAN_MS = 3 * 86_400_000
const KINDS = [
  { name: 'wallet', kind: 'wallet', unit: 'nano_cny', code: 'wallet_liability' },
  { name: 'promo', kind: 'promo', unit: 'nano_cny', code: 'wallet_liability' },
  { name: 'contract', kind: 'contract', unit: 'nano_cny', code: 'contract_commitment' },
  { name: 'plan', kind: 'subscription', unit: 'nano_cny', code: 'prepaid_grant' },
  { name: 'pack', kind: 'pack', unit: 'tokens', code: 'prepaid_grant' },
  { name: 'calls', kind: 'pack', unit: 'requests', code: 'prepaid_grant' },
] as const
const UNITS: readonly GrantUnit[] = ['nano_cny', 'tokens', 'requests']

type Step =
  | {
      readonly do: 'close'
      readonly n: number
      readonly at_ms: number
      readonly amounts: readonly number[]
      readonly credit: number
      readonly cost: number
      readonly model: number
    }
  | { readonly do: 'close again'; readonly n: number }
  | { readonly do: 'second revision'; readonly n: number; readonly amounts: readonly number[] }
  | { readonly do: 'post'; readonly times: number }
  | { readonly do: 'give'; readonly grant: number; readonly amount: bigint; readonly id: number }
  | { readonly do: 'lapse'; readonly grant: number; readonly id: number }
  | { readonly do: 'reverse'; readonly n: number }
  | { readonly do: 'unbalanced'; readonly off: number }

const n = fc.integer({ min: 0, max: 9 })
const grant = fc.integer({ min: 0, max: KINDS.length - 1 })
const id = fc.integer({ min: 0, max: 5 })
const amounts = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 5000 })), { minLength: KINDS.length, maxLength: KINDS.length })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('close' as const),
      n,
      at_ms: fc.integer({ min: 0, max: SPAN_MS }),
      amounts,
      credit: fc.constantFrom(0, 0, 7),
      cost: fc.constantFrom(0, 400),
      model: fc.integer({ min: 0, max: 1 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('close again' as const), n }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('second revision' as const), n, amounts }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('post' as const), times: fc.integer({ min: 1, max: 2 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('give' as const), grant, amount: fc.bigInt({ min: 1n, max: 9_007_199_254_740_993n }), id }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lapse' as const), grant, id }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reverse' as const), n }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unbalanced' as const), off: fc.integer({ min: 1, max: 3 }) }) },
)

/** What the model is held against. */
export interface LedgerSubject {
  readonly storage: Pick<Storage, 'ledger' | 'log' | 'records'>
  end(): Promise<void>
}

let tenants = 0

/** Every driver of the ledger does what the model says. @param usual_runs as many as find something; `$WEIR_PROPERTY_RUNS` wins */
export function ledgerModel(name: string, open: () => Promise<LedgerSubject>, usual_runs: number): void {
  describe(`ledger model: ${name}`, () => {
    let subject: LedgerSubject
    beforeAll(async () => {
      subject = await open()
    })
    afterAll(() => subject.end())

    it(
      'every transaction sums to zero, every event counts once, and what is left is what was given less what was paid, after any sequence',
      async () => {
        const { storage } = subject
        const property = fc.asyncProperty(
          fc.array(step, { maxLength: 30, size: 'max' }),
          fc.array(fc.integer({ min: 0, max: SPAN_MS }), { maxLength: 3 }),
          async (steps, cuts) => {
            tenants += 1
            const run = new Run(`t${tenants}`, storage)
            await run.begin()
            for (const one of steps) await run.step(one)
            await run.check(cuts)
          },
        )
        await fc.assert(property, { seed: propertySeed(), numRuns: Math.min(propertyRuns(usual_runs), MOST_RUNS) })
        const { events: _, amount_nano: __, balances, ...wrong } = await storage.ledger.auditFacts()
        expect(Object.entries(wrong).filter(([, found]) => found.length > 0)).toEqual([])
        expect(UNITS.map((unit) => sum(balances.filter(({ account }) => account.unit === unit)))).toEqual([0n, 0n, 0n])
      },
      TIMEOUT_MS,
    )
  })
}

/** One tenant, and lists of everything that was done for it. */
class Run {
  readonly #tenant: string
  readonly #storage: LedgerSubject['storage']
  readonly #grants: readonly GrantRecord[]
  /** The latest revision of every event. */
  readonly #events = new Map<string, ClosingEvent>()
  readonly #transactions = new Map<string, LedgerTransaction>()

  constructor(tenant: string, storage: LedgerSubject['storage']) {
    this.#tenant = tenant
    this.#storage = storage
    const terms = { tenant, amount: 0n, priority: 1, models: null, weights: null, expires_at: null, created_at: ADMITTED_AT }
    this.#grants = KINDS.map(({ name, kind, unit }) => ({ ...terms, id: `${name}:${tenant}`, kind, unit }))
  }

  async begin(): Promise<void> {
    for (const record of this.#grants) await this.#storage.records.put({ kind: 'grant', record })
  }

  async step(one: Step): Promise<void> {
    switch (one.do) {
      case 'close':
        return this.#close(one)
      case 'close again': {
        const known = this.#events.get(this.#eventId(one.n))
        if (known !== undefined) await this.#storage.log.close(known)
        return
      }
      case 'second revision': {
        const known = this.#events.get(this.#eventId(one.n))
        if (known?.revision !== 1) return
        const parts = this.#parts(one.amounts, 0)
        return this.#keep({ ...known, revision: 2, parts, amount_nano: moneyOf(parts), model: 'late', flags: ['late'] })
      }
      case 'post':
        await Promise.all(Array.from({ length: one.times }, () => this.#storage.ledger.post()))
        return
      case 'give':
        return this.#transact(`give-${one.id}`, 'grant', givingEntries(this.#grant(one.grant), one.amount))
      case 'lapse':
        return this.#transact(`lapse-${one.id}`, 'expiry', lapseEntries(this.#grant(one.grant), this.#left(this.#grant(one.grant))))
      case 'reverse': {
        const reversed = this.#transactions.get(this.#name(`give-${one.n}`))
        if (reversed !== undefined) await this.#transact(`reverse-${one.n}`, 'reversal', reversedEntries(reversed.entries))
        return
      }
      case 'unbalanced':
        return this.#unbalanced(one.off)
    }
  }

  /** Compares with plain sums over the lists; `cuts` are where a report is split. */
  async check(cuts: readonly number[]): Promise<void> {
    await this.#storage.ledger.post()
    await this.#checkBalances()
    await this.#checkTransactions()
    await this.#checkUsage(cuts)
    const { events } = await this.#storage.ledger.events({ tenant: this.#tenant, limit: 1000 })
    const known = events.map(({ node: _, seq: __, ...event }) => event)
    expect(new Map(known.map((event) => [event.id, event]))).toEqual(this.#events)
    expect(events.length).toBe(this.#events.size)
  }

  async #close(one: Extract<Step, { do: 'close' }>): Promise<void> {
    const event_id = this.#eventId(one.n)
    if (this.#events.has(event_id)) return
    const admitted_at = ADMITTED_AT + one.at_ms
    const day = dayOf(admitted_at)
    const parts = this.#parts(one.amounts, one.credit)
    const owner = { tenant: this.#tenant, provider: this.#tenant, hold: { ...openRow(event_id).hold, tenant: this.#tenant } }
    const charged = { parts, amount_nano: moneyOf(parts), cost_nano: BigInt(one.cost), model: `m${one.model}` }
    await this.#keep(closingEvent(event_id, { admitted_at, day, ...owner, ...charged, tags: {} }))
  }

  async #keep(event: ClosingEvent): Promise<void> {
    this.#events.set(event.id, event)
    await this.#storage.log.close(event)
  }

  /** Sent twice: the same id is posted once, whatever comes with it the second time. */
  async #transact(name: string, kind: LedgerTransaction['kind'], entries: readonly LedgerEntry[]): Promise<void> {
    if (entries.every(({ amount }) => amount === 0n)) return
    const transaction: LedgerTransaction = { id: this.#name(name), at: ADMITTED_AT, kind, note: name, entries }
    const known = this.#transactions.has(transaction.id)
    if (!known) this.#transactions.set(transaction.id, transaction)
    expect(await this.#storage.ledger.transact(transaction)).toBe(known ? 'duplicate' : 'posted')
    expect(await this.#storage.ledger.transact({ ...transaction, entries: reversedEntries(entries) })).toBe('duplicate')
  }

  async #unbalanced(off: number): Promise<void> {
    const [entry, ...rest] = givingEntries(this.#grant(0), 100n)
    if (entry === undefined) return
    const entries = [{ ...entry, amount: entry.amount + BigInt(off) }, ...rest]
    const transaction: LedgerTransaction = { id: this.#name('bad'), at: ADMITTED_AT, kind: 'adjustment', note: 'bad', entries }
    await expect(this.#storage.ledger.transact(transaction)).rejects.toThrow(UnbalancedTransaction)
  }

  async #checkBalances(): Promise<void> {
    const balances = (await this.#storage.ledger.balances()).filter(({ account }) => account.owner === this.#tenant)
    for (const [index, record] of this.#grants.entries()) {
      const found = balances.filter(({ account }) => account.ref === record.id && account.code === KINDS[index]?.code)
      expect([record.id, -sum(found)]).toEqual([record.id, this.#left(record)])
    }
    const events = [...this.#events.values()]
    const ofAccount = (code: string, unit: GrantUnit, ref = ''): bigint =>
      sum(balances.filter(({ account }) => account.code === code && account.unit === unit && account.ref === ref))
    for (const unit of UNITS) {
      const paid = events.flatMap(({ parts }) => parts).filter((part) => part.unit === unit)
      expect(-ofAccount('usage_revenue', unit)).toBe(sum(paid))
      // Its supplier has its name: nothing of it is on anybody else's accounts.
      expect(sum(balances.filter(({ account }) => account.unit === unit))).toBe(0n)
    }
    expect(ofAccount('receivable', 'nano_cny')).toBe(sum(events.flatMap(({ parts }) => parts).filter((part) => part.grant === 'credit')))
    const cost_nano = events.reduce((total, event) => total + event.cost_nano, 0n)
    expect([ofAccount('supplier_cost', 'nano_cny'), -ofAccount('supplier_payable', 'nano_cny')]).toEqual([cost_nano, cost_nano])
  }

  async #checkTransactions(): Promise<void> {
    const { transactions } = await this.#storage.ledger.transactions({ tenant: this.#tenant, limit: 200 })
    for (const { id: transaction, entries } of transactions) {
      for (const unit of UNITS)
        expect([transaction, sum(entries.filter(({ account }) => account.unit === unit))]).toEqual([transaction, 0n])
    }
    const ids = transactions.filter(({ kind }) => kind !== 'usage').map((transaction) => transaction.id)
    expect(ids.toSorted()).toEqual([...this.#transactions.keys()].toSorted())
    for (const [known, transaction] of this.#transactions) expect(await this.#storage.ledger.transaction(known)).toEqual(transaction)
  }

  /** A period cut anywhere gives the same sums as in one piece. */
  async #checkUsage(cuts: readonly number[]): Promise<void> {
    const bounds = [0, ...cuts.toSorted((a, b) => a - b), SPAN_MS + 1].map((at_ms) => ADMITTED_AT + at_ms)
    const periods = bounds
      .slice(1)
      .map((to_ms, index) => ({ from_ms: bounds[index] ?? 0, to_ms }))
      .filter(({ from_ms, to_ms }) => from_ms < to_ms)
    const whole = { from_ms: ADMITTED_AT, to_ms: ADMITTED_AT + SPAN_MS + 1 }
    const query = { tenant: this.#tenant, by: ['model'] as const, limit: 1000 }
    const models = [...new Set([...this.#events.values()].map(({ model }) => model))]
    const expected = models.map(
      (model) => [model, added([...this.#events.values()].filter((event) => event.model === model).map(rowOf))] as const,
    )
    const [pieces, one] = [
      await this.#storage.ledger.usage({ ...query, periods }),
      await this.#storage.ledger.usage({ ...query, periods: [whole] }),
    ]
    for (const { rows } of [pieces, one]) {
      const found = models.map((model) => [model, added(rows.filter(({ group }) => group[0] === model))] as const)
      expect(new Map(found)).toEqual(new Map(expected))
      expect(rows.every(({ group }) => models.includes(group[0] ?? ''))).toBe(true)
    }
  }

  /** Given, less lapsed, less paid by the latest revisions. */
  #left({ id: grant_id }: GrantRecord): bigint {
    const entries = [...this.#transactions.values()].flatMap((transaction) => transaction.entries)
    const booked = entries.filter(({ account }) => account.ref === grant_id && account.code !== 'receivable')
    const paid = [...this.#events.values()].flatMap(({ parts }) => parts).filter((part) => part.grant === grant_id)
    return -sum(booked) - sum(paid)
  }

  #parts(given: readonly number[], credit: number): readonly PaymentPart[] {
    const parts = this.#grants.map(({ id: grant_id, unit }, index) => ({ grant: grant_id, unit, amount: BigInt(given[index] ?? 0) }))
    return [...parts, { grant: 'credit', unit: 'nano_cny' as const, amount: BigInt(credit) }].filter(({ amount }) => amount > 0n)
  }

  #grant(index: number): GrantRecord {
    const record = this.#grants[index]
    if (record === undefined) throw new Error('no such grant')
    return record
  }

  #eventId(number: number): string {
    return this.#name(`event-${number}`)
  }

  #name(name: string): string {
    return `${this.#tenant}-${name}`
  }
}

function sum(amounts_of: readonly { readonly amount: bigint }[]): bigint {
  return amounts_of.reduce((total, { amount }) => total + amount, 0n)
}

function moneyOf(parts: readonly PaymentPart[]): bigint {
  return sum(parts.filter(({ unit }) => unit === 'nano_cny'))
}

function rowOf({ status, tokens, calls, amount_nano, cost_nano, overrun_nano }: ClosingEvent): UsageSums {
  return { requests: 1, completed: status === 'completed' ? 1 : 0, tokens, calls, amount_nano, cost_nano, overrun_nano }
}

function added(rows: readonly UsageSums[]): UsageSums {
  const count = (of: (row: UsageSums) => number): number => rows.reduce((total, row) => total + of(row), 0)
  const money = (of: (row: UsageSums) => bigint): bigint => rows.reduce((total, row) => total + of(row), 0n)
  const of = (name: keyof TokenUsage): number => count(({ tokens }) => tokens[name])
  return {
    requests: count(({ requests }) => requests),
    completed: count(({ completed }) => completed),
    tokens: {
      input: of('input'),
      cached_input: of('cached_input'),
      cache_write: of('cache_write'),
      output: of('output'),
      reasoning: of('reasoning'),
    },
    calls: { search: count(({ calls }) => calls.search), image: count(({ calls }) => calls.image) },
    amount_nano: money((row) => row.amount_nano),
    cost_nano: money((row) => row.cost_nano),
    overrun_nano: money((row) => row.overrun_nano),
  }
}
