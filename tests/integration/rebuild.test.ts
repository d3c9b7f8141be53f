import { DatabaseSync } from 'node:sqlite'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { rebuild } from '../../src/control/rebuild.ts'
import type { LimitSetting } from '../../src/storage/records.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'

const LIMITS: readonly LimitSetting[] = [
  { kind: 'tokens_window', model: null, limit: '1000000000', window: 'day' },
  { kind: 'requests_window', model: 'solo', limit: '1000000', window: 'month' },
  { kind: 'requests_window', model: null, limit: '1000000', window: '5h' },
  { kind: 'budget', model: null, limit: '1000000000000', window: null },
]

/** A gateway at rest that has served a few requests, whose admission and books agree. */
async function served(): Promise<TestGateway> {
  const gateway = await startGateway({ limits: LIMITS })
  for (let number = 0; number < 4; number += 1) {
    await (await gateway.chat({ max_tokens: 50, user: `u${number % 2}`, sandbox: { tokens: 5 + number } })).text()
  }
  await gateway.audit()
  return gateway
}

function books({ data_dir }: TestGateway, ...statements: readonly string[]): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  for (const statement of statements) database.exec(statement)
  database.close()
}

async function run({ storage, plane }: TestGateway, check: boolean): Promise<readonly { what: string; was: string; now: string }[]> {
  const answer = await rebuild(check, { ...storage, clock: plane.clock }, () => undefined)
  return (answer as { changes: readonly { what: string; was: string; now: string }[] }).changes
}

it.each([
  ['a deleted event', ['DELETE FROM events WHERE seq = 2'], 'event'],
  ['an event with another body', ['UPDATE events SET body = replace(body, \'"stream":false\', \'"stream":true\') WHERE seq = 2'], 'event'],
  ['an event with another amount', ['UPDATE events SET amount_nano = amount_nano + 1 WHERE seq = 2'], 'row of an event'],
  ...['tenant', 'project', 'key', 'model', 'endpoint', 'provider', 'status', 'usage_source', 'end_user', 'node'].map(
    (column) => [`an event with another ${column}`, [`UPDATE events SET ${column} = 'zz' WHERE seq = 2`], 'row of an event'] as const,
  ),
  ...['admitted_at', 'input', 'cached_input', 'cache_write', 'output', 'reasoning', 'cost_nano', 'overrun_nano'].map(
    (column) => [`an event with more ${column}`, [`UPDATE events SET ${column} = ${column} + 7 WHERE seq = 2`], 'row of an event'] as const,
  ),
  ['an event with another number', ['UPDATE events SET seq = 77 WHERE seq = 2'], 'row of an event'],
  ['an event on another day', ["UPDATE events SET day = '2020-01-01' WHERE seq = 2"], 'row of an event'],
  ['an event that nothing superseded', ['UPDATE events SET superseded = 1 WHERE seq = 2'], 'row of an event'],
  [
    'usage that was taken out of the ledger with its balances',
    [
      'UPDATE ledger_balances AS b SET amount = amount - COALESCE((SELECT SUM(amount) FROM ledger_entries AS l WHERE l.code = b.code ' +
        "AND l.owner = b.owner AND l.ref = b.ref AND l.unit = b.unit AND l.transaction_id LIKE 'usage-%'), 0)",
      "DELETE FROM ledger_entries WHERE transaction_id LIKE 'usage-%'",
      "DELETE FROM ledger_transactions WHERE kind = 'usage'",
    ],
    'entries of usage',
  ],
  [
    'usage without its transaction',
    ['PRAGMA foreign_keys = OFF', "DELETE FROM ledger_transactions WHERE kind = 'usage'"],
    'usage transaction',
  ],
  ['usage out of balance', ["UPDATE ledger_entries SET amount = amount + 1 WHERE code = 'usage_revenue'"], 'usage transaction'],
  ['revenue of another tenant', ["UPDATE ledger_entries SET owner = 'zz' WHERE code = 'usage_revenue'"], 'entries of usage'],
  ['a running balance', ["UPDATE ledger_balances SET amount = amount + 5 WHERE code = 'usage_revenue'"], 'running balance'],
  ['a lost running balance', ["DELETE FROM ledger_balances WHERE code = 'usage_revenue'"], 'running balance'],
  ['a minute', ["UPDATE usage_minutes SET input = input + 1 WHERE dimension = ''"], 'usage by minute'],
  ['a minute of an end user', ["DELETE FROM usage_minutes WHERE dimension = 'end_user'"], 'usage by minute'],
  ['a minute nobody used', ['UPDATE usage_minutes SET at = at - 60000'], 'usage by minute'],
] as readonly (readonly [string, readonly string[], string])[])(
  '%s is told by the check, which changes nothing, put right by the rebuild, and then there is nothing more to do',
  async (...row) => {
    const [, sabotage, what] = row
    const gateway = await served()
    books(gateway, ...sabotage)
    const seen = await run(gateway, true)
    expect(seen.map((change) => change.what)).toContain(what)
    expect(await run(gateway, true)).toEqual(seen)
    expect((await run(gateway, false)).map((change) => change.what)).toContain(what)
    expect(await run(gateway, true)).toEqual([])
    await gateway.audit()
  },
)

