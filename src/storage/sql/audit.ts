import { entriesOf, EntrySums } from '../accounts.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { AuditFacts, UsageMark } from '../books.ts'
import type { LedgerEntry } from '../ports.ts'
import type { GrantRecord } from '../records.ts'
import { ACCOUNT_STATEMENTS, accountsOff, accountText, entryFrom, WRONG_GRANTS } from './audit-accounts.ts'
import { DIFFERING_NAMES, DIFFERS, UNLIKE_BODY } from './audit-columns.ts'
import { ROLLUP_STATEMENTS, wrongRollups } from './audit-rollups.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { brokenSeals } from './seal.ts'

const MOST = 10

/** Rows of a day whose file is durable are being deleted: from then on the books about the file stand for them. */
const PRESENT = 'day NOT IN (SELECT day FROM archives)'

const UNBALANCED =
  'SELECT DISTINCT transaction_id AS id FROM (SELECT transaction_id FROM ledger_entries ' +
  `GROUP BY transaction_id, unit HAVING SUM(amount) <> 0) LIMIT ${MOST}`

/** The running balances against the entries they sum up. */
const WRONG_BALANCES =
  'SELECT code, owner, ref, unit FROM (' +
  'SELECT code, owner, ref, unit, amount FROM ledger_balances ' +
  'UNION ALL SELECT code, owner, ref, unit, -SUM(amount) FROM ledger_entries GROUP BY code, owner, ref, unit) ' +
  `GROUP BY code, owner, ref, unit HAVING SUM(amount) <> 0 LIMIT ${MOST}`

/**
 * Journal and events are compared row by row over this many of the newest rows, which is all of a small database. What is older was
 * compared when it was new; since then numbers show what is missing or more, and sums what has another amount. `weir rebuild --check`
 * compares everything.
 */
const COMPARED_ROWS = 300_000
const OLDEST_COMPARED = `(SELECT MAX(seq) - ${COMPARED_ROWS} FROM journal)`

/**
 * Journal rows whose event is not there, or has another body. Missing ones up to the mark: what came after it may wait to be posted.
 * Archived days have no journal rows left but those of late events.
 */
const UNLIKE =
  'SELECT j.id, e.id IS NULL AS missing FROM journal AS j ' +
  'LEFT JOIN events AS e ON e.day = j.day AND e.id = j.id AND e.revision = j.revision ' +
  "WHERE j.kind = 'U' AND j.seq > ? AND ((e.id IS NULL AND j.seq <= ? AND j.day NOT IN (SELECT day FROM archives)) OR e.body <> j.body) " +
  `LIMIT ${2 * MOST}`

const LATE = `SELECT id || ' (its day ' || day || ' is archived)' AS id FROM late_events LIMIT ${MOST}`

/** Only events of this node from the oldest kept U row on: rows before it were deleted after their time. */
const UNEXPLAINED =
  "SELECT e.id FROM events AS e WHERE e.node = (SELECT value FROM meta WHERE name = 'node') AND e.seq >= " +
  "(SELECT event_seq FROM journal WHERE kind = 'U' ORDER BY seq LIMIT 1) " +
  'AND e.day NOT IN (SELECT day FROM archives) AND (SELECT MIN(seq) FROM journal) > ? AND NOT EXISTS ' +
  "(SELECT 1 FROM journal AS j WHERE j.id = e.id AND j.revision = e.revision AND j.kind IN ('U', 'R')) " +
  `LIMIT ${MOST}`

/** One pass over the events: counts, numbers of nodes, calls per day and tenant, and how many rows are not what their bodies say. */
const PASS =
  'SELECT node, day, tenant, MIN(seq) AS low, MAX(seq) AS high, COUNT(*) AS numbers, SUM(seq) AS total, SUM(superseded) AS superseded, ' +
  'SUM(revision = 2) AS seconds, SUM(superseded = 0) AS requests, SUM(unlike) AS unlike, ' +
  `${['amount_nano', 'searches', 'images'].map((name) => `SUM(CASE superseded WHEN 0 THEN ${name} ELSE 0 END) AS ${name}`).join(', ')} ` +
  // The limit keeps bodies out of what is sorted.
  `FROM (SELECT node, day, tenant, seq, superseded, revision, amount_nano, ${UNLIKE_BODY} AS unlike, ` +
  "json_extract(body, '$.calls.search') AS searches, json_extract(body, '$.calls.image') AS images " +
  `FROM events NOT INDEXED WHERE ${PRESENT} LIMIT -1) GROUP BY node, day, tenant`

/** Needs a look only where the pass counts other numbers of superseded events than of second revisions. */
const TWICE = `SELECT id FROM events WHERE superseded = 0 GROUP BY day, id HAVING COUNT(*) <> 1 LIMIT ${MOST}`

