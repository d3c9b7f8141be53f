import { addAmounts } from '../accounts.ts'
import type { AuditFacts } from '../ports.ts'
import { bigOf, numberOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'

const MOST = 10

const UNBALANCED =
  'SELECT DISTINCT transaction_id AS id FROM (SELECT transaction_id FROM ledger_entries ' +
  `GROUP BY transaction_id, unit HAVING SUM(amount) <> 0) LIMIT ${MOST}`

/** The running balances against the entries they sum up. */
const WRONG_BALANCES =
  'SELECT code, owner, ref, unit FROM (' +
  'SELECT code, owner, ref, unit, amount FROM ledger_balances ' +
  'UNION ALL SELECT code, owner, ref, unit, -SUM(amount) FROM ledger_entries GROUP BY code, owner, ref, unit) ' +
  `GROUP BY code, owner, ref, unit HAVING SUM(amount) <> 0 LIMIT ${MOST}`

const MISSING =
  "SELECT j.id FROM journal AS j WHERE j.kind = 'U' AND NOT EXISTS " +
  `(SELECT 1 FROM events AS e WHERE e.day = j.day AND e.id = j.id AND e.revision = j.revision) LIMIT ${MOST}`

/** Only events of this node from the oldest kept U row on: rows before it were deleted after their time. */
const UNEXPLAINED =
  "SELECT e.id FROM events AS e WHERE e.node = (SELECT value FROM meta WHERE name = 'node') AND e.seq >= " +
  "(SELECT MIN(event_seq) FROM journal WHERE kind = 'U') AND NOT EXISTS " +
  "(SELECT 1 FROM journal AS j WHERE j.id = e.id AND j.revision = e.revision AND j.kind IN ('U', 'R')) " +
  `LIMIT ${MOST}`

const DIFFERING =
  "SELECT j.id FROM journal AS j JOIN events AS e ON e.day = j.day AND e.id = j.id AND e.revision = j.revision WHERE j.kind = 'U' " +
  `AND e.body <> j.body LIMIT ${MOST}`

const TWICE = `SELECT id FROM events WHERE superseded = 0 GROUP BY day, id HAVING COUNT(*) <> 1 LIMIT ${MOST}`

/** The amount columns against the bodies that they were taken from. */
const WRONG_COLUMNS =
  "SELECT id FROM events WHERE amount_nano <> CAST(json_extract(body, '$.amount_nano') AS INTEGER) " +
  `OR cost_nano <> CAST(json_extract(body, '$.cost_nano') AS INTEGER) LIMIT ${MOST}`

const EVENT_SUMS =
  "SELECT e.tenant AS owner, json_extract(p.value, '$.unit') AS unit, SUM(CAST(json_extract(p.value, '$.amount') AS INTEGER)) AS amount " +
  "FROM events AS e, json_each(e.body, '$.parts') AS p WHERE e.superseded = 0 GROUP BY 1, 2"

const COST_SUMS = "SELECT provider AS owner, 'cost' AS unit, SUM(cost_nano) AS amount FROM events WHERE superseded = 0 GROUP BY 1"

const ENTRY_SUMS =
  "SELECT l.owner, CASE l.code WHEN 'supplier_payable' THEN 'cost' ELSE l.unit END AS unit, SUM(-l.amount) AS amount " +
  "FROM ledger_entries AS l JOIN ledger_transactions AS t ON t.id = l.transaction_id AND t.kind = 'usage' " +
  "WHERE l.code IN ('usage_revenue', 'supplier_payable') GROUP BY 1, 2"

const OPEN =
  "SELECT id FROM journal AS s WHERE kind = 'S' AND seq >= CAST(COALESCE((SELECT value FROM meta WHERE name = 'open_floor'), '0') AS INTEGER) " +
  "AND NOT EXISTS (SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R')) ORDER BY seq"

const TOTAL = 'SELECT COUNT(*) AS events, COALESCE(SUM(amount_nano), 0) AS amount_nano FROM events WHERE superseded = 0'

/** What the audit reads, in this order, in one read transaction. */
export const AUDIT_STATEMENTS: readonly SqlStatement[] = [
  UNBALANCED,
  WRONG_BALANCES,
  MISSING,
  UNEXPLAINED,
  DIFFERING,
  TWICE,
  WRONG_COLUMNS,
  EVENT_SUMS,
  COST_SUMS,
  ENTRY_SUMS,
  OPEN,
  TOTAL,
].map((sql) => ({ sql, params: [] }))

/** The facts of an audit from the rows of {@link AUDIT_STATEMENTS}. */
export function auditFactsOf(results: readonly (readonly SqlRow[])[]): AuditFacts {
  const [unbalanced = [], wrong_balances = [], missing = [], unexplained = [], differing = [], twice = []] = results
  const [wrong_columns = [], event_sums = [], cost_sums = [], entry_sums = [], open = [], total = []] = results.slice(6)
  const [all] = total
  return {
    unbalanced: idsOf(unbalanced),
    missing_events: idsOf(missing),
    unexplained_events: idsOf(unexplained),
    differing_events: [...new Set([...idsOf(differing), ...idsOf(twice), ...idsOf(wrong_columns)])],
    wrong_sums: [...differences([...event_sums, ...cost_sums], entry_sums), ...wrong_balances.map(balanceName)],
    open_requests: idsOf(open),
    events: all === undefined ? 0 : numberOf(all, 'events'),
    amount_nano: all === undefined ? 0n : bigOf(all, 'amount_nano'),
  }
}

function idsOf(rows: readonly SqlRow[]): readonly string[] {
  return rows.map((row) => textOf(row, 'id'))
}

function balanceName(row: SqlRow): string {
  const [code, owner, ref, unit] = ['code', 'owner', 'ref', 'unit'].map((column) => textOf(row, column))
  return `balance of ${code} ${owner} ${ref} in ${unit} is not the sum of its entries`
}

function differences(events: readonly SqlRow[], entries: readonly SqlRow[]): readonly string[] {
  const [left, right] = [sumsOf(events), sumsOf(entries)]
  const names = [...new Set([...left.keys(), ...right.keys()])].toSorted()
  return names.flatMap((name) => {
    const [of_events, of_entries] = [left.get(name) ?? 0n, right.get(name) ?? 0n]
    return of_events === of_entries ? [] : [`${name}: events ${of_events}, entries ${of_entries}`]
  })
}

function sumsOf(rows: readonly SqlRow[]): ReadonlyMap<string, bigint> {
  const sums = new Map<string, bigint>()
  for (const row of rows) {
    const name = `${textOf(row, 'owner')} ${textOf(row, 'unit')}`
    sums.set(name, addAmounts(sums.get(name) ?? 0n, bigOf(row, 'amount')))
  }
  return sums
}
