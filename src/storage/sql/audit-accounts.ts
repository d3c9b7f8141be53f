import { entriesOf, EntrySums } from '../accounts.ts'
import type { AccountCode, Account, LedgerEntry } from '../ports.ts'
import type { GrantRecord } from '../records.ts'
import type { GrantUnit } from '../../money/grant.ts'
import type { SqlDialect } from './dialect.ts'
import { bigOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'

const PRESENT = 'day NOT IN (SELECT day FROM archives)'

/** What events paid with, per tenant and grant, archived days included; `kind` is the grant's, if it has a record. */
function paid({ jsonText, jsonInteger, jsonItems }: SqlDialect): string {
  return (
    'SELECT s.owner, s.ref, s.unit, s.amount, g.kind FROM (SELECT owner, ref, unit, SUM(amount) AS amount FROM (' +
    `SELECT e.tenant AS owner, ${jsonText('p.value', 'grant')} AS ref, ${jsonText('p.value', 'unit')} AS unit, ` +
    `${jsonInteger('p.value', 'amount')} AS amount ` +
    `FROM events AS e CROSS JOIN ${jsonItems('e.body', 'parts', 'p')} WHERE e.superseded = 0 AND e.${PRESENT} ` +
    "UNION ALL SELECT owner, ref, unit, amount FROM archive_sums WHERE unit <> 'cost' AND day IN (SELECT day FROM archives)) AS u " +
    'GROUP BY owner, ref, unit) AS s LEFT JOIN grants AS g ON g.id = s.ref'
  )
}

function costs({ indexed }: SqlDialect): string {
  return (
    'SELECT owner, SUM(amount) AS amount FROM (SELECT provider AS owner, SUM(cost_nano) AS amount ' +
    `FROM ${indexed('events', null)} WHERE superseded = 0 AND ${PRESENT} GROUP BY provider ` +
    "UNION ALL SELECT owner, amount FROM archive_sums WHERE unit = 'cost' AND day IN (SELECT day FROM archives)) AS u GROUP BY owner"
  )
}

const GRANT_CODES = "('wallet_liability', 'prepaid_grant', 'contract_commitment')"

/** The account into which a grant was given. Transactions that are no usage have seals: this is surer than the grant's record. */
const GIVEN =
  'SELECT DISTINCT l.code, l.owner, l.ref, l.unit FROM ledger_transactions AS t CROSS JOIN ledger_entries AS l ' +
  `WHERE l.transaction_id = t.id AND t.number IS NOT NULL AND l.code IN ${GRANT_CODES}`

/** Usage of which the ledger has something that cannot be: entries out of balance, or no transaction to them, or none of them. */
const BROKEN =
  "SELECT id, 'entries that do not balance' AS was FROM ledger_transactions WHERE kind = 'usage' AND id IN " +
  '(SELECT transaction_id FROM ledger_entries GROUP BY transaction_id, unit HAVING SUM(amount) <> 0) ' +
  "UNION ALL SELECT DISTINCT transaction_id, 'entries without a transaction' FROM ledger_entries WHERE transaction_id LIKE 'usage-%' " +
  'AND transaction_id NOT IN (SELECT id FROM ledger_transactions) ' +
  "UNION ALL SELECT id, 'a transaction without entries' FROM ledger_transactions AS t WHERE kind = 'usage' " +
  'AND NOT EXISTS (SELECT 1 FROM ledger_entries AS l WHERE l.transaction_id = t.id)'

const usageEntries = (where: string): string =>
  'SELECT l.code, l.owner, l.ref, l.unit, SUM(l.amount) AS amount FROM ledger_entries AS l ' +
  `JOIN ledger_transactions AS t ON t.id = l.transaction_id AND t.kind = 'usage' ${where} GROUP BY 1, 2, 3, 4`

const plain = (sql: string): SqlStatement => ({ sql, params: [] })

/** What {@link accountsOff} reads; in one read transaction. */
export function accountStatements(dialect: SqlDialect) {
  return {
    paid: plain(paid(dialect)),
    costs: plain(costs(dialect)),
    given: plain(GIVEN),
    booked: plain(usageEntries('')),
  } as const satisfies Record<string, SqlStatement>
}

export const BROKEN_STATEMENT = plain(BROKEN)
/** To be read as `booked` where broken usage is to be posted again. */
export const SOUND_STATEMENT = plain(usageEntries(`WHERE t.id NOT IN (SELECT id FROM (${BROKEN}) AS b)`))

/** An account whose entries of usage are not what events say. */
export interface AccountOff {
  readonly account: Account
  readonly events: bigint
  readonly entries: bigint
}

const KIND_OF: Readonly<Record<string, GrantRecord['kind']>> = {
  wallet_liability: 'wallet',
  prepaid_grant: 'pack',
  contract_commitment: 'contract',
}

/** Every account of usage, from events, against its entries. By account, so that one event's wrong account shows too. */
export function accountsOff(rowsOf: (name: keyof ReturnType<typeof accountStatements>) => readonly SqlRow[]): readonly AccountOff[] {
  const given = new Map(rowsOf('given').map((row) => [grantOf(row), textOf(row, 'code')]))
  const [events, entries] = [new EntrySums(), new EntrySums()]
  for (const row of rowsOf('paid')) {
    const [tenant, grant, unit] = [textOf(row, 'owner'), textOf(row, 'ref'), textOf(row, 'unit') as GrantUnit]
    const kind = KIND_OF[given.get(grantOf(row)) ?? ''] ?? (row['kind'] as GrantRecord['kind'] | null) ?? undefined
    const part = { grant, unit, amount: bigOf(row, 'amount') }
    events.add(entriesOf({ tenant, parts: [part], provider: '', cost_nano: 0n }, () => kind))
  }
  for (const row of rowsOf('costs')) {
    events.add(entriesOf({ tenant: '', parts: [], provider: textOf(row, 'owner'), cost_nano: bigOf(row, 'amount') }, () => undefined))
  }
  entries.add(rowsOf('booked').map(entryFrom))
  const found = new Map(entries.entries().map(({ account, amount }) => [accountText(account), amount]))
  const off = new EntrySums()
  off.add(events.entries())
  off.add(entries.entries(), -1n)
  const of_entries = (account: Account): bigint => found.get(accountText(account)) ?? 0n
  return off.entries().map(({ account, amount }) => ({ account, events: of_entries(account) + amount, entries: of_entries(account) }))
}

export function accountText({ code, owner, ref, unit }: Account): string {
  return `${code} ${owner}${ref === '' ? '' : ` ${ref}`} in ${unit}`
}

export function entryFrom(row: SqlRow): LedgerEntry {
  const code = textOf(row, 'code') as AccountCode
  const unit = textOf(row, 'unit') as GrantUnit
  return { account: { code, owner: textOf(row, 'owner'), ref: textOf(row, 'ref'), unit }, amount: bigOf(row, 'amount') }
}

function grantOf(row: SqlRow): string {
  return [textOf(row, 'owner'), textOf(row, 'ref'), textOf(row, 'unit')].join('\n')
}

const OF_RECORD =
  "CASE WHEN g.unit <> 'nano_cny' THEN 'prepaid_grant' WHEN g.kind IN ('subscription', 'pack') THEN 'prepaid_grant' " +
  "WHEN g.kind = 'contract' THEN 'contract_commitment' ELSE 'wallet_liability' END"

/** Records of grants against the transactions that gave them; a record that is not posted yet is not judged. */
export const WRONG_GRANTS = plain(
  'SELECT DISTINCT g.id FROM ledger_transactions AS t CROSS JOIN ledger_entries AS l CROSS JOIN grants AS g ' +
    `WHERE l.transaction_id = t.id AND g.id = l.ref AND t.number IS NOT NULL AND l.code IN ${GRANT_CODES} AND (l.owner <> g.tenant OR l.unit <> g.unit OR l.code <> ${OF_RECORD} ` +
    "OR (t.id = 'grant:' || g.id AND l.amount <> -g.amount)) LIMIT 10",
)
