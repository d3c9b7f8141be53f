/** What rebuilding is on either database: statements that both understand, and differences in words. */
import type { LimitUse, RebuildChange, UsageMark } from '../books.ts'
import { FLOOR } from './cells.ts'
import type { SqlDialect } from './dialect.ts'
import { bigOf, instantOf, numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { SUMS } from './rollup-batch.ts'

/** Differences told of each kind; the rest is counted. All of them are put right. */
const MOST_TOLD = 100

const USED = {
  requests_window: ['1', 'requests'],
  tokens_window: ['input + cached_input + cache_write + output', 'input + cached_input + cache_write + output'],
  amount: ['amount_nano', 'amount_nano'],
} as const

/** Sums of one message to a database. */
const USES_PER_READ = 50

/** What was used of each, in the order given. */
export async function readUses(
  uses: readonly LimitUse[],
  mark: UsageMark,
  dialect: SqlDialect,
  database: Pick<SqlExecutor, 'read'>,
): Promise<readonly bigint[]> {
  const used: bigint[] = []
  for (let from = 0; from < uses.length; from += USES_PER_READ) {
    const slice = uses.slice(from, from + USES_PER_READ)
    const results = await database.read(slice.map((use) => useStatement(use, mark, dialect)))
    for (const [row] of results) used.push(row === undefined ? 0n : bigOf(row, 'used'))
  }
  return used
}

/** Rows of events, and of archived days their minutes (hours, where minutes are no longer kept). What came after the mark is left out. */
function useStatement({ tenant, rule, from_ms, to_ms }: LimitUse, mark: UsageMark, { dateOf }: SqlDialect): SqlStatement {
  const { scope, scope_id, model, kind } = rule
  const [of_event, of_sum] = kind === 'requests_window' || kind === 'tokens_window' ? USED[kind] : USED.amount
  const narrow = `${scope === 'tenant' ? '' : ` AND ${scope} = ?`}${model === null ? '' : ' AND model = ?'}`
  const span = [tenant, instantOf(from_ms), instantOf(to_ms), ...(scope === 'tenant' ? [] : [scope_id]), ...(model === null ? [] : [model])]
  const later = '(e.node = ? AND e.seq > ?)'
  const sums = (table: string, where: string): string =>
    `SELECT ${of_sum} AS used FROM ${table} AS s WHERE tenant = ? AND at >= ? AND at < ?${narrow} AND dimension = '' AND ${where} AND ` +
    `${dateOf('at')} IN (SELECT day FROM archives)`
  const sql =
    `SELECT COALESCE(SUM(used), 0) AS used FROM (SELECT ${of_event} AS used FROM events AS e ` +
    `WHERE tenant = ? AND admitted_at >= ? AND admitted_at < ?${narrow} AND day NOT IN (SELECT day FROM archives) AND NOT ${later} ` +
    'AND (superseded = 0 OR EXISTS (SELECT 1 FROM events AS n WHERE n.day = e.day AND n.id = e.id AND n.revision = 2 AND ' +
    `n.node = ? AND n.seq > ?)) UNION ALL ${sums('usage_minutes', `at >= ${FLOOR}`)} UNION ALL ${sums('usage_hours', `at < ${FLOOR}`)}) AS u`
  return { sql, params: [...span, mark.node, mark.event_seq, mark.node, mark.event_seq, ...span, ...span] }
}

/** What cells of one tenant and time are called. */
export function placeOf(row: SqlRow): string {
  return `${textOf(row, 'tenant')} ${new Date(numberOf(row, 'at')).toISOString()}`
}

/** One change per tenant and time; `cells` hold by how much each sum is too small. */
export function sumChanges(grain: string, cells: readonly SqlRow[]): readonly RebuildChange[] {
  return [...Map.groupBy(cells, placeOf)].map(([id, rows]) => {
    const off = SUMS.map((name) => [name, rows.reduce((sum, row) => (row['dimension'] === '' ? sum - bigOf(row, name) : sum), 0n)] as const)
    const figures = off.filter(([, by]) => by !== 0n).map(([name, by]) => `${name} off by ${by}`)
    const was = figures.length > 0 ? figures.join(', ') : 'sums by end user or tag are off'
    return { what: `usage by ${grain}`, id, was, now: grain === 'minute' ? 'the sums of its events' : 'the sums of its finer sums' }
  })
}

/** Not more than anybody reads. */
export function told(changes: readonly RebuildChange[]): readonly RebuildChange[] {
  if (changes.length <= MOST_TOLD) return changes
  const [first] = changes
  const more = { what: first?.what ?? '', id: `${changes.length - MOST_TOLD} more`, was: 'likewise', now: 'likewise' }
  return [...changes.slice(0, MOST_TOLD), more]
}

/** A running balance that is not the sum of its entries. */
export function balanceChange(row: SqlRow): RebuildChange {
  const [code, owner, ref, unit] = ['code', 'owner', 'ref', 'unit'].map((name) => textOf(row, name))
  const id = `${code} ${owner}${ref === '' ? '' : ` ${ref}`} in ${unit}`
  return { what: 'running balance', id, was: String(bigOf(row, 'was')), now: String(bigOf(row, 'was') + bigOf(row, 'missing')) }
}

/** Accounts whose running balance `was` is too small by what is `missing`. */
export const WRONG_BALANCES =
  'SELECT code, owner, ref, unit, SUM(was) AS was, SUM(amount) AS missing FROM (' +
  'SELECT code, owner, ref, unit, amount AS was, -amount AS amount FROM ledger_balances ' +
  'UNION ALL SELECT code, owner, ref, unit, 0, SUM(amount) FROM ledger_entries GROUP BY code, owner, ref, unit) AS b ' +
  'GROUP BY code, owner, ref, unit HAVING SUM(amount) <> 0'

/** A row of an event of which some column is not what its body says. */
export function columnsChange(row: SqlRow): RebuildChange {
  const was = `with another ${textOf(row, 'names').trimEnd().replaceAll(' ', ', ')}`
  return { what: 'row of an event', id: textOf(row, 'id'), was, now: 'as its body has it' }
}

/** A row of an event that counts and should not, or the reverse. */
export function standingChange(row: SqlRow): RebuildChange {
  const [was, now] = numberOf(row, 'superseded') === 1 ? ['superseded', 'in force'] : ['in force', 'superseded']
  return { what: 'row of an event', id: textOf(row, 'id'), was, now }
}
