/** Columns of an event row are copied from its body, which alone counts. */

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

const COPIES: readonly (readonly [column: string, path: string])[] = [
  ...[...TEXTS, ...NUMBERS].map((name) => [name, `$.${name}`] as const),
  ...TOKENS.map((name) => [name, `$.tokens.${name}`] as const),
  ...AMOUNTS.map((name) => [name, `$.${name}`] as const),
]
const AMOUNT_NAMES: ReadonlySet<string> = new Set(AMOUNTS)

/** A condition on `events`: some column is not what the body says. Exact, and three times as slow as {@link UNLIKE_BODY}. */
export const DIFFERS = `(${COPIES.map(([column, path]) => `${column} IS NOT ${valueOf(column, path)}`).join(' OR ')})`

/**
 * The same by comparing texts, so that a body is read once. A text that two writers of JSON escape differently differs here and not in
 * {@link DIFFERS}; never the other way round.
 */
export const UNLIKE_BODY =
  `json_array(${COPIES.map(([column]) => (AMOUNT_NAMES.has(column) ? `CAST(${column} AS TEXT)` : column)).join(', ')}) ` +
  `IS NOT json_extract(body, ${COPIES.map(([, path]) => `'${path}'`).join(', ')})`

/** Assignments that put every column back. */
export const FROM_BODY = COPIES.map(([column, path]) => `${column} = ${valueOf(column, path)}`).join(', ')

/** Which columns of one row differ, as text. */
export const DIFFERING_NAMES = COPIES.map(
  ([column, path]) => `CASE WHEN ${column} IS NOT ${valueOf(column, path)} THEN '${column} ' ELSE '' END`,
).join(' || ')

function valueOf(column: string, path: string): string {
  const value = `json_extract(body, '${path}')`
  return AMOUNT_NAMES.has(column) ? `CAST(${value} AS INTEGER)` : value
}
