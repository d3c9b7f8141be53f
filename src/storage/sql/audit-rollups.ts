import { dayOf } from '../../base/clock.ts'
import { notArchived, wrongDays, wrongEventDays, wrongHours } from './cells.ts'
import type { SqlDialect } from './dialect.ts'
import { bigOf, numberOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { SUMS } from './rollup-batch.ts'

const MOST = 10

/** What {@link wrongRollups} reads, besides the audit's pass over the events. */
export function rollupStatements(dialect: SqlDialect) {
  const first = (sql: string): SqlStatement => ({ sql: `${sql} LIMIT ${MOST}`, params: [] })
  const found = (name: string): string => `COALESCE(SUM(d.${name}), 0)`
  return {
    event_days: first(wrongEventDays(dialect)),
    hours: first(wrongHours('1 = 1')),
    days: first(wrongDays('1 = 1')),
    calls: {
      sql:
        'SELECT tenant, at, SUM(searches) AS searches, SUM(images) AS images FROM usage_days AS t ' +
        `WHERE dimension = '' AND ${notArchived('at', dialect)} GROUP BY tenant, at`,
      params: [],
    },
    stale: { sql: "SELECT tenant, at FROM usage_stale WHERE grain = 'day'", params: [] },
    archived_days: {
      sql:
        `SELECT a.day, a.requests, a.amount_nano, a.cost_nano, ${found('requests')} AS found_requests, ` +
        `${found('amount_nano')} AS found_amount, ${found('cost_nano')} AS found_cost FROM archives AS a ` +
        `LEFT JOIN usage_days AS d ON d.dimension = '' AND d.at = ${dialect.startOfDay('a.day')} ` +
        'GROUP BY a.day, a.requests, a.amount_nano, a.cost_nano ' +
        `HAVING a.requests <> ${found('requests')} OR a.amount_nano <> ${found('amount_nano')} OR a.cost_nano <> ${found('cost_nano')}`,
      params: [],
    },
  } as const satisfies Record<string, SqlStatement>
}

/**
 * Where sums of usage are not those of the events, or coarser ones not those of finer ones, in words. Archived days are held against
 * the books of their archive, and their sums against each other.
 * @param pass events by day and tenant, with their calls
 */
export function wrongRollups(
  pass: readonly SqlRow[],
  rowsOf: (name: keyof ReturnType<typeof rollupStatements>) => readonly SqlRow[],
): readonly string[] {
  return [
    ...rowsOf('event_days').map((row) => cellWords(row, 'days', 'its events')),
    ...wrongCalls(pass, rowsOf('calls'), rowsOf('stale')),
    ...rowsOf('hours').map((row) => cellWords(row, 'hours', 'the sums of its minutes')),
    ...rowsOf('days').map((row) => cellWords(row, 'days', 'the sums of its hours')),
    ...rowsOf('archived_days').map(archivedWords),
  ]
}

const CALLS = ['searches', 'images'] as const

function wrongCalls(pass: readonly SqlRow[], sums: readonly SqlRow[], stale: readonly SqlRow[]): readonly string[] {
  const place = (row: SqlRow): string => `${dayOf(numberOf(row, 'at'))} ${textOf(row, 'tenant')}`
  const later = new Set(stale.map(place))
  const off = new Map<string, readonly bigint[]>()
  const add = (name: string, row: SqlRow, sign: bigint): void => {
    const known = off.get(name)
    off.set(
      name,
      CALLS.map((call, index) => (known?.[index] ?? 0n) + sign * bigOf(row, call)),
    )
  }
  for (const row of pass) add(`${textOf(row, 'day')} ${textOf(row, 'tenant')}`, row, 1n)
  for (const row of sums) add(place(row), row, -1n)
  const wrong = [...off].filter(([name, calls]) => !later.has(name) && calls.some((count) => count !== 0n))
  return wrong.slice(0, MOST).map(([name, [searches, images]]) => `${name} in days lacks ${searches} searches, ${images} images`)
}

/** A cell holds by how much each of its sums is too small. */
function cellWords(row: SqlRow, grain: string, of: string): string {
  const figures = SUMS.filter((name) => typeof row[name] === 'bigint' && row[name] !== 0n)
  const [dimension, value] = [textOf(row, 'dimension'), textOf(row, 'value')]
  const names = ['project', 'key', 'model', 'endpoint'].map((name) => `${name} ${textOf(row, name)}`)
  const cell = [...names, ...(dimension === '' ? [] : [`${dimension} ${value}`])].join(', ')
  const at_ms = numberOf(row, 'at')
  const at = grain === 'days' ? dayOf(at_ms) : new Date(at_ms).toISOString()
  const lacks = figures.map((name) => `${name} ${String(row[name])}`).join(', ')
  return `${at} ${textOf(row, 'tenant')} in ${grain} (${cell}) lacks, compared with ${of}: ${lacks}`
}

function archivedWords(row: SqlRow): string {
  const [requests, amount] = [bigOf(row, 'requests'), bigOf(row, 'amount_nano')]
  const [found_requests, found_amount] = [bigOf(row, 'found_requests'), bigOf(row, 'found_amount')]
  return (
    `${textOf(row, 'day')} in days: its archive ${requests} requests, ${amount} nano-yuan; ` +
    `sums ${found_requests} requests, ${found_amount} nano-yuan`
  )
}
