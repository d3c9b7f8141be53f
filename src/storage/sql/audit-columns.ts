/** Columns of an event row are copied from its body, which alone counts. */
import type { SqlDialect } from './dialect.ts'

const TEXTS = [
  'tenant',
  'project',
  'key',
  'model',
  'endpoint',
  'provider',
  'status',
  'usage_source',
  'end_user',
  'day',
  'node',
  'id',
] as const
const NUMBERS = ['admitted_at', 'seq', 'revision'] as const
const TOKENS = ['input', 'cached_input', 'cache_write', 'output', 'reasoning'] as const
const AMOUNTS = ['amount_nano', 'cost_nano', 'overrun_nano'] as const

/** Columns of a row and where the body has them. */
export const COPIES: ReadonlyArray<readonly [column: string, path: readonly string[]]> = [
  ...[...TEXTS, ...NUMBERS].map((name) => [name, [name]] as const),
  ...TOKENS.map((name) => [name, ['tokens', name]] as const),
  ...AMOUNTS.map((name) => [name, [name]] as const),
]
export const TEXT_NAMES: ReadonlySet<string> = new Set(TEXTS)
const AMOUNT_NAMES: ReadonlySet<string> = new Set(AMOUNTS)

/** A condition on `events`: some column is not what the body says. Exact, and slower than looking for rows that may differ. */
export function differs(dialect: SqlDialect): string {
  return `(${COPIES.map(([column, path]) => `${column} IS DISTINCT FROM ${valueOf(column, path, dialect)}`).join(' OR ')})`
}

/**
 * In SQLite, the same by comparing texts, so that a body is read once. A text that two writers of JSON escape differently differs here
 * and not in {@link differs}; never the other way round.
 */
export const UNLIKE_BODY =
  `json_array(${COPIES.map(([column]) => (AMOUNT_NAMES.has(column) ? `CAST(${column} AS TEXT)` : column)).join(', ')}) ` +
  `IS NOT json_extract(body, ${COPIES.map(([, path]) => `'$.${path.join('.')}'`).join(', ')})`

/** Assignments that put every column back. */
export function fromBody(dialect: SqlDialect): string {
  return COPIES.map(([column, path]) => `${column} = ${valueOf(column, path, dialect)}`).join(', ')
}

/** Which columns of one row differ, as text. */
export function differingNames(dialect: SqlDialect): string {
  return COPIES.map(
    ([column, path]) => `CASE WHEN ${column} IS DISTINCT FROM ${valueOf(column, path, dialect)} THEN '${column} ' ELSE '' END`,
  ).join(' || ')
}

function valueOf(column: string, path: readonly string[], { jsonText, jsonInteger }: SqlDialect): string {
  return TEXT_NAMES.has(column) ? jsonText('body', ...path) : jsonInteger('body', ...path)
}
