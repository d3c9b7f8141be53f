import type { AuditFacts } from '../books.ts'
import { accountsOff, accountStatements, accountText, WRONG_GRANTS } from './audit-accounts.ts'
import { differingNames, differs } from './audit-columns.ts'
import { rollupStatements, wrongRollups } from './audit-rollups.ts'
import type { SqlDialect } from './dialect.ts'
import { bigOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { brokenSeals } from './seal.ts'

/** Of each kind of difference this many are named. */
export const MOST = 10

/** Rows of a day whose file is durable are being deleted: from then on the books about the file stand for them. */
export const PRESENT = 'day NOT IN (SELECT day FROM archives)'

const UNBALANCED =
  'SELECT DISTINCT transaction_id AS id FROM (SELECT transaction_id FROM ledger_entries ' +
  `GROUP BY transaction_id, unit HAVING SUM(amount) <> 0) AS t LIMIT ${MOST}`

/** The running balances against the entries they sum up. */
const WRONG_BALANCES =
  'SELECT code, owner, ref, unit FROM (' +
  'SELECT code, owner, ref, unit, amount FROM ledger_balances ' +
  'UNION ALL SELECT code, owner, ref, unit, -SUM(amount) FROM ledger_entries GROUP BY code, owner, ref, unit) AS b ' +
  `GROUP BY code, owner, ref, unit HAVING SUM(amount) <> 0 LIMIT ${MOST}`

const LATE = `SELECT id || ' (its day ' || day || ' is archived)' AS id FROM late_events LIMIT ${MOST}`

/** Needs a look only where the pass counts other numbers of superseded events than of second revisions. */
const TWICE = `SELECT id FROM events WHERE superseded = 0 GROUP BY day, id HAVING COUNT(*) <> 1 LIMIT ${MOST}`

/** Needs a look only where the pass found rows that are not what their bodies say. */
function wrongColumns(dialect: SqlDialect): string {
  return (
    `SELECT id || ' (' || ${differingNames(dialect)} || 'of its row)' AS id FROM events ` +
    `WHERE ${PRESENT} AND ${differs(dialect)} LIMIT ${MOST}`
  )
}

/** Rows that came back after their day was closed. */
const RETURNED =
  "SELECT id || ' (its day ' || day || ' is archived)' AS id FROM events " +
  `WHERE day IN (SELECT day FROM archives WHERE state = 'closed') LIMIT ${MOST}`

const ORPHANS =
  'SELECT DISTINCT transaction_id AS id FROM ledger_entries ' +
  `WHERE transaction_id NOT IN (SELECT id FROM ledger_transactions) LIMIT ${MOST}`

const WITHOUT_ENTRIES =
  "SELECT id FROM ledger_transactions AS t WHERE kind = 'usage' AND NOT EXISTS " +
  `(SELECT 1 FROM ledger_entries AS l WHERE l.transaction_id = t.id) LIMIT ${MOST}`

const ARCHIVED = 'SELECT COALESCE(SUM(requests), 0) AS events, COALESCE(SUM(amount_nano), 0) AS amount_nano FROM archives'

/** What the pass over the events counts, per node, day and tenant. */
export const PASS_COUNTS =
  'SUM(superseded) AS superseded, SUM(CASE revision WHEN 2 THEN 1 ELSE 0 END) AS seconds, ' +
  'SUM(CASE superseded WHEN 0 THEN 1 ELSE 0 END) AS requests, SUM(unlike) AS unlike, ' +
  ['amount_nano', 'searches', 'images'].map((name) => `SUM(CASE superseded WHEN 0 THEN ${name} ELSE 0 END) AS ${name}`).join(', ')

const plain = (sql: string): SqlStatement => ({ sql, params: [] })

/** What the ledger, its events and their sums say about each other; `pass` is one pass over the events ({@link PASS_COUNTS}). */
export function commonStatements(dialect: SqlDialect, pass: SqlStatement) {
  return {
    unbalanced: plain(UNBALANCED),
    wrong_balances: plain(WRONG_BALANCES),
    late: plain(LATE),
    returned: plain(RETURNED),
    orphans: plain(ORPHANS),
    without_entries: plain(WITHOUT_ENTRIES),
    wrong_grants: WRONG_GRANTS,
    pass,
    archived: plain(ARCHIVED),
    ...accountStatements(dialect),
    ...rollupStatements(dialect),
  } as const satisfies Record<string, SqlStatement>
}

export type RowsOf<Name> = (name: Name) => readonly SqlRow[]

/** Runs named statements in one read transaction. */
export async function readNamed<Name extends string>(
  executor: Pick<SqlExecutor, 'read'>,
  statements: Readonly<Record<Name, SqlStatement>>,
): Promise<RowsOf<Name>> {
  const names = Object.keys(statements) as Name[]
  const results = await executor.read(names.map((name) => statements[name]))
  const rows = new Map(names.map((name, index) => [name, results[index] ?? []]))
  return (name) => rows.get(name) ?? []
}

type CommonFacts = Omit<AuditFacts, 'gaps' | 'open_requests' | 'balances'>

/** The facts that {@link commonStatements} tell; journals may add to them. */
export async function commonFacts(
  executor: Pick<SqlExecutor, 'read'>,
  dialect: SqlDialect,
  of: RowsOf<keyof ReturnType<typeof commonStatements>>,
): Promise<CommonFacts> {
  const pass = of('pass')
  const counts = [...pass.map((row) => ({ ...row, events: bigOf(row, 'requests') })), ...of('archived')]
  const off = accountsOff(of)
  return {
    unbalanced: idsOf(of('unbalanced')),
    missing_events: idsOf(of('late')),
    unexplained_events: idsOf(of('returned')),
    differing_events: [...(await readTwice(executor, pass)), ...(await readColumns(executor, dialect, pass))],
    wrong_sums: [
      ...off.map(({ account, events, entries }) => `${accountText(account)}: events ${events}, entries ${entries}`).toSorted(),
      ...of('wrong_balances').map(balanceName),
    ],
    wrong_transactions: [
      ...idsOf(of('orphans')).map((id) => `${id} has entries and is not there`),
      ...idsOf(of('without_entries')).map((id) => `${id} has no entries`),
      ...(await brokenSeals(executor, dialect)),
    ],
    wrong_grants: idsOf(of('wrong_grants')),
    wrong_rollups: wrongRollups(pass, of),
    events: Number(sumOf(counts, 'events')),
    amount_nano: sumOf(counts, 'amount_nano'),
  }
}

export function sumOf(rows: readonly SqlRow[], column: string): bigint {
  return rows.reduce((sum, row) => sum + bigOf(row, column), 0n)
}

export function idsOf(rows: readonly SqlRow[]): readonly string[] {
  return [...new Set(rows.map((row) => textOf(row, 'id')))]
}

async function readTwice(executor: Pick<SqlExecutor, 'read'>, pass: readonly SqlRow[]): Promise<readonly string[]> {
  if (sumOf(pass, 'superseded') === sumOf(pass, 'seconds')) return []
  const [rows = []] = await executor.read([plain(TWICE)])
  return idsOf(rows)
}

async function readColumns(executor: Pick<SqlExecutor, 'read'>, dialect: SqlDialect, pass: readonly SqlRow[]): Promise<readonly string[]> {
  if (sumOf(pass, 'unlike') === 0n) return []
  const [rows = []] = await executor.read([plain(wrongColumns(dialect))])
  return idsOf(rows)
}

function balanceName(row: SqlRow): string {
  const [code, owner, ref, unit] = ['code', 'owner', 'ref', 'unit'].map((column) => textOf(row, column))
  return `balance of ${code} ${owner} ${ref} in ${unit} is not the sum of its entries`
}
