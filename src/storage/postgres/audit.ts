import type { AuditFacts, UsageMark } from '../books.ts'
import { entryFrom } from '../sql/audit-accounts.ts'
import { countedRuns, gapsBetween, readGaps } from '../sql/audit-numbers.ts'
import { commonFacts, commonStatements, PASS_COUNTS, PRESENT, readNamed } from '../sql/audit-parts.ts'
import { numberOf, type SqlExecutor, type SqlStatement, textOf } from '../sql/executor.ts'
import { BALANCES } from '../sql/balances.ts'
import { POSTGRES } from './dialect.ts'
import { BODY_ROW, UNLIKE_BODY } from './rebuild-rows.ts'

const plain = (sql: string): SqlStatement => ({ sql, params: [] })

/** One pass over the events, in which each body is read once: counts, calls, and how many rows are not what their bodies say. */
const PASS =
  `SELECT node, day, tenant, ${PASS_COUNTS} FROM (SELECT e.node, e.day, e.tenant, e.superseded, e.revision, e.amount_nano, ` +
  `CASE WHEN ${UNLIKE_BODY} THEN 1 ELSE 0 END AS unlike, ` +
  "(j.calls ->> 'search')::bigint AS searches, (j.calls ->> 'image')::bigint AS images " +
  `FROM events AS e ${BODY_ROW} WHERE e.${PRESENT}) AS p ` +
  'GROUP BY node, day, tenant'

/** Up to which number events of a node are judged; its parameter is a JSON object. */
const LIMITS = 'WITH limits AS (SELECT key AS node, value::bigint AS last FROM json_each_text(?::json)) '

/** Whether nodes that no limit names are judged too, between the first and the last number that is there. */
type Others = 'judged' | 'not judged'

const joined = (others: Others, node: string): string => `${others === 'judged' ? 'LEFT ' : ''}JOIN limits AS l ON l.node = ${node}`

function eventsUpTo(others: Others): string {
  return `(SELECT e.node, e.seq, e.day FROM events AS e ${joined(others, 'e.node')} WHERE e.seq <= COALESCE(l.last, e.seq)) AS e`
}

/** Numbers outside the rows, and the ends of what each node has numbered, so that a number missing there shows too. */
function otherRuns(others: Others): string {
  return (
    'SELECT o.node, o.first, LEAST(o.last, COALESCE(l.last, o.last)) AS last FROM (' +
    'SELECT node, first_seq AS first, last_seq AS last FROM archive_numbers WHERE day IN (SELECT day FROM archives) ' +
    'UNION ALL SELECT node, seq, seq FROM late_events UNION ALL SELECT node, seq, seq FROM superseded_numbers' +
    `) AS o ${joined(others, 'o.node')} WHERE o.first <= COALESCE(l.last, o.first) ` +
    'UNION ALL SELECT node, 0, 0 FROM limits UNION ALL SELECT node, last + 1, last + 1 FROM limits'
  )
}

function numbers(others: Others): string {
  return (
    'SELECT node, MIN(seq) AS low, MAX(seq) AS high, COUNT(*) AS numbers, SUM(seq) AS total ' +
    `FROM ${eventsUpTo(others)} WHERE ${PRESENT} GROUP BY node`
  )
}

/** What of the numbering of nodes is judged. */
interface Judged {
  readonly others: Others
  /** JSON of the last number of each node. */
  readonly limits: string
}

/** Read before anything else: what nodes number meanwhile need not be in the ledger yet. */
async function judgedNodes(executor: Pick<SqlExecutor, 'read'>, mark: UsageMark | undefined): Promise<Judged> {
  if (mark?.nodes !== undefined) {
    return { others: 'not judged', limits: JSON.stringify(Object.fromEntries(mark.nodes.map(({ node, event_seq }) => [node, event_seq]))) }
  }
  const [rows = []] = await executor.read([plain('SELECT node, last_seq FROM nodes')])
  const limits = Object.fromEntries(rows.map((row) => [textOf(row, 'node'), numberOf(row, 'last_seq')]))
  if (mark !== undefined) limits[mark.node] = mark.event_seq
  return { others: 'judged', limits: JSON.stringify(limits) }
}

/**
 * Reads the facts of an audit, in one read transaction but for what only differences ask for. Journals are elsewhere: which of their rows
 * are not in the ledger shows in the numbers alone, and which requests are open they say themselves.
 */
export async function readAuditFacts(executor: Pick<SqlExecutor, 'read'>, mark?: UsageMark): Promise<AuditFacts> {
  const { others, limits } = await judgedNodes(executor, mark)
  const of = await readNamed(executor, {
    ...commonStatements(POSTGRES, plain(PASS)),
    numbers: { sql: LIMITS + numbers(others), params: [limits] },
    other_numbers: { sql: LIMITS + countedRuns(otherRuns(others)), params: [limits] },
    balances: plain(BALANCES),
  })
  const gaps = await readGaps(executor, [...of('numbers'), ...of('other_numbers')], gapStatement(others, limits))
  return {
    ...(await commonFacts(executor, POSTGRES, of)),
    gaps,
    open_requests: [],
    balances: mark?.balances ?? of('balances').map(entryFrom),
  }
}

const gapStatement =
  (others: Others, limits: string) =>
  (node: string): SqlStatement => ({ sql: LIMITS + gapsBetween(otherRuns(others), eventsUpTo(others)), params: [limits, node] })

/** Numbers of events that are not in the ledger, nor in an archive: lost, or still on their way from a node. */
export async function missingNumbers(executor: Pick<SqlExecutor, 'read'>): Promise<readonly string[]> {
  const { others, limits } = await judgedNodes(executor, undefined)
  const [own = [], elsewhere = []] = await executor.read([
    { sql: LIMITS + numbers(others), params: [limits] },
    { sql: LIMITS + countedRuns(otherRuns(others)), params: [limits] },
  ])
  return await readGaps(executor, [...own, ...elsewhere], gapStatement(others, limits))
}
