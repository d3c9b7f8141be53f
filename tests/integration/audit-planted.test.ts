import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { givingEntries } from '../../src/storage/accounts.ts'
import type { AuditFacts } from '../../src/storage/books.ts'
import type { GrantRecord } from '../../src/storage/records.ts'
import { wrongFacts } from '../support/archive.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { openControl } from '../support/control.ts'
import { closingEvent, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const DAY_MS = 86_400_000
const WALLET: GrantRecord = {
  id: 'wallet-acme',
  tenant: 'acme',
  kind: 'wallet',
  unit: 'nano_cny',
  amount: 0n,
  priority: 100,
  models: null,
  weights: null,
  expires_at: null,
  created_at: 0,
}
const PACK: GrantRecord = { ...WALLET, id: 'pack', kind: 'pack', unit: 'tokens', amount: 500n }

function edit(data_dir: string, sql: string): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  database.exec(sql)
  database.close()
}

/** Events, top-ups and a grant of a day that is long over, whose books agree. */
async function agreeing(): Promise<string> {
  const [data_dir, clock] = [tempDir(), testClock(ADMITTED_AT + 3 * DAY_MS)]
  const storage = await openTest(data_dir, { clock })
  for (const record of [WALLET, PACK]) await storage.records.put({ kind: 'grant', record })
  for (const id of ['a', 'b', 'c']) {
    await storage.log.close(closingEvent(id, { end_user: 'u', tags: { team: 'x' } }))
    await storage.ledger.transact({ id: `credit-${id}`, at: 1, kind: 'top_up', note: id, entries: givingEntries(WALLET, 1000n) })
  }
  await storage.ledger.transact({ id: 'grant:pack', at: 2, kind: 'grant', note: '', entries: givingEntries(PACK, PACK.amount) })
  await storage.ledger.post()
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  while (database.prepare('SELECT 1 FROM usage_stale').get() !== undefined) await new Promise((resolve) => setTimeout(resolve, 20))
  database.close()
  expect(await wrongFacts(storage)).toEqual({})
  await storage.close()
  return data_dir
}

const TABLES = ['usage_minutes', 'usage_hours', 'usage_days']

const PLANTED: readonly (readonly [keyof AuditFacts, string])[] = [
  ['wrong_sums', "UPDATE ledger_entries SET owner = 'zz' WHERE code = 'supplier_cost'"],
  ['wrong_sums', "UPDATE ledger_entries SET code = 'prepaid_grant' WHERE code = 'wallet_liability' AND transaction_id LIKE 'usage-%'"],
  ['differing_events', "UPDATE events SET key = 'zz' WHERE id = 'b'"],
  ['differing_events', "UPDATE events SET input = input + 1, output = output - 1 WHERE id = 'b'"],
  ['differing_events', "UPDATE events SET end_user = NULL WHERE id = 'b'"],
  [
    'wrong_transactions',
    "DELETE FROM ledger_entries WHERE transaction_id = 'credit-b'; DELETE FROM ledger_transactions WHERE id = 'credit-b'",
  ],
  [
    'wrong_transactions',
    "DELETE FROM ledger_entries WHERE transaction_id = 'grant:pack'; DELETE FROM ledger_transactions WHERE id = 'grant:pack'",
  ],
  ['wrong_transactions', "UPDATE ledger_entries SET amount = amount * 2 WHERE transaction_id = 'credit-b'"],
  ['wrong_transactions', "UPDATE ledger_transactions SET at = at - 1 WHERE id = 'credit-b'"],
  ['wrong_transactions', "UPDATE ledger_transactions SET kind = 'usage' WHERE id = 'credit-b'"],
  ['wrong_transactions', "INSERT INTO ledger_transactions (id, at, kind, note) VALUES ('more', 1, 'top_up', '')"],
  ['wrong_transactions', "PRAGMA foreign_keys = OFF; DELETE FROM ledger_transactions WHERE kind = 'usage'"],
  ['wrong_transactions', "INSERT INTO ledger_transactions (id, at, kind, note) VALUES ('usage-x-1-2', 1, 'usage', '')"],
  ['wrong_grants', "UPDATE grants SET amount = 5 WHERE id = 'pack'"],
  ['wrong_grants', "UPDATE grants SET unit = 'requests' WHERE id = 'pack'"],
  ['wrong_grants', "UPDATE grants SET kind = 'contract' WHERE id = 'wallet-acme'"],
  ['wrong_rollups', "UPDATE usage_minutes SET completed = completed + 1 WHERE dimension = ''"],
  ['wrong_rollups', "UPDATE usage_minutes SET model = 'zz' WHERE dimension = ''"],
  ['wrong_rollups', "UPDATE usage_hours SET reasoning = reasoning + 1 WHERE dimension = 'end_user'"],
  ['wrong_rollups', "UPDATE usage_days SET value = 'zz' WHERE dimension = 'tag:team'"],
  ['wrong_rollups', "UPDATE usage_days SET overrun_nano = 1 WHERE dimension = ''"],
  ['wrong_rollups', TABLES.map((table) => `UPDATE ${table} SET searches = searches + 1 WHERE dimension = ''`).join(';')],
  ['wrong_rollups', TABLES.map((table) => `UPDATE ${table} SET key = 'zz' WHERE dimension = ''`).join(';')],
  [
    'wrong_rollups',
    TABLES.map(
      (table) =>
        `CREATE TEMP TABLE t AS SELECT * FROM ${table}; UPDATE t SET at = at - 7 * ${DAY_MS}; INSERT INTO ${table} SELECT * FROM t; DROP TABLE t`,
    ).join(';'),
  ],
]

it.each(PLANTED)('the audit sees, after a restart too, %s: %s', async (fact, sql) => {
  const data_dir = await agreeing()
  edit(data_dir, sql)
  const storage = await openTest(data_dir, { clock: testClock(ADMITTED_AT + 3 * DAY_MS) })
  const wrong = await wrongFacts(storage)
  await storage.close()
  expect(Object.keys(wrong)).toContain(fact)
})

it('transactions of a release that did not number them are numbered and sealed at the first start', async () => {
  const data_dir = await agreeing()
  const read = (): unknown => {
    const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
    const rows = database.prepare('SELECT * FROM ledger_transactions ORDER BY rowid').all()
    database.close()
    return rows
  }
  const before = read()
  edit(data_dir, "UPDATE ledger_transactions SET number = NULL, digest = NULL; DELETE FROM meta WHERE name = 'ledger_number'")
  await (await openTest(data_dir)).close()
  expect(read()).toEqual(before)
})

it('an audit is a job, beside a rebuild too, and says which archived days it looked at', async () => {
  const control = await openControl(tempDir())
  const started = await Promise.all(['rebuild', 'audits', 'audits'].map((path) => control.call('POST', `/admin/v1/${path}`, {})))
  expect(started.map(({ status }) => status)).toEqual([202, 202, 409])
  const id = Number(started[1]?.body['id'])
  const look = async (): Promise<Record<string, unknown>> => (await control.call('GET', `/admin/v1/jobs/${id}`)).body
  while ((await look())['state'] === 'running') await new Promise((resolve) => setTimeout(resolve, 20))
  expect(await look()).toMatchObject({
    kind: 'audit',
    state: 'done',
    progress: { of: 4 },
    result: { object: 'audit', ok: true, checked: { archives: 0 }, findings: [] },
  })
})