/** Needs a look only where the pass found rows that are not what their bodies say. */
const WRONG_COLUMNS = `SELECT id || ' (' || ${DIFFERING_NAMES} || 'of its row)' AS id FROM events WHERE ${PRESENT} AND ${DIFFERS} LIMIT ${MOST}`

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

const OPEN =
  "SELECT id FROM journal AS s WHERE kind = 'S' AND seq >= ? AND seq <= ? AND NOT EXISTS " +
  "(SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R') AND c.seq <= ?) ORDER BY seq"

const OPEN_FLOOR = "CAST(COALESCE((SELECT value FROM meta WHERE name = 'open_floor'), '0') AS INTEGER)"

const ARCHIVED = 'SELECT COALESCE(SUM(requests), 0) AS events, COALESCE(SUM(amount_nano), 0) AS amount_nano FROM archives'

/** Event numbers outside the rows, and the ends of this node's numbering so that a number missing there shows too. */
const OTHER_RUNS =
  'SELECT node, first_seq AS first, last_seq AS last FROM archive_numbers WHERE day IN (SELECT day FROM archives) ' +
  'UNION ALL SELECT node, seq, seq FROM late_events ' +
  "UNION ALL SELECT value, 0, 0 FROM meta WHERE name = 'node' " +
  "UNION ALL SELECT n.value, s.value + 1, s.value + 1 FROM meta AS n JOIN meta AS s ON s.name = 'event_seq' WHERE n.name = 'node'"

const OTHER_NUMBERS =
  'SELECT node, MIN(first) AS low, MAX(last) AS high, SUM(last - first + 1) AS numbers, ' +
  `SUM((first + last) * (last - first + 1) / 2) AS total FROM (${OTHER_RUNS}) GROUP BY node`

const GAPS =
  'SELECT node, before + 1 AS first, first - 1 AS last FROM (' +
  'SELECT node, first, LAG(last) OVER (PARTITION BY node ORDER BY first) AS before FROM (' +
  `SELECT node, seq AS first, seq AS last FROM events WHERE ${PRESENT} UNION ALL ${OTHER_RUNS}) WHERE node = ?) ` +
  `WHERE first > before + 1 ORDER BY first LIMIT ${MOST}`

const BALANCES = 'SELECT code, owner, ref, unit, amount FROM ledger_balances'

/** Events that were closed after the mark and are posted, each with what it superseded. */
const AFTER =
  'SELECT e.body, earlier.body AS earlier FROM journal AS j ' +
  'JOIN events AS e ON e.day = j.day AND e.id = j.id AND e.revision = j.revision ' +
  'LEFT JOIN events AS earlier ON j.revision = 2 AND earlier.day = j.day AND earlier.id = j.id AND earlier.revision = 1 ' +
  "WHERE j.kind = 'U' AND j.seq > ? AND j.seq <= CAST((SELECT value FROM meta WHERE name = 'posted_seq') AS INTEGER)"

const AFTER_KINDS =
  'SELECT DISTINCT g.id, g.kind FROM journal AS j LEFT JOIN events AS r ON j.revision = 2 AND r.day = j.day AND r.id = j.id ' +
  "CROSS JOIN json_each(COALESCE(r.body, j.body), '$.parts') AS p CROSS JOIN grants AS g ON g.id = json_extract(p.value, '$.grant') " +
  "WHERE j.kind = 'U' AND j.seq > ?"

/** Transactions that limits had not heard of at the mark. */
const AFTER_TRANSACTIONS =
  'SELECT l.code, l.owner, l.ref, l.unit, SUM(l.amount) AS amount FROM ledger_transactions AS t ' +
  'JOIN ledger_entries AS l ON l.transaction_id = t.id ' +
  "WHERE t.kind <> 'usage' AND (t.rowid > ? OR t.id IN (SELECT value FROM json_each(?))) GROUP BY 1, 2, 3, 4"

const END = Number.MAX_SAFE_INTEGER

/**
 * Reads the facts of an audit in one read transaction (and where numbers are missing, which ones in a second).
 * A full pass over the events: run it on a connection of its own.
 */
