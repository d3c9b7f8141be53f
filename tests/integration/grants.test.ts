import { describe, expect, test } from 'vitest'
import { uuidv7 } from '../../src/base/ids.ts'
import { applyTransaction } from '../../src/control/apply.ts'
import { createControlApi } from '../../src/control/api.ts'
import type { PaymentPart } from '../../src/money/grant.ts'
import type { HoldRequest, LedgerTransaction } from '../../src/storage/ports.ts'
import { expireGrants } from '../../src/worker/expire.ts'
import { openControl, type Answer, type TestControl } from '../support/control.ts'
import { ADMITTED_AT, testClock, type TestClock } from '../support/clock.ts'
import { closingEvent, DAY, openRow } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const GRANTS = '/admin/v1/tenants/acme/grants'
const CREDIT = '/admin/v1/tenants/acme/credit'
const CNY = 1_000_000_000n
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

interface Books {
  readonly clock: TestClock
  readonly control: TestControl
  give(grant: object): Promise<Answer>
}

/** A tenant `acme`, on Monday 2026-11-23 at 10:00 in Shanghai, with a credit line of 1 CNY. */
async function newBooks(data_dir = tempDir()): Promise<Books> {
  const clock = testClock()
  const control = await openControl(data_dir, { clock })
  await control.call('POST', '/admin/v1/tenants', { id: 'acme', credit_line_cny: '1' })
  return { clock, control, give: (grant) => control.call('POST', GRANTS, { id: 'g', kind: 'pack', unit: 'cny', amount: '1', ...grant }) }
}

function hold(id: string, overrides: Partial<HoldRequest> = {}): HoldRequest {
  const tokens = { tokens: 10, grant_tokens: 10, minimum_tokens: 10 }
  const money = { amount_nano: CNY / 10n, minimum_nano: CNY / 10n, credit_line_nano: CNY }
  const caller = { tenant: 'acme', project: 'acme/default', key: 'key-1', model: 'qwen3-max' }
  return { v: 1, id, ...caller, lease_ms: 30_000, ...tokens, ...money, rules: [], ...overrides }
}

/** A request that was answered and paid by these parts, as the data plane leaves it. */
async function pay(control: TestControl, parts: readonly PaymentPart[], id = uuidv7(ADMITTED_AT)): Promise<string> {
  const { limits, log } = control.storage
  const amount_nano = parts.reduce((sum, part) => sum + (part.unit === 'nano_cny' ? part.amount : 0n), 0n)
  await limits.hold(hold(id))
  await log.open(openRow(id))
  await log.close(closingEvent(id, { parts, amount_nano }))
  await limits.settle({ id, tenant: 'acme', admitted_at: ADMITTED_AT, tokens: 170, amount_nano, parts })
  return id
}

async function expire({ storage, deps }: TestControl, slice_grants?: number): Promise<number> {
  const { records, ledger, limits, credits } = storage
  const expire_deps = {
    records,
    ledger,
    limits,
    owes: (tenant: string) => credits.owes(tenant),
    clock: deps.clock,
    turns: storage.turns,
    apply: (transaction: LedgerTransaction) => applyTransaction(transaction, deps),
    on_trouble: (error: unknown) => {
      throw error
    },
  }
  return await expireGrants(0, expire_deps, slice_grants)
}

async function expectAudit(control: TestControl): Promise<void> {
  expect((await control.call('GET', '/admin/v1/audit')).body).toMatchObject({ ok: true, findings: [] })
}

async function shown(control: TestControl, id: string): Promise<Record<string, unknown>> {
  return (await control.call('GET', `${GRANTS}/${encodeURIComponent(id)}`)).body
}

/** Every account that is not zero, as `code ref unit: balance`, debit positive. */
async function books(control: TestControl): Promise<readonly string[]> {
  await control.storage.ledger.post()
  return (await control.storage.ledger.balances())
    .filter(({ amount }) => amount !== 0n)
    .map(({ account: { code, ref, unit }, amount }) => `${code}${ref === '' ? '' : ` ${ref}`} ${unit}: ${amount}`)
    .toSorted()
}

