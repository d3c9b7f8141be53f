import { decodeEvent } from '../../money/event-json.ts'
import { entriesOf, EntrySums } from '../accounts.ts'
import type { AuditFacts, UsageMark } from '../books.ts'
import type { LedgerEntry } from '../ports.ts'
import type { GrantRecord } from '../records.ts'
import { entryFrom } from './audit-accounts.ts'
import { UNLIKE_BODY } from './audit-columns.ts'
import { countedRuns, gapsBetween, readGaps } from './audit-numbers.ts'
import { commonFacts, commonStatements, idsOf, MOST, PASS_COUNTS, PRESENT, readNamed } from './audit-parts.ts'
import { SQLITE } from './dialect.ts'
import { BALANCES } from './balances.ts'
import { numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'

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

/** Only events of this node from the oldest kept U row on: rows before it were deleted after their time. */
const UNEXPLAINED =
  "SELECT e.id FROM events AS e WHERE e.node = (SELECT value FROM meta WHERE name = 'node') AND e.seq >= " +
  "(SELECT event_seq FROM journal WHERE kind = 'U' ORDER BY seq LIMIT 1) " +
  'AND e.day NOT IN (SELECT day FROM archives) AND (SELECT MIN(seq) FROM journal) > ? AND NOT EXISTS ' +
  "(SELECT 1 FROM journal AS j WHERE j.id = e.id AND j.revision = e.revision AND j.kind IN ('U', 'R')) " +
  `LIMIT ${MOST}`

/** One pass over the events: counts, numbers of nodes, calls per day and tenant, and how many rows are not what their bodies say. */
const PASS =
  `SELECT node, day, tenant, MIN(seq) AS low, MAX(seq) AS high, COUNT(*) AS numbers, SUM(seq) AS total, ${PASS_COUNTS} ` +
  // The limit keeps bodies out of what is sorted.
  `FROM (SELECT node, day, tenant, seq, superseded, revision, amount_nano, ${UNLIKE_BODY} AS unlike, ` +
  "json_extract(body, '$.calls.search') AS searches, json_extract(body, '$.calls.image') AS images " +
  `FROM events NOT INDEXED WHERE ${PRESENT} LIMIT -1) GROUP BY node, day, tenant`

const OPEN =
  "SELECT id FROM journal AS s WHERE kind = 'S' AND seq >= ? AND seq <= ? AND NOT EXISTS " +
  "(SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R') AND c.seq <= ?) ORDER BY seq"

const OPEN_FLOOR = "CAST(COALESCE((SELECT value FROM meta WHERE name = 'open_floor'), '0') AS INTEGER)"

/** Event numbers outside the rows, and the ends of this node's numbering so that a number missing there shows too. */
const OTHER_RUNS =
  'SELECT node, first_seq AS first, last_seq AS last FROM archive_numbers WHERE day IN (SELECT day FROM archives) ' +
  'UNION ALL SELECT node, seq, seq FROM late_events ' +
  "UNION ALL SELECT value, 0, 0 FROM meta WHERE name = 'node' " +
  "UNION ALL SELECT n.value, s.value + 1, s.value + 1 FROM meta AS n JOIN meta AS s ON s.name = 'event_seq' WHERE n.name = 'node'"

const OTHER_NUMBERS = countedRuns(OTHER_RUNS)
const gapsOf = (node: string): SqlStatement => ({ sql: gapsBetween(OTHER_RUNS), params: [node] })

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
  const of = await readNamed(executor, statementsAt(mark))
  const gaps = await readGaps(executor, [...of('pass'), ...of('other_numbers')], gapsOf)
  const [unlike, unexplained] = gaps.length === 0 ? [of('unlike'), of('unexplained')] : await readOlder(executor, mark)
  const missing = unlike.filter((row) => numberOf(row, 'missing') === 1)
  const common = await commonFacts(executor, SQLITE, of)
  return {
    ...common,
    missing_events: [...idsOf(missing).slice(0, MOST), ...common.missing_events],
    unexplained_events: [...idsOf(unexplained), ...common.unexplained_events],
    differing_events: [...new Set([...idsOf(unlike.filter((row) => !missing.includes(row))), ...common.differing_events])],
    gaps,
    open_requests: idsOf(of('open')),
    balances: balancesAt(of('balances'), of('after'), of('after_kinds'), of('after_transactions')),
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

function statementsAt(mark: UsageMark | undefined) {
  const row_seq = mark?.row_seq ?? END
  const plain = (sql: string): SqlStatement => ({ sql, params: [] })
  const open =
    mark?.open_floor === undefined
      ? { sql: OPEN.replace('?', mark === undefined ? OPEN_FLOOR : '0'), params: [row_seq, row_seq] }
      : { sql: OPEN, params: [mark.open_floor, row_seq, row_seq] }
  return {
    ...commonStatements(SQLITE, plain(PASS)),
    unlike: { sql: UNLIKE.replace('?', OLDEST_COMPARED), params: [row_seq] },
    unexplained: plain(UNEXPLAINED.replace('?', OLDEST_COMPARED)),
    other_numbers: plain(OTHER_NUMBERS),
    open,
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
  for (const gap of await readGaps(executor, [...numbers, ...others], gapsOf)) {
    const [, node = '', first, last] = /^(.*) (\d+)(?:–(\d+))?$/.exec(gap) ?? []
    const [from, to] = [Number(first), Number(last ?? first)]
    const [rows] = first === undefined ? [] : await executor.read([{ sql: IN_JOURNAL, params: [from, to, node] }])
    if (rows?.[0] === undefined || numberOf(rows[0], 'count') !== to - from + 1) lost.push(gap)
  }
  return lost
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