export async function readAuditFacts(executor: Pick<SqlExecutor, 'read'>, mark?: UsageMark): Promise<AuditFacts> {
  const named = Object.entries(statementsAt(mark))
  const results = await executor.read(named.map(([, statement]) => statement))
  const rows = new Map(named.map(([name], index) => [name, results[index] ?? []]))
  const of = (name: keyof ReturnType<typeof statementsAt>): readonly SqlRow[] => rows.get(name) ?? []
  const ids = (...names: Parameters<typeof of>[0][]): readonly string[] => [...new Set(names.flatMap((name) => idsOf(of(name))))]
  const pass = of('pass')
  const gaps = await readGaps(executor, [...pass, ...of('other_numbers')])
  const [unlike, unexplained] = gaps.length === 0 ? [of('unlike'), of('unexplained')] : await readOlder(executor, mark)
  const missing = unlike.filter((row) => numberOf(row, 'missing') === 1)
  const counts = [...pass.map((row) => ({ ...row, events: bigOf(row, 'requests') })), ...of('archived')]
  const off = accountsOff(of)
  return {
    unbalanced: ids('unbalanced'),
    missing_events: [...idsOf(missing).slice(0, MOST), ...ids('late')],
    unexplained_events: [...idsOf(unexplained), ...ids('returned')],
    differing_events: [
      ...new Set([
        ...idsOf(unlike.filter((row) => !missing.includes(row))),
        ...(await readTwice(executor, pass)),
        ...(await readColumns(executor, pass)),
      ]),
    ],
    gaps,
    wrong_sums: [
      ...off.map(({ account, events, entries }) => `${accountText(account)}: events ${events}, entries ${entries}`).toSorted(),
      ...of('wrong_balances').map(balanceName),
    ],
    wrong_transactions: [
      ...idsOf(of('orphans')).map((id) => `${id} has entries and is not there`),
      ...idsOf(of('without_entries')).map((id) => `${id} has no entries`),
      ...(await brokenSeals(executor)),
    ],
    wrong_grants: ids('wrong_grants'),
    wrong_rollups: wrongRollups(pass, of),
    open_requests: ids('open'),
    balances: balancesAt(of('balances'), of('after'), of('after_kinds'), of('after_transactions')),
    events: Number(sumOf(counts, 'events')),
    amount_nano: sumOf(counts, 'amount_nano'),
  }
}

/** Journal and events row by row, however many: numbers have shown that something is not there, or is there twice. */
async function readOlder(
  executor: Pick<SqlExecutor, 'read'>,
  mark: UsageMark | undefined,
): Promise<readonly [readonly SqlRow[], readonly SqlRow[]]> {
  const [unlike = [], unexplained = []] = await executor.read([
    { sql: UNLIKE, params: [-1, mark?.row_seq ?? END] },
    { sql: UNEXPLAINED, params: [-1] },
  ])
  return [unlike, unexplained]
}

/** Every account's balance as of a mark. */
export async function readBalancesAt(executor: Pick<SqlExecutor, 'read'>, mark: UsageMark): Promise<readonly LedgerEntry[]> {
  const { balances, after, after_kinds, after_transactions } = statementsAt(mark)
  const [now = [], later = [], kinds = [], transactions = []] = await executor.read([balances, after, after_kinds, after_transactions])
  return balancesAt(now, later, kinds, transactions)
}

function sumOf(rows: readonly SqlRow[], column: string): bigint {
  return rows.reduce((sum, row) => sum + bigOf(row, column), 0n)
}

async function readTwice(executor: Pick<SqlExecutor, 'read'>, pass: readonly SqlRow[]): Promise<readonly string[]> {
  if (sumOf(pass, 'superseded') === sumOf(pass, 'seconds')) return []
  const [rows = []] = await executor.read([{ sql: TWICE, params: [] }])
  return idsOf(rows)
}

async function readColumns(executor: Pick<SqlExecutor, 'read'>, pass: readonly SqlRow[]): Promise<readonly string[]> {
  if (sumOf(pass, 'unlike') === 0n) return []
  const [rows = []] = await executor.read([{ sql: WRONG_COLUMNS, params: [] }])
  return idsOf(rows)
}

function statementsAt(mark: UsageMark | undefined) {
  const row_seq = mark?.row_seq ?? END
  const plain = (sql: string): SqlStatement => ({ sql, params: [] })
  const open =
    mark?.open_floor === undefined
      ? { sql: OPEN.replace('?', mark === undefined ? OPEN_FLOOR : '0'), params: [row_seq, row_seq] }
      : { sql: OPEN, params: [mark.open_floor, row_seq, row_seq] }
  return {
    unbalanced: plain(UNBALANCED),
    wrong_balances: plain(WRONG_BALANCES),
    unlike: { sql: UNLIKE.replace('?', OLDEST_COMPARED), params: [row_seq] },
    late: plain(LATE),
    unexplained: plain(UNEXPLAINED.replace('?', OLDEST_COMPARED)),
    returned: plain(RETURNED),
    orphans: plain(ORPHANS),
    without_entries: plain(WITHOUT_ENTRIES),
    wrong_grants: WRONG_GRANTS,
    pass: plain(PASS),
    other_numbers: plain(OTHER_NUMBERS),
    archived: plain(ARCHIVED),
    ...ACCOUNT_STATEMENTS,
    open,
    ...ROLLUP_STATEMENTS,
    balances: plain(BALANCES),
    after: { sql: AFTER, params: [row_seq] },
    after_kinds: { sql: AFTER_KINDS, params: [row_seq] },
    after_transactions: { sql: AFTER_TRANSACTIONS, params: [mark?.transaction_seq ?? END, JSON.stringify(mark?.pending ?? [])] },
  } satisfies Record<string, SqlStatement>
}