it('where an event is lost with its row of the journal, what was posted of it stays, and the loss is named', async () => {
  const gateway = await served()
  const { storage } = gateway
  const sums = async (): Promise<unknown> => [
    await storage.ledger.balances(),
    (await storage.ledger.usage({ periods: [{ from_ms: 0, to_ms: 8e12 }], by: ['tenant'], limit: 9 })).rows,
  ]
  const before = await sums()
  books(gateway, "DELETE FROM journal WHERE kind = 'U' AND event_seq = 2", 'DELETE FROM events WHERE seq = 2')
  expect((await run(gateway, false)).filter(({ what }) => !what.startsWith('used of'))).toEqual([])
  expect(await sums()).toEqual(before)
  expect((await storage.rebuilder.lost()).map(({ what }) => what)).toEqual(['event number', 'entries of usage that differ from events'])
})

it('where a top-up has lost its entries, the balances that it left stay, and it is named', async () => {
  const gateway = await served()
  const { ledger, rebuilder } = gateway.storage
  const before = await ledger.balances()
  books(gateway, "DELETE FROM ledger_entries WHERE transaction_id IN (SELECT id FROM ledger_transactions WHERE kind = 'top_up')")
  expect(await run(gateway, false)).toEqual([])
  expect(await ledger.balances()).toEqual(before)
  expect((await rebuilder.lost()).map(({ what }) => what)).toEqual(['transaction', 'running balances that differ from entries'])
})

it('hours and days that are not the sums of their minutes are derived again', async () => {
  const gateway = await served()
  // An hour and a day long past, so that both are derived.
  const { storage } = gateway
  const hour = Math.floor((Date.now() - 50 * 3_600_000) / 3_600_000) * 3_600_000
  books(
    gateway,
    `INSERT INTO usage_hours SELECT tenant, ${hour}, dimension, value, project, key, model, endpoint, requests, completed, input, cached_input,
     cache_write, output, reasoning, searches, images, amount_nano, cost_nano, overrun_nano FROM usage_minutes LIMIT 1`,
  )
  expect((await run(gateway, true)).map(({ what }) => what)).toContain('usage by hour')
  await run(gateway, false)
  expect(await run(gateway, true)).toEqual([])
  expect((await storage.ledger.auditFacts()).wrong_rollups).toEqual([])
})

it('windows and budgets that admission has otherwise than the events say are put right beside what is held', async () => {
  const gateway = await served()
  const { limits } = gateway.storage
  expect(await run(gateway, true)).toEqual([])
  const rules = (await import('../../src/storage/rules.ts')).rulesOf(
    'key',
    gateway.main_account.key.id,
    LIMITS,
    'Asia/Shanghai',
    Date.now(),
  )
  const before = await limits.states(rules)
  for (const [index, rule] of rules.entries()) limits.shift(rule, BigInt(index + 1), before[index]?.resets_at_ms ?? Infinity)
  expect((await run(gateway, true)).map(({ what }) => what)).toEqual([
    'used of day tokens_window',
    'used of month requests_window',
    'used of 5h requests_window',
    'used of budget',
  ])
  await run(gateway, false)
  expect(await limits.states(rules)).toEqual(before)
  expect(await run(gateway, true)).toEqual([])
})

it('a row of the journal that no batch of the ledger covers is posted again, once', async () => {
  const gateway = await served()
  const { ledger } = gateway.storage
  const facts = await ledger.auditFacts()
  // As if the watermark had passed over everything without posting it: events, entries, balances and sums of usage are gone.
  books(
    gateway,
    'DELETE FROM events',
    "DELETE FROM ledger_entries WHERE transaction_id IN (SELECT id FROM ledger_transactions WHERE kind = 'usage')",
    "DELETE FROM ledger_transactions WHERE kind = 'usage'",
    'DELETE FROM ledger_balances',
    'DELETE FROM usage_minutes',
  )
  expect((await run(gateway, false)).filter(({ what }) => what === 'event')).toHaveLength(4)
  const again = await ledger.auditFacts()
  expect({ events: again.events, amount_nano: again.amount_nano }).toEqual({ events: facts.events, amount_nano: facts.amount_nano })
  expect(await run(gateway, true)).toEqual([])
  await gateway.audit()
})