describe('giving', () => {
  test('the same grant again changes nothing, another under its id is a conflict, also when asked at once', async () => {
    const { control, give } = await newBooks()
    const pack = { id: 'order-7', unit: 'tokens', amount: 1000, models: ['sandbox-chat', 'qwen3-max'], weights: { 'qwen3-max': '2.50' } }
    expect(await give(pack)).toMatchObject({ status: 201, body: { state: 'posted', id: 'acme/order-7', balance: '1000', used: '0' } })
    const again = await Promise.all([give({ ...pack, amount: '1000' }), give({ ...pack, weights: { 'qwen3-max': '2.5' }, note: 'again' })])
    expect(again.map(({ status, body }) => [status, body['state']])).toEqual([
      [200, 'duplicate'],
      [200, 'duplicate'],
    ])
    for (const other of [{ amount: 1001 }, { kind: 'promo' }, { models: ['qwen3-max'] }, { weights: null }, { expires_at: '2026-12-31' }])
      expect(await give({ ...pack, ...other })).toMatchObject({ status: 409, body: { error: { code: 'conflict' } } })
    const both = await Promise.all([give({ id: 'race', amount: '1' }), give({ id: 'race', amount: '2' })])
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([201, 409]))
    expect(await books(control)).toEqual([
      'cash_clearing nano_cny: 1000000000',
      'cash_clearing tokens: 1000',
      'prepaid_grant acme/order-7 tokens: -1000',
      'prepaid_grant acme/race nano_cny: -1000000000',
    ])
    await expectAudit(control)
  })

  test('each kind stands in the books where it belongs, and burns in order', async () => {
    const { control, give } = await newBooks()
    await control.call('POST', CREDIT, { id: 'a', amount_cny: '1' })
    for (const kind of ['contract', 'pack', 'subscription', 'promo']) await give({ id: kind, kind })
    await give({ id: 'calls', kind: 'promo', unit: 'requests', amount: 5 })
    expect(await books(control)).toEqual([
      'cash_clearing nano_cny: 3000000000',
      'contract_commitment acme/contract nano_cny: -1000000000',
      'prepaid_grant acme/calls requests: -5',
      'prepaid_grant acme/pack nano_cny: -1000000000',
      'prepaid_grant acme/subscription nano_cny: -1000000000',
      'promo nano_cny: 1000000000',
      'promo requests: 5',
      'receivable acme/contract nano_cny: 1000000000',
      'wallet_liability acme/promo nano_cny: -1000000000',
      'wallet_liability wallet:acme nano_cny: -1000000000',
    ])
    const { body } = await control.call('GET', '/admin/v1/balance/acme')
    expect(body).toMatchObject({ available_cny: '5' })
    const grants = body['grants'] as { id: string; kind: string }[]
    expect(grants.map(({ kind }) => kind)).toEqual(['promo', 'promo', 'subscription', 'pack', 'contract', 'wallet'])
    await expectAudit(control)
    const totals = (await control.call('GET', '/admin/v1/ledger/balances')).body['totals'] as { debit: string; credit: string }[]
    expect(totals).toHaveLength(2)
    for (const { debit, credit } of totals) expect(debit).toBe(credit)
  })

  test('a date is included whole in the time zone of the tenant; what is wrong is said', async () => {
    const { control, give } = await newBooks()
    expect((await give({ expires_at: '2026-11-23' })).body).toMatchObject({ expires_at: '2026-11-23T16:00:00.000Z', expired: false })
    const mistakes: readonly (readonly [object, RegExp])[] = [
      [{ expires_at: '2026-11-22' }, /lies in the past/],
      [{ expires_at: 'tomorrow' }, /expires_at: write a date/],
      [{ amount: '0' }, /above zero/],
      [{ amount: '-1' }, /above zero/],
      [{ amount: 5 }, /write CNY as a string/],
      [{ amount: '0.0000000001' }, /at most 9 decimals/],
      [{ unit: 'tokens', amount: '1.5' }, /whole number/],
      [{ unit: 'tokens', amount: 1, models: ['gpt-9'] }, /models: the catalogue has no .*gpt-9/],
      [{ unit: 'tokens', amount: 1, weights: { 'gpt-9': '1' } }, /weights: the catalogue has no .*gpt-9/],
      [{ unit: 'tokens', amount: 1, weights: { 'qwen3-max': '0' } }, /is not a weight/],
      [{ unit: 'tokens', amount: 1, weights: { 'qwen3-max': '100.1' } }, /is not a weight/],
      [{ weights: { 'qwen3-max': '1' } }, /only a grant of tokens has weights/],
      [{ kind: 'wallet' }, /kind/],
      [{ id: 'a/b' }, /id: use/],
    ]
    for (const [mistake, words] of mistakes) {
      const { status, text } = await give({ id: 'new', ...mistake })
      expect([status, text]).toEqual([400, expect.stringMatching(words)])
    }
    expect((await control.call('POST', '/admin/v1/tenants/nobody/grants', {})).status).toBe(400)
    expect((await control.call('GET', `${GRANTS}/nothing`)).status).toBe(404)
  })

  test('lists in pages; priority and expiry change for the next hold, nothing else does', async () => {
    const { clock, control, give } = await newBooks()
    await control.call('POST', CREDIT, { id: 'a', amount_cny: '1' })
    for (const id of ['a', 'b', 'c']) await give({ id })
    const ids: string[] = []
    for (let cursor: string | null = ''; cursor !== null;) {
      const { body } = await control.call('GET', `${GRANTS}?limit=2${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)
      ids.push(...(body['data'] as { id: string }[]).map(({ id }) => id))
      cursor = body['next_cursor'] as string | null
    }
    expect(ids).toEqual(['acme/a', 'acme/b', 'acme/c', 'wallet:acme'])
    expect(await control.call('PATCH', `${GRANTS}/c`, { priority: 1, expires_at: '2026-11-30' })).toMatchObject({
      status: 200,
      body: { id: 'acme/c', priority: 1, expires_at: '2026-11-30T16:00:00.000Z', balance: '1' },
    })
    const held = await control.storage.limits.hold(hold(uuidv7(ADMITTED_AT), { amount_nano: 1n, minimum_nano: 1n }))
    expect(held).toMatchObject({ ok: true, receipt: { parts: [{ grant: 'acme/c', amount: 1n }] } })
    expect((await control.call('PATCH', `${GRANTS}/c`, { amount: '5' })).status).toBe(400)
    expect((await control.call('PATCH', `${GRANTS}/c`, { expires_at: '2026-11-01' })).text).toContain('lies in the past')
    expect((await control.call('PATCH', `${GRANTS}/${encodeURIComponent('wallet:acme')}`, { priority: 1 })).status).toBe(409)
    clock.advance(8 * DAY_MS)
    expect((await control.call('PATCH', `${GRANTS}/c`, { expires_at: '2026-12-30' })).text).toContain('give a new one')
    expect((await control.call('PATCH', `${GRANTS}/b`, { expires_at: null })).body).toMatchObject({ expires_at: null })
  })

  test('an id of a credit with another amount or kind is a conflict', async () => {
    const { control } = await newBooks()
    await control.call('POST', CREDIT, { id: 'a', amount_cny: '1' })
    for (const other of [{ amount_cny: '2' }, { amount_cny: '1', kind: 'promo' }])
      expect(await control.call('POST', CREDIT, { id: 'a', ...other })).toMatchObject({ status: 409 })
    expect(await control.call('POST', CREDIT, { id: 'a', amount_cny: '1.0', note: 'again' })).toMatchObject({
      body: { state: 'duplicate' },
    })
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '1' } })
  })
})

describe('a process that ends half-way', () => {
  test('between ledger and limits: after the next start they agree', async () => {
    const dir = tempDir()
    const { control } = await newBooks(dir)
    const killed = Object.assign(Object.create(control.deps.credits) as typeof control.deps.credits, {
      deliver: () => Promise.reject(new Error('killed')),
      changeTerms: () => Promise.resolve(),
    })
    const app = createControlApi({ ...control.deps, credits: killed, logger: { error: () => {} } })
    const headers = { authorization: `Bearer ${control.deps.token}` }
    const post = async (path: string, body: object): Promise<number> =>
      (await app.request(path, { method: 'POST', headers, body: JSON.stringify(body) })).status
    const pack = { id: 'p', kind: 'pack', unit: 'tokens', amount: 7 }
    expect(await post(GRANTS, pack)).toBe(500)
    expect(await post(CREDIT, { id: 'c', amount_cny: '3' })).toBe(500)
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '0' } })
    await control.close()
    const after = await openControl(dir)
    expect(await shown(after, 'acme/p')).toMatchObject({ balance: '7', used: '0' })
    expect(await after.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '3' } })
    expect(await after.call('POST', GRANTS, pack)).toMatchObject({ status: 200, body: { state: 'duplicate', balance: '7' } })
    await expectAudit(after)
  })

  test('between record and ledger: the grant is nothing until it is given again', async () => {
    const { control, give } = await newBooks()
    const { ledger } = control.deps
    const broken = Object.assign(Object.create(ledger) as typeof ledger, {
      transaction: (id: string) => ledger.transaction(id),
      transact: () => Promise.reject(new Error('no disk')),
    })
    const app = createControlApi({ ...control.deps, ledger: broken, logger: { error: () => {} } })
    const body = JSON.stringify({ id: 'g', kind: 'pack', unit: 'cny', amount: '1' })
    const headers = { authorization: `Bearer ${control.deps.token}` }
    expect((await app.request(GRANTS, { method: 'POST', headers, body })).status).toBe(500)
    expect(await shown(control, 'acme/g')).toMatchObject({ amount: '1', balance: '0', used: '0' })
    await expectAudit(control)
    expect(await give({})).toMatchObject({ status: 201, body: { state: 'posted', balance: '1' } })
    await expectAudit(control)
  })

  test('a try that failed after the ledger had it is finished once, by the next try or by itself', async () => {
    const { control, give } = await newBooks()
    const { ledger } = control.deps
    let answers = false
    const lost = Object.assign(Object.create(ledger) as typeof ledger, {
      transaction: (id: string) => ledger.transaction(id),
      transact: async (transaction: Parameters<typeof ledger.transact>[0]) => {
        const state = await ledger.transact(transaction)
        if (answers) return state
        throw new Error('the answer was lost')
      },
    })
    const app = createControlApi({ ...control.deps, ledger: lost, logger: { error: () => {} } })
    const headers = { authorization: `Bearer ${control.deps.token}` }
    const body = JSON.stringify({ id: 'g', kind: 'pack', unit: 'cny', amount: '1' })
    const post = async (): Promise<number> => (await app.request(GRANTS, { method: 'POST', headers, body })).status
    expect([await post(), await post()]).toEqual([500, 200])
    answers = true
    expect([await post(), (await give({})).status]).toEqual([200, 200])
    expect(await shown(control, 'acme/g')).toMatchObject({ balance: '1' })
    await expectAudit(control)
  })
})

describe('expiry', () => {
  test('what is held survives, the rest lapses once nothing is held, and never twice', async () => {
    const dir = tempDir()
    const { clock, control, give } = await newBooks(dir)
    await give({ id: 'pack', amount: '1', expires_at: '2026-11-23' })
    await give({ id: 'deal', kind: 'contract', amount: '2', expires_at: '2026-11-23' })
    await give({ id: 'calls', unit: 'requests', amount: 3, expires_at: '2026-11-23', models: ['sandbox-chat'] })
    const id = uuidv7(ADMITTED_AT)
    await control.storage.limits.hold(hold(id))
    await control.storage.log.open(openRow(id))
    expect(await expire(control)).toBe(0)
    clock.advance(14 * HOUR_MS)
    expect(await expire(control)).toBe(2)
    expect(await expire(control)).toBe(0)
    expect(await shown(control, 'pack')).toMatchObject({ expired: true, balance: '1', held: '0.1', lapsed: '0' })
    expect(await shown(control, 'deal')).toMatchObject({ expired: true, balance: '0', lapsed: '2', used: '0' })
    const parts = [{ grant: 'acme/pack', unit: 'nano_cny', amount: 60_000_000n }] as const
    await control.storage.limits.settle({ id, tenant: 'acme', admitted_at: ADMITTED_AT, tokens: 170, amount_nano: 60_000_000n, parts })
    await control.storage.log.close(closingEvent(id, { parts, amount_nano: 60_000_000n }))
    expect(await expire(control)).toBe(1)
    expect(await shown(control, 'pack')).toMatchObject({ balance: '0', held: '0', used: '0.06', lapsed: '0.94' })
    expect(await books(control)).toEqual([
      'breakage nano_cny: -940000000',
      'breakage requests: -3',
      'cash_clearing nano_cny: 1000000000',
      'cash_clearing requests: 3',
      'supplier_cost nano_cny: 400',
      'supplier_payable nano_cny: -400',
      'usage_revenue nano_cny: -60000000',
    ])
    await expectAudit(control)
    await control.close()
    const after = await openControl(dir, { clock })
    expect(await expire(after)).toBe(0)
    await expectAudit(after)
  })

  test('ended between ledger and limits, it is whole after the next start; what comes back later lapses too', async () => {
    const dir = tempDir()
    const { clock, control, give } = await newBooks(dir)
    await give({ id: 'pack', amount: '1', expires_at: '2026-11-23' })
    const id = await pay(control, [{ grant: 'acme/pack', unit: 'nano_cny', amount: CNY / 4n }])
    clock.advance(DAY_MS)
    const { records, ledger, limits, credits } = control.storage
    await expireGrants(0, {
      records,
      ledger,
      limits,
      owes: (tenant) => credits.owes(tenant),
      clock,
      turns: control.storage.turns,
      apply: (transaction) => ledger.transact(transaction),
      on_trouble: () => {},
    })
    await control.close()
    const after = await openControl(dir, { clock })
    expect(await shown(after, 'pack')).toMatchObject({ balance: '0', used: '0.25', lapsed: '0.75' })
    expect(await expire(after)).toBe(0)
    const reversed = await after.call('POST', '/admin/v1/reversals', { event: id, reason: 'wrong model' })
    expect(reversed.body).toMatchObject({ amount_cny: '0.25', parts: [{ grant: 'acme/pack', expired: true }] })
    expect(await shown(after, 'pack')).toMatchObject({ balance: '0.25', used: '0', lapsed: '0.75' })
    expect([await expire(after), await expire(after)]).toEqual([1, 0])
    expect(await shown(after, 'pack')).toMatchObject({ balance: '0', used: '0', lapsed: '1' })
    await expectAudit(after)
  })

  test('many lapse slice by slice', async () => {
    const { clock, control, give } = await newBooks()
    await Promise.all(
      Array.from({ length: 25 }, (_, index) => give({ id: `g${index}`, unit: 'requests', amount: 1, expires_at: '2026-11-23' })),
    )
    clock.advance(DAY_MS)
    expect([await expire(control, 10), await expire(control, 10)]).toEqual([25, 0])
    expect(await books(control)).toEqual(['breakage requests: -25', 'cash_clearing requests: 25'])
    await expectAudit(control)
  })
})

describe('reversals', () => {
  const REVERSALS = '/admin/v1/reversals'

  async function paidByFour(): Promise<{ readonly control: TestControl; readonly id: string; readonly dir: string }> {
    const dir = tempDir()
    const { control, give } = await newBooks(dir)
    await give({ id: 'tokens', unit: 'tokens', amount: 100 })
    await give({ id: 'promo', kind: 'promo', amount: '0.3' })
    await control.call('POST', CREDIT, { id: 'a', amount_cny: '0.5' })
    const id = await pay(control, [
      { grant: 'acme/tokens', unit: 'tokens', amount: 100n },
      { grant: 'acme/promo', unit: 'nano_cny', amount: 300_000_000n },
      { grant: 'wallet:acme', unit: 'nano_cny', amount: 500_000_000n },
      { grant: 'credit', unit: 'nano_cny', amount: 200_000_000n },
    ])
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '-0.2' } })
    await expectAudit(control)
    return { control, id, dir }
  }

  test('an event paid by three grants and the credit line gives back to each, once; the cost stays', async () => {
    const { control, id, dir } = await paidByFour()
    const before = await control.storage.ledger.event(id)
    const both = await Promise.all([1, 2].map(() => control.call('POST', REVERSALS, { event: id, reason: 'wrong answer', id: 'ticket-9' })))
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 201]))
    expect(both[0]?.body).toMatchObject({
      id: `reversal:${id}`,
      tenant: 'acme',
      amount_cny: '1',
      note: 'ticket-9: wrong answer',
      below_zero: [],
    })
    expect(both[0]?.body['parts']).toEqual([
      { grant: 'acme/tokens', unit: 'tokens', amount: '100', expired: false },
      { grant: 'acme/promo', unit: 'cny', amount: '0.3', expired: false },
      { grant: 'wallet:acme', unit: 'cny', amount: '0.5', expired: false },
      { grant: 'credit', unit: 'cny', amount: '0.2', expired: false },
    ])
    expect(await books(control)).toEqual([
      'cash_clearing nano_cny: 500000000',
      'cash_clearing tokens: 100',
      'prepaid_grant acme/tokens tokens: -100',
      'promo nano_cny: 300000000',
      'supplier_cost nano_cny: 400',
      'supplier_payable nano_cny: -400',
      'wallet_liability acme/promo nano_cny: -300000000',
      'wallet_liability wallet:acme nano_cny: -500000000',
    ])
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '0.8' } })
    expect(await control.storage.ledger.event(id)).toEqual(before)
    expect(await control.call('POST', REVERSALS, { event: id, reason: 'again', amount_cny: '0.1' })).toMatchObject({ status: 409 })
    expect(await control.call('POST', REVERSALS, { transaction: `reversal:${id}`, reason: 'x' })).toMatchObject({ status: 409 })
    await expectAudit(control)
    await control.close()
    const after = await openControl(dir)
    expect(await after.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '0.8' } })
    await expectAudit(after)
  })

  test('a part goes back to the last payer first, and no more than was paid with money', async () => {
    const { control, id } = await paidByFour()
    const part = (amount_cny: string): Promise<Answer> => control.call('POST', REVERSALS, { event: id, reason: 'half', amount_cny })
    expect((await part('1.000000001')).text).toContain('was paid with 1 CNY of money')
    expect((await part('0')).status).toBe(400)
    const { body } = await part('0.25')
    expect(body['parts']).toMatchObject([
      { grant: 'credit', amount: '0.2' },
      { grant: 'wallet:acme', amount: '0.05' },
    ])
    expect((await part('0.25')).body).toMatchObject({ state: 'duplicate' })
    expect((await part('0.26')).status).toBe(409)
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '0.05' } })
    await expectAudit(control)
  })

  test('with --reverse-cost the supplier is owed nothing either', async () => {
    const { control, id } = await paidByFour()
    expect((await control.call('POST', REVERSALS, { event: id, reason: 'x', keep_cost: false })).status).toBe(201)
    expect((await books(control)).filter((line) => line.startsWith('supplier'))).toEqual([])
    await expectAudit(control)
  })

  test('a top-up that was spent leaves the wallet below zero, and says so; a grant is taken back whole', async () => {
    const { control, give } = await newBooks()
    await control.call('POST', CREDIT, { id: 'a', amount_cny: '0.5' })
    await give({ id: 'p', unit: 'tokens', amount: 10 })
    await pay(control, [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 200_000_000n }])
    const top_up = { transaction: 'credit:acme:a', reason: 'the transfer bounced' }
    expect((await control.call('POST', REVERSALS, top_up)).body).toMatchObject({
      amount_cny: '-0.5',
      below_zero: [{ grant: 'wallet:acme', unit: 'cny', balance: '-0.2' }],
    })
    expect((await control.call('POST', REVERSALS, top_up)).body).toMatchObject({ state: 'duplicate' })
    expect((await control.call('POST', REVERSALS, { transaction: 'grant:acme/p', reason: 'x' })).body).toMatchObject({ below_zero: [] })
    expect(await shown(control, 'p')).toMatchObject({ amount: '10', balance: '0', used: '0', reversed: true })
    expect(await control.call('GET', '/admin/v1/balance/acme')).toMatchObject({ body: { available_cny: '-0.2' } })
    await expectAudit(control)
  })

  test('what cannot be reversed is refused with the reason', async () => {
    const { clock, control, give } = await newBooks()
    await give({ id: 'old', expires_at: '2026-11-23' })
    const free = await pay(control, [])
    const swept = uuidv7(ADMITTED_AT)
    await control.storage.log.open(openRow(swept))
    await control.storage.log.close(closingEvent(swept, { status: 'swept', parts: [], day: DAY }))
    await pay(control, [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 5n }])
    await control.storage.ledger.post()
    const usage = (await control.call('GET', '/admin/v1/transactions?kind=usage')).body['data'] as { id: string }[]
    clock.advance(1000)
    const refused: readonly (readonly [object, number, RegExp])[] = [
      [{ event: 'nothing' }, 404, /no event .*nothing/],
      [{ transaction: 'nothing' }, 404, /no transaction .*nothing/],
      [{ event: free }, 409, /cost nothing/],
      [{ event: swept }, 409, /may still be replaced/],
      [{ transaction: usage[0]?.id ?? '' }, 409, /event by event/],
      [{}, 400, /event or transaction/],
      [{ event: free, transaction: 'x' }, 400, /event or transaction/],
      [{ transaction: 'grant:acme/old', amount_cny: '1' }, 400, /reversed whole/],
      [{ event: free, amount_cny: '1', keep_cost: false }, 400, /without its cost/],
    ]
    for (const [body, status, words] of refused)
      expect(await control.call('POST', REVERSALS, { reason: 'x', ...body })).toMatchObject({
        status,
        text: expect.stringMatching(words) as unknown,
      })
    expect((await control.call('POST', REVERSALS, { event: free })).text).toContain('reason')
    clock.advance(DAY_MS)
    await expire(control)
    expect((await control.call('POST', REVERSALS, { transaction: 'grant:acme/old', reason: 'x' })).text).toContain('has lapsed')
    expect((await control.call('POST', REVERSALS, { transaction: 'expiry:acme/old:1', reason: 'x' })).text).toContain('kind expiry')
  })

  test('transactions come newest first, page by page, with both sides', async () => {
    const { clock, control, give } = await newBooks()
    for (const id of ['a', 'b', 'c']) {
      clock.advance(1000)
      await give({ id })
    }
    const first = await control.call('GET', '/admin/v1/transactions?tenant=acme&kind=grant&limit=2')
    expect(first.body['data']).toMatchObject([
      { id: 'grant:acme/c', kind: 'grant', entries: [{ account: 'cash_clearing', debit: '1', credit: null }, { credit: '1' }] },
      { id: 'grant:acme/b' },
    ])
    const cursor = encodeURIComponent(String(first.body['next_cursor']))
    const second = await control.call('GET', `/admin/v1/transactions?tenant=acme&kind=grant&limit=2&cursor=${cursor}`)
    expect(second.body).toMatchObject({ data: [{ id: 'grant:acme/a' }], next_cursor: null })
    expect((await control.call('GET', '/admin/v1/transactions?cursor=nonsense')).status).toBe(400)
    expect((await control.call('GET', '/admin/v1/transactions?to=2026-11-22')).body).toMatchObject({ data: [] })
  })
})