const NUMBERS =
  'SELECT node, MIN(seq) AS low, MAX(seq) AS high, COUNT(*) AS numbers, SUM(seq) AS total ' +
  `FROM events NOT INDEXED WHERE ${PRESENT} GROUP BY node`

/** A missing number that the journal has is an event that can be posted again. */
const IN_JOURNAL =
  "SELECT COUNT(DISTINCT event_seq) AS count FROM journal WHERE kind = 'U' AND event_seq BETWEEN ? AND ? " +
  "AND (SELECT value FROM meta WHERE name = 'node') = ?"

/** Numbers of events that are neither here nor in an archive, nor can come back from the journal. */
export async function lostNumbers(executor: Pick<SqlExecutor, 'read'>): Promise<readonly string[]> {
  const [numbers = [], others = []] = await executor.read([
    { sql: NUMBERS, params: [] },
    { sql: OTHER_NUMBERS, params: [] },
  ])
  const lost: string[] = []
  for (const gap of await readGaps(executor, [...numbers, ...others])) {
    const [, node = '', first, last] = /^(.*) (\d+)(?:–(\d+))?$/.exec(gap) ?? []
    const [from, to] = [Number(first), Number(last ?? first)]
    const [rows] = first === undefined ? [] : await executor.read([{ sql: IN_JOURNAL, params: [from, to, node] }])
    if (rows?.[0] === undefined || numberOf(rows[0], 'count') !== to - from + 1) lost.push(gap)
  }
  return lost
}

/** Numbers missing of nodes whose count or sum of numbers shows that some are; only then are they looked for. */
async function readGaps(executor: Pick<SqlExecutor, 'read'>, numbers: readonly SqlRow[]): Promise<readonly string[]> {
  const nodes = [...Map.groupBy(numbers, (row) => textOf(row, 'node'))].filter(([, rows]) => !isWhole(rows)).map(([node]) => node)
  if (nodes.length === 0) return []
  const results = await executor.read(nodes.slice(0, MOST).map((node) => ({ sql: GAPS, params: [node] })))
  const gaps = results.flat().map((row) => {
    const [first, last] = [numberOf(row, 'first'), numberOf(row, 'last')]
    return `${textOf(row, 'node')} ${first === last ? first : `${first}–${last}`}`
  })
  // Sums that do not fit without a number missing: some number is there twice.
  return gaps.length > 0 ? gaps : nodes.map((node) => `${node} has a number twice`)
}

function isWhole(rows: readonly SqlRow[]): boolean {
  const low = rows.map((row) => bigOf(row, 'low')).reduce((a, b) => (a < b ? a : b))
  const high = rows.map((row) => bigOf(row, 'high')).reduce((a, b) => (a > b ? a : b))
  const count = high - low + 1n
  return sumOf(rows, 'numbers') === count && sumOf(rows, 'total') * 2n === (low + high) * count
}

/** Balances as they were at the mark: without what events and transactions after it have posted since. */
function balancesAt(
  now: readonly SqlRow[],
  after: readonly SqlRow[],
  kinds: readonly SqlRow[],
  transactions: readonly SqlRow[],
): readonly LedgerEntry[] {
  if (after.length === 0 && transactions.length === 0) return now.map(entryFrom)
  const known = new Map(kinds.map((row) => [textOf(row, 'id'), textOf(row, 'kind') as GrantRecord['kind']]))
  const kindOf = (grant: string): GrantRecord['kind'] | undefined => known.get(grant)
  const sums = new EntrySums()
  sums.add(now.map(entryFrom))
  sums.add(transactions.map(entryFrom), -1n)
  for (const row of after) {
    sums.add(entriesOf(decodeEvent(textOf(row, 'body')), kindOf), -1n)
    if (row['earlier'] !== null) sums.add(entriesOf(decodeEvent(textOf(row, 'earlier')), kindOf))
  }
  return sums.entries()
}

function idsOf(rows: readonly SqlRow[]): readonly string[] {
  return rows.map((row) => textOf(row, 'id'))
}

function balanceName(row: SqlRow): string {
  const [code, owner, ref, unit] = ['code', 'owner', 'ref', 'unit'].map((column) => textOf(row, column))
  return `balance of ${code} ${owner} ${ref} in ${unit} is not the sum of its entries`
}
