import { dayOf } from '../../base/clock.ts'
import { BadCursor, MAX_PERIODS, type Period, type UsageDimension, type UsagePage, type UsageQuery, type UsageRow } from '../ports.ts'
import { bigOf, numberOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import type { SqlDialect } from './dialect.ts'
import { AMOUNTS, type COUNTS, DAY_MS, dayStart, floorTo, HOUR_MS, MINUTE_MS, SUMS } from './rollup-batch.ts'

const MAX_DIMENSIONS = 3
const MAX_ROWS = 10_000
/** The last instant that a JavaScript date knows. */
const END_OF_TIME_MS = 8_640_000_000_000_000

/** Rows with this much of a period: whole days, hours and minutes from rollups, the edges from events. */
export interface Segment extends Period {
  readonly grain: 'day' | 'hour' | 'minute' | 'event'
  /** Index of the period. */
  readonly period: number
}

/** Where details end: before these instants, Unix ms, only coarser rollups are kept. */
export interface UsageFloors {
  readonly minutes_ms: number
  readonly events_ms: number
}

/**
 * Cuts periods into the coarsest pieces that are kept, in order. A bound where no events are kept is rounded up to a whole minute, one
 * where no minutes are kept to a whole hour: a minute or hour then belongs to the period that it begins in.
 */
export function segmentsOf(periods: readonly Period[], floors: UsageFloors): readonly Segment[] {
  const exact = (at_ms: number): number => {
    const clamped = Math.min(END_OF_TIME_MS, Math.max(0, Math.ceil(at_ms)))
    if (clamped < floors.minutes_ms) return Math.ceil(clamped / HOUR_MS) * HOUR_MS
    return clamped < floors.events_ms ? Math.ceil(clamped / MINUTE_MS) * MINUTE_MS : clamped
  }
  return periods.flatMap(({ from_ms, to_ms }, period) => cut(exact(from_ms), exact(to_ms), 0).map((piece) => ({ ...piece, period })))
}

const GRAINS = [
  { grain: 'day', start: dayStart, unit_ms: DAY_MS },
  { grain: 'hour', start: (at_ms: number) => floorTo(at_ms, HOUR_MS), unit_ms: HOUR_MS },
  { grain: 'minute', start: (at_ms: number) => floorTo(at_ms, MINUTE_MS), unit_ms: MINUTE_MS },
] as const

function cut(from_ms: number, to_ms: number, level: number): readonly Omit<Segment, 'period'>[] {
  if (from_ms >= to_ms) return []
  const finer = GRAINS[level]
  if (finer === undefined) return [{ grain: 'event', from_ms, to_ms }]
  const first_ms = finer.start(from_ms + finer.unit_ms - 1)
  const last_ms = finer.start(to_ms)
  if (first_ms >= last_ms) return cut(from_ms, to_ms, level + 1)
  const whole = { grain: finer.grain, from_ms: first_ms, to_ms: last_ms }
  return [...cut(from_ms, first_ms, level + 1), whole, ...cut(last_ms, to_ms, level + 1)]
}

/**
 * The one statement that answers a query. Reads what is fresh in the coarsest rollup, and below stale days their hours,
 * below stale hours their minutes, so that no report reads a year of minutes.
 *
 * @throws RangeError if the query asks for more than rollups know
 * @throws BadCursor if its cursor is not one of this query
 */
export function usageStatement(query: UsageQuery, floors: UsageFloors, dialect: SqlDialect): SqlStatement {
  checkPeriods(query.periods)
  const dimension = dimensionOf(query)
  const after = query.cursor === undefined ? null : parseCursor(query.cursor, query)
  // Periods before the cursor's have been answered.
  const segments = segmentsOf(query.periods, floors).filter(({ period }) => after === null || period >= Number(after[0]))
  const params: (string | number)[] = []
  const bind = (value: string | number): string => {
    params.push(value)
    return '?'
  }
  const groups = ['period', ...query.by.map((name) => columnOf(name))]
  const sql = [
    `WITH RECURSIVE ${planned(segments, query, bind, dialect)},`,
    `cells AS (${cells(query, dimension, bind, { segments, dialect })})`,
    `SELECT period, ${query.by.map((name, index) => `${columnOf(name)} AS g${index}, `).join('')}`,
    // A sum raises an error when it leaves 64 bits; it never rounds.
    `${SUMS.map((name) => `${dialect.sum64(name)} AS ${name}`).join(', ')} FROM cells`,
    after === null ? '' : `WHERE (${groups.join(', ')}) > (${after.map(bind).join(', ')})`,
    `GROUP BY ${groups.join(', ')} HAVING SUM(requests) > 0 ORDER BY ${groups.join(', ')} LIMIT ${bind(limitOf(query) + 1)}`,
  ].join(' ')
  return { sql, params }
}

/** The floors as they stand; to be read in the same transaction as a plan that was made for them. */
export const USAGE_FLOORS: SqlStatement = {
  sql:
    "SELECT (SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'usage_floor') AS minutes_ms, " +
    '(SELECT MAX(day) FROM archives) AS last_archived',
  params: [],
}

/** Reads the row of {@link USAGE_FLOORS}. Events of archived days are in files. */
export function usageFloorsOf(row: SqlRow | undefined): UsageFloors {
  const last_archived = row?.['last_archived'] ?? null
  const archived_ms = last_archived === null ? 0 : Date.parse(`${String(last_archived)}T00:00:00+08:00`) + DAY_MS
  return { minutes_ms: Number(row?.['minutes_ms'] ?? 0), events_ms: archived_ms }
}

/** The page that the rows of {@link usageStatement} are. */
export function usagePageOf(rows: readonly SqlRow[], query: UsageQuery): UsagePage {
  const limit = limitOf(query)
  const page = rows.slice(0, limit).map((row) => usageRowOf(row, query.by.length))
  const last = page.at(-1)
  return { rows: page, next_cursor: rows.length > limit && last !== undefined ? cursorOf(last) : null }
}

function limitOf({ limit }: UsageQuery): number {
  return Math.max(1, Math.min(MAX_ROWS, limit))
}

function checkPeriods(periods: readonly Period[]): void {
  if (periods.length > MAX_PERIODS) throw new RangeError(`${periods.length} periods are more than the ${MAX_PERIODS} of one query`)
  let end_ms = -Infinity
  for (const { from_ms, to_ms } of periods) {
    // Written so that NaN is refused too.
    if (!(from_ms >= end_ms && to_ms >= from_ms)) throw new RangeError('periods must be in order and must not overlap')
    end_ms = to_ms
  }
}

/** The rollups' dimension that knows everything the query asks for: '' where plain columns do. */
function dimensionOf({ by, end_user, tag }: UsageQuery): string {
  if (by.length > MAX_DIMENSIONS) throw new RangeError(`usage can be split by at most ${MAX_DIMENSIONS} dimensions`)
  const special = new Set<string>(by.filter((name) => name === 'end_user' || name.startsWith('tag:')))
  if (end_user !== undefined) special.add('end_user')
  if (tag !== undefined) special.add(`tag:${tag.name}`)
  const [dimension = '', second] = special
  if (second !== undefined) throw new RangeError(`${dimension} and ${second} cannot be combined in one query of usage`)
  return dimension
}

function columnOf(name: UsageDimension): string {
  return name === 'end_user' || name.startsWith('tag:') ? 'value' : name
}

type Bind = (value: string | number) => string

/** Which days, hours and minutes of which tenant hold the answer: `dat`, `hat` and `mat`, and below stale ones their finer spans. */
function planned(segments: readonly Segment[], { tenant }: UsageQuery, bind: Bind, dialect: SqlDialect): string {
  const pieces = bind(JSON.stringify(segments.map(({ grain, period, from_ms, to_ms }) => [grain, period, from_ms, to_ms])))
  const whole = (grain: string): string =>
    `SELECT s.period, w.tenant, s.lo, s.hi FROM seg AS s CROSS JOIN who AS w WHERE s.grain = '${grain}'`
  const stale = (grain: string, span: string): string => {
    const where = `m.grain = '${grain}' AND m.tenant = p.tenant AND m.at >= p.lo AND m.at < p.hi`
    return `SELECT p.period, p.tenant, m.at FROM ${dialect.lookedUp(`${span} AS p`, 'usage_stale AS m', where)}`
  }
  return [
    `seg (grain, period, lo, hi) AS MATERIALIZED (SELECT * FROM ${dialect.rowsOf(pieces)} AS r)`,
    tenant === undefined ? EVERYONE : `who (tenant) AS (VALUES (${bind(tenant)}))`,
    `dspan (period, tenant, lo, hi) AS MATERIALIZED (${whole('day')})`,
    `dstale (period, tenant, at) AS MATERIALIZED (${stale('day', 'dspan')})`,
    `hspan (period, tenant, lo, hi) AS MATERIALIZED (${whole('hour')} UNION ALL SELECT period, tenant, at, at + ${DAY_MS} FROM dstale)`,
    `hstale (period, tenant, at) AS MATERIALIZED (${stale('hour', 'hspan')})`,
    `mspan (period, tenant, lo, hi) AS MATERIALIZED (${whole('minute')} UNION ALL SELECT period, tenant, at, at + ${HOUR_MS} FROM hstale)`,
    existing('dat', 'dspan', 'usage_days'),
    existing('hat', 'hspan', 'usage_hours'),
    existing('mat', 'mspan', 'usage_minutes'),
  ].join(', ')
}

/** Every tenant that has rollups: each has a day, or one that is not derived yet. One seek per tenant. */
const EVERYONE =
  'known (tenant) AS (SELECT MIN(tenant) FROM usage_days UNION ALL ' +
  'SELECT (SELECT MIN(d.tenant) FROM usage_days AS d WHERE d.tenant > known.tenant) FROM known WHERE known.tenant IS NOT NULL), ' +
  "marked (tenant) AS (SELECT MIN(tenant) FROM usage_stale WHERE grain = 'day' UNION ALL " +
  "SELECT (SELECT MIN(m.tenant) FROM usage_stale AS m WHERE m.grain = 'day' AND m.tenant > marked.tenant) FROM marked " +
  'WHERE marked.tenant IS NOT NULL), ' +
  'who (tenant) AS MATERIALIZED (SELECT tenant FROM known WHERE tenant IS NOT NULL ' +
  'UNION SELECT tenant FROM marked WHERE tenant IS NOT NULL)'

/** The instants of a rollup that exist within spans, found by one seek each: rows of other dimensions lie between. */
function existing(name: string, span: string, table: string): string {
  const first = (from: string, at: string, after: '>' | '>='): string =>
    `(SELECT MIN(r.at) FROM ${table} AS r WHERE r.tenant = ${from}.tenant AND r.at ${after} ${from}.${at} AND r.at < ${from}.hi)`
  return (
    `${name} (period, tenant, at, hi) AS (SELECT period, tenant, ${first(span, 'lo', '>=')}, hi FROM ${span} ` +
    `UNION ALL SELECT period, tenant, ${first(name, 'at', '>')}, hi FROM ${name} WHERE at IS NOT NULL)`
  )
}

const PLACE = ['tenant', 'project', 'key', 'model', 'endpoint', 'value'] as const

interface Planned {
  readonly segments: readonly Segment[]
  readonly dialect: SqlDialect
}

function cells(query: UsageQuery, dimension: string, bind: Bind, plan: Planned): string {
  const derived = (instants: string, table: string, grain: string | null): string => {
    const where =
      `r.tenant = a.tenant AND r.at = a.at AND r.dimension = ${bind(dimension)}` +
      filters('r', query, bind) +
      (query.end_user === undefined ? '' : ` AND r.value = ${bind(query.end_user)}`) +
      (query.tag === undefined ? '' : ` AND r.value = ${bind(query.tag.value)}`) +
      (grain === null
        ? ''
        : ` AND NOT EXISTS (SELECT 1 FROM usage_stale AS m WHERE m.grain = '${grain}' AND m.tenant = a.tenant AND m.at = a.at)`)
    const columns = [...PLACE, ...SUMS].map((name) => `r.${name}`).join(', ')
    return `SELECT a.period, ${columns} FROM ${plan.dialect.lookedUp(`${instants} AS a`, `${table} AS r`, where)} AND a.at IS NOT NULL`
  }
  return [
    derived('dat', 'usage_days', 'day'),
    derived('hat', 'usage_hours', 'hour'),
    derived('mat', 'usage_minutes', null),
    ofEvents(query, dimension, bind, plan),
  ].join(' UNION ALL ')
}

function filters(table: string, query: UsageQuery, bind: Bind): string {
  const names = ['project', 'key', 'model', 'endpoint'] as const
  return names.map((name) => (query[name] === undefined ? '' : ` AND ${table}.${name} = ${bind(query[name])}`)).join('')
}

/** What is left over at the edges of a period: parts of a minute. */
function ofEvents(query: UsageQuery, dimension: string, bind: Bind, { segments, dialect }: Planned): string {
  const tag = dimension.startsWith('tag:') ? dimension.slice('tag:'.length) : null
  const value = tag !== null ? 't.value' : dimension === 'end_user' ? 'e.end_user' : "''"
  const sums = [
    '1',
    "CASE e.status WHEN 'completed' THEN 1 ELSE 0 END",
    ...['input', 'cached_input', 'cache_write', 'output', 'reasoning'].map((name) => `e.${name}`),
    ...[dialect.jsonInteger('e.body', 'calls', 'search'), dialect.jsonInteger('e.body', 'calls', 'image')],
    ...AMOUNTS.map((name) => `e.${name}`),
  ]
  const index = query.tenant === undefined ? 'events_by_time' : 'events_by_tenant'
  const where =
    'e.admitted_at >= s.lo AND e.admitted_at < s.hi AND e.superseded = 0' +
    (dialect.day_partitions ? ` AND e.day IN (${edgeDays(segments).map(bind).join(', ')})` : '') +
    (query.tenant === undefined ? '' : ` AND e.tenant = ${bind(query.tenant)}`) +
    filters('e', query, bind) +
    (dimension === 'end_user' ? ' AND e.end_user IS NOT NULL' : '') +
    (query.end_user === undefined ? '' : ` AND e.end_user = ${bind(query.end_user)}`)
  const of_tag =
    tag === null
      ? null
      : {
          from: dialect.jsonMembers('e.body', 'tags', 't'),
          where: `t.key = ${bind(tag)}${query.tag === undefined ? '' : ` AND t.value = ${bind(query.tag.value)}`}`,
        }
  return (
    `SELECT s.period, e.tenant, e.project, e.key, e.model, e.endpoint, ${value}, ${sums.join(', ')} ` +
    `FROM ${dialect.lookedUp('seg AS s', dialect.indexed('events AS e', index), where, of_tag)} AND s.grain = 'event'`
  )
}

/** The days that edges lie on. Each is less than a minute; an empty list is none that SQL knows. */
function edgeDays(segments: readonly Segment[]): readonly string[] {
  const days = segments.flatMap(({ grain, from_ms, to_ms }) => (grain === 'event' ? [dayOf(from_ms), dayOf(to_ms - 1)] : []))
  return days.length === 0 ? [''] : [...new Set(days)]
}

function usageRowOf(row: SqlRow, dimensions: number): UsageRow {
  const count = (name: (typeof COUNTS)[number]): number => numberOf(row, name)
  return {
    period: numberOf(row, 'period'),
    group: Array.from({ length: dimensions }, (_, index) => textOf(row, `g${index}`)),
    requests: count('requests'),
    completed: count('completed'),
    tokens: {
      input: count('input'),
      cached_input: count('cached_input'),
      cache_write: count('cache_write'),
      output: count('output'),
      reasoning: count('reasoning'),
    },
    calls: { search: count('searches'), image: count('images') },
    amount_nano: bigOf(row, 'amount_nano'),
    cost_nano: bigOf(row, 'cost_nano'),
    overrun_nano: bigOf(row, 'overrun_nano'),
  }
}

/** A cursor names the last row seen: its period and group. */
function cursorOf({ period, group }: UsageRow): string {
  return Buffer.from(JSON.stringify([period, ...group])).toString('base64url')
}

function parseCursor(cursor: string, { periods, by }: UsageQuery): readonly (string | number)[] {
  const bad = (cause?: unknown): BadCursor => new BadCursor('the cursor is not one of this query', { cause })
  let parsed: unknown
  try {
    parsed = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch (error) {
    throw bad(error)
  }
  if (!Array.isArray(parsed) || parsed.length !== by.length + 1) throw bad()
  const [period, ...group]: readonly unknown[] = parsed
  if (typeof period !== 'number' || !Number.isInteger(period) || period < 0 || period >= periods.length) throw bad()
  if (!group.every((value) => typeof value === 'string')) throw bad()
  return [period, ...group]
}
