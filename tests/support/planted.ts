import { givingEntries } from '../../src/storage/accounts.ts'
import type { AuditFacts } from '../../src/storage/books.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { GrantRecord } from '../../src/storage/records.ts'
import { closingEvent } from './storage.ts'

const DAY_MS = 86_400_000
export const WALLET: GrantRecord = {
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
export const PACK: GrantRecord = { ...WALLET, id: 'pack', kind: 'pack', unit: 'tokens', amount: 500n }

/** Events, top-ups and a grant, posted. */
export async function serveAgreeing({ records, log, ledger }: Pick<Storage, 'records' | 'log' | 'ledger'>): Promise<void> {
  for (const record of [WALLET, PACK]) await records.put({ kind: 'grant', record })
  for (const id of ['a', 'b', 'c']) {
    await log.close(closingEvent(id, { end_user: 'u', tags: { team: 'x' } }))
    await ledger.transact({ id: `credit-${id}`, at: 1, kind: 'top_up', note: id, entries: givingEntries(WALLET, 1000n) })
  }
  await ledger.transact({ id: 'grant:pack', at: 2, kind: 'grant', note: '', entries: givingEntries(PACK, PACK.amount) })
  await ledger.post()
}

const TABLES = ['usage_minutes', 'usage_hours', 'usage_days']

/** What is done to sound books behind their back, and which fact of the audit must tell. In SQL that both databases understand. */
export const PLANTED: readonly (readonly [keyof AuditFacts, string])[] = [
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
  ['wrong_transactions', "DELETE FROM ledger_transactions WHERE kind = 'usage'"],
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
