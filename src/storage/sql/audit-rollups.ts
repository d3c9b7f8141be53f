import { dayOf } from '../../base/clock.ts'
import { bigOf, numberOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { DAY_MS, HOUR_MS } from './rollups.ts'

const FIGURES = ['requests', 'tokens', 'amount_nano', 'cost_nano'] as const
type Figures = Record<(typeof FIGURES)[number], bigint>

const GRAINS = ['minutes', 'hours', 'days'] as const
type Grain = (typeof GRAINS)[number]

const FLOOR = "CAST(COALESCE((SELECT value FROM meta WHERE name = 'usage_floor'), '0') AS INTEGER)"
/** Archived days keep their sums; those without events here are judged against the books of their archive. */
const FIRST_DAY = '(SELECT MIN(admitted_at) FROM events)'

/** Sums of one grain by day (its start in UTC+8) and tenant. */
function byDay(grain: Grain): SqlStatement {
  const sql =
    `SELECT tenant, at - (at + ${8 * HOUR_MS}) % ${DAY_MS} AS day_at, SUM(requests) AS requests, ` +
    'SUM(input + cached_input + cache_write + output) AS tokens, SUM(amount_nano) AS amount_nano, SUM(cost_nano) AS cost_nano ' +
    `FROM usage_${grain} WHERE dimension = '' AND at >= ${FIRST_DAY} - ${DAY_MS} GROUP BY 1, 2`
  return { sql, params: [] }
}

/** What {@link wrongRollups} reads, besides its pass over the events. */
export const ROLLUP_STATEMENTS = {
  minutes: byDay('minutes'),
  hours: byDay('hours'),
  days: byDay('days'),
  stale: { sql: `SELECT DISTINCT grain, tenant, at - (at + ${8 * HOUR_MS}) % ${DAY_MS} AS day_at FROM usage_stale`, params: [] },
  archived_days: {
    sql:
      'SELECT a.day, a.requests, a.amount_nano, a.cost_nano, COALESCE(SUM(d.requests), 0) AS found_requests, ' +
      'COALESCE(SUM(d.amount_nano), 0) AS found_amount, COALESCE(SUM(d.cost_nano), 0) AS found_cost FROM archives AS a ' +
      `LEFT JOIN usage_days AS d ON d.dimension = '' AND d.at = CAST(strftime('%s', a.day) AS INTEGER) * 1000 - ${8 * HOUR_MS} ` +
      'GROUP BY a.day HAVING a.requests <> found_requests OR a.amount_nano <> found_amount OR a.cost_nano <> found_cost',
    params: [],
  },
  floor: { sql: `SELECT ${FLOOR} AS floor`, params: [] },
} as const satisfies Record<string, SqlStatement>

/**
 * Where sums of usage are not those of the events, by day and tenant, in words. What is still to be derived is not judged.
 * @param pass events by day and tenant
 */
export function wrongRollups(
  pass: readonly SqlRow[],
  rowsOf: (name: keyof typeof ROLLUP_STATEMENTS) => readonly SqlRow[],
): readonly string[] {
  const expected = sumsBy(pass, (row) => `${textOf(row, 'day')} ${textOf(row, 'tenant')}`)
  const days = new Set(pass.map((row) => textOf(row, 'day')))
  const place = (row: SqlRow): string => `${dayOf(numberOf(row, 'day_at'))} ${textOf(row, 'tenant')}`
  const stale = new Set(rowsOf('stale').map((row) => `${textOf(row, 'grain')}s ${place(row)}`))
  const [floor] = rowsOf('floor')
  // A day that began before the floor has not all of its minutes any more.
  const with_minutes = dayOf((floor === undefined ? 0 : numberOf(floor, 'floor')) + DAY_MS - 1)
  const wrong: string[] = []
  for (const grain of GRAINS) {
    const found = sumsBy(
      rowsOf(grain).filter((row) => days.has(dayOf(numberOf(row, 'day_at')))),
      place,
    )
    for (const name of [...new Set([...expected.keys(), ...found.keys()])].toSorted()) {
      if (stale.has(`${grain} ${name}`) || (grain === 'minutes' && name < with_minutes)) continue
      const [a, b] = [expected.get(name) ?? NOTHING, found.get(name) ?? NOTHING]
      if (FIGURES.some((figure) => a[figure] !== b[figure])) wrong.push(`${name} in ${grain}: events ${words(a)}; sums ${words(b)}`)
    }
  }
  return [...wrong, ...rowsOf('archived_days').map(archivedWords)]
}

const NOTHING: Figures = { requests: 0n, tokens: 0n, amount_nano: 0n, cost_nano: 0n }

function sumsBy(rows: readonly SqlRow[], name: (row: SqlRow) => string): ReadonlyMap<string, Figures> {
  const sums = new Map<string, Figures>()
  for (const row of rows) {
    const sum = sums.get(name(row)) ?? { ...NOTHING }
    for (const figure of FIGURES) sum[figure] += bigOf(row, figure)
    sums.set(name(row), sum)
  }
  for (const [key, sum] of sums) if (FIGURES.every((figure) => sum[figure] === 0n)) sums.delete(key)
  return sums
}

function words({ requests, tokens, amount_nano, cost_nano }: Figures): string {
  return `${requests} requests, ${tokens} tokens, ${amount_nano} nano-yuan, cost ${cost_nano}`
}

function archivedWords(row: SqlRow): string {
  const [requests, amount] = [bigOf(row, 'requests'), bigOf(row, 'amount_nano')]
  const [found_requests, found_amount] = [bigOf(row, 'found_requests'), bigOf(row, 'found_amount')]
  return (
    `${textOf(row, 'day')} in days: its archive ${requests} requests, ${amount} nano-yuan; ` +
    `sums ${found_requests} requests, ${found_amount} nano-yuan`
  )
}
