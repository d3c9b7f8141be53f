/** What of a SQLite database is moved into another one, read page by page in an order that a later run can go on in. */
import { bigOf, type SqlExecutor, type SqlRow, type SqlValue, textOf } from './executor.ts'

/** Tables that are moved, row by row. Whatever is added to the schema is named here or in {@link LEFT_BEHIND}. */
export const MOVED = [
  ...(['tenants', 'projects', 'keys', 'grants', 'tenant_routing', 'provider_keys', 'price_versions', 'changes'] as const),
  ...(['ledger_transactions', 'ledger_entries', 'ledger_balances', 'events', 'late_events'] as const),
  ...(['usage_minutes', 'usage_hours', 'usage_days', 'usage_stale'] as const),
  ...(['archives', 'archive_sums', 'archive_numbers'] as const),
] as const
export type MovedTable = (typeof MOVED)[number]

/** Of the journal's rows everything is in the ledger; its numbers go on under another name. */
export const LEFT_BEHIND = ['meta', 'journal', 'charges', 'migrations'] as const

/** A column as it is selected, and what it holds. */
export interface MovedColumn {
  readonly name: string
  readonly select: string
  readonly kind: 'text' | 'integer'
}
export interface TableShape {
  readonly table: MovedTable
  readonly columns: readonly MovedColumn[]
  /** Columns by which rows are ordered, no two alike. */
  readonly key: readonly string[]
  readonly rows: number
}
/** Values of a shape's key. */
export type Position = readonly SqlValue[]

/** An entry's place within its transaction, which SQLite keeps in its own numbers of rows. */
const LINE: MovedColumn = {
  name: 'line',
  select: 'rowid - (SELECT MIN(f.rowid) FROM ledger_entries AS f WHERE f.transaction_id = ledger_entries.transaction_id)',
  kind: 'integer',
}

/** Reads what a table's columns are, and how many rows it has. */
export async function shapeOf(table: MovedTable, source: Pick<SqlExecutor, 'read'>): Promise<TableShape> {
  const [columns = [], [count = {}] = []] = await source.read([
    { sql: 'SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid', params: [table] },
    { sql: `SELECT COUNT(*) AS rows FROM ${table}`, params: [] },
  ])
  const own = columns.map((row): MovedColumn => {
    const name = textOf(row, 'name')
    return { name, select: name, kind: textOf(row, 'type') === 'INTEGER' ? 'integer' : 'text' }
  })
  const key = columns
    .filter((row) => bigOf(row, 'pk') > 0n)
    .toSorted((a, b) => Number(bigOf(a, 'pk') - bigOf(b, 'pk')))
    .map((row) => textOf(row, 'name'))
  const rows = Number(bigOf(count, 'rows'))
  if (table === 'ledger_entries') return { table, columns: [...own, LINE], key: ['transaction_id', 'line'], rows }
  return { table, columns: own, key, rows }
}

/** Rows of a table that are read and written at once: of what may be megabytes each, few. */
export function pageRows(table: MovedTable): number {
  return table === 'tenant_routing' ? 20 : 2000
}

/** The rows after a position, at most `limit`, in the order of the key. */
export async function pageAfter(
  shape: TableShape,
  position: Position | null,
  limit: number,
  source: Pick<SqlExecutor, 'read'>,
): Promise<readonly SqlRow[]> {
  const selects = new Map(shape.columns.map(({ name, select }) => [name, select]))
  const keys = shape.key.map((name) => selects.get(name) ?? name).join(', ')
  const after = position === null ? '' : `WHERE (${keys}) > (${position.map(() => '?').join(', ')}) `
  const columns = shape.columns.map(({ name, select }) => `${select} AS "${name}"`).join(', ')
  const sql = `SELECT ${columns} FROM ${shape.table} ${after}ORDER BY ${keys} LIMIT ${limit}`
  const [rows = []] = await source.read([{ sql, params: position ?? [] }])
  return rows
}

export function positionOf(shape: TableShape, row: SqlRow): Position {
  return shape.key.map((name) => row[name] ?? null)
}

/** A position as text, and back. */
export function writePosition(position: Position): string {
  return JSON.stringify(position.map((value) => (typeof value === 'bigint' ? { integer: value.toString() } : value)))
}

export function readPosition(text: string): Position {
  const values = JSON.parse(text) as readonly (string | null | { readonly integer: string })[]
  return values.map((value) => (value !== null && typeof value === 'object' ? BigInt(value.integer) : value))
}

/** Numbers that the books go on from. */
export interface MovedNumbers {
  readonly change_number: bigint
  readonly ledger_number: bigint
  readonly usage_floor: bigint
}

export async function numbersOf(source: Pick<SqlExecutor, 'read'>): Promise<MovedNumbers> {
  const [[changes] = [], facts = []] = await source.read([
    { sql: "SELECT seq FROM sqlite_sequence WHERE name = 'changes'", params: [] },
    { sql: "SELECT name, CAST(value AS INTEGER) AS value FROM meta WHERE name IN ('ledger_number', 'usage_floor')", params: [] },
  ])
  const known = new Map(facts.map((row) => [textOf(row, 'name'), bigOf(row, 'value')]))
  return {
    change_number: changes === undefined ? 0n : bigOf(changes, 'seq'),
    ledger_number: known.get('ledger_number') ?? 0n,
    usage_floor: known.get('usage_floor') ?? 0n,
  }
}
