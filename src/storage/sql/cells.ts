/** Sums of usage held against finer ones and against events, cell by cell, in SQL. */
import { dayStartSql, type SqlDialect } from './dialect.ts'
import { DAY_MS, HOUR_MS, PLACE as PLACE_OF_TENANT, SUMS } from './rollup-batch.ts'

export const PLACE: readonly string[] = ['tenant', ...PLACE_OF_TENANT]
const CELLS = PLACE.join(', ')
const NAMES = 'dimension, value, project, key, model, endpoint'

/** Hours before this have no minutes. */
export const FLOOR = "CAST(COALESCE((SELECT value FROM meta WHERE name = 'usage_floor'), '0') AS BIGINT)"

/** Whether an instant is not on an archived day. */
export function notArchived(at: string, dialect: SqlDialect): string {
  return `${dayStartSql(at)} NOT IN (SELECT ${dialect.startOfDay('day')} FROM archives)`
}

const summed = (names: readonly string[]): string => names.map((name) => `SUM(${name}) AS ${name}`).join(', ')

/** Cells of which some sum differs, with what each sum lacks. */
export function wrongCells(expected: string, found: string, sums = SUMS): string {
  const signed = (sign: '' | '-'): string => sums.map((name) => `${sign}${name} AS ${name}`).join(', ')
  return (
    `SELECT ${CELLS}, ${summed(sums)} FROM (SELECT ${CELLS}, ${signed('')} FROM (${expected}) AS x ` +
    `UNION ALL SELECT ${CELLS}, ${signed('-')} FROM (${found}) AS y) AS z GROUP BY ${CELLS} ` +
    `HAVING ${sums.map((name) => `SUM(${name}) <> 0`).join(' OR ')} ORDER BY at, tenant`
  )
}

const notStale = (grain: string): string =>
  `NOT EXISTS (SELECT 1 FROM usage_stale AS s WHERE s.grain = '${grain}' AND s.tenant = t.tenant AND s.at = t.at)`

/** Coarser sums against finer ones, where none of the two is still to be derived. */
function coarser(from: string, to: string, start: string, since: string, guard: string): string {
  const expected = `SELECT tenant, ${start} AS at, ${NAMES}, ${summed(SUMS)} FROM ${from} WHERE ${since} GROUP BY 1, 2, ${NAMES}`
  return wrongCells(
    `SELECT * FROM (${expected}) AS t WHERE ${guard}`,
    `SELECT ${CELLS}, ${SUMS.join(', ')} FROM ${to} AS t WHERE ${since} AND ${guard}`,
  )
}

/** Hours that are not the sums of their minutes. @param guard a condition on `t.at` */
export function wrongHours(guard: string): string {
  return coarser('usage_minutes', 'usage_hours', `at - at % ${HOUR_MS}`, `at >= ${FLOOR}`, `${notStale('hour')} AND ${guard}`)
}

/** Days that are not the sums of their hours. A day is judged from its hours alone, so those below the floor need not be left out. */
export function wrongDays(guard: string): string {
  return coarser('usage_hours', 'usage_days', dayStartSql('at'), '1 = 1', `${notStale('day')} AND ${guard}`)
}

/** `calls` are in no column of an event. */
const FIGURES = SUMS.filter((name) => name !== 'searches' && name !== 'images')
const OF_EVENT = FIGURES.map((name) => {
  if (name === 'requests') return 'COUNT(*) AS requests'
  return name === 'completed' ? "SUM(CASE status WHEN 'completed' THEN 1 ELSE 0 END) AS completed" : `SUM(${name}) AS ${name}`
}).join(', ')

const DERIVED_LATE = "SELECT tenant, at FROM usage_stale WHERE grain = 'day'"

/**
 * Days that are not the sums of their events, cell by cell; days that are still to be derived are judged from their minutes. Archived
 * days are left out: their events are not here. So are days to be derived of which not every minute is kept.
 */
export function wrongEventDays(dialect: SqlDialect): string {
  const at = dialect.startOfDay('day')
  return wrongCells(
    `SELECT tenant, ${at} AS at, '' AS dimension, '' AS value, project, key, model, endpoint, ${OF_EVENT} ` +
      `FROM ${dialect.indexed('events', null)} WHERE superseded = 0 AND day NOT IN (SELECT day FROM archives) ` +
      `AND (tenant, ${at}) NOT IN (${DERIVED_LATE} AND at < ${FLOOR}) ` +
      'GROUP BY tenant, day, project, key, model, endpoint',
    `SELECT ${CELLS}, ${FIGURES.join(', ')} FROM usage_days AS t WHERE dimension = '' AND ${notStale('day')} AND ${notArchived('t.at', dialect)} ` +
      `UNION ALL SELECT d.tenant, d.at, ${NAMES}, ${FIGURES.join(', ')} FROM (${DERIVED_LATE} AND at >= ${FLOOR}) AS d ` +
      `CROSS JOIN usage_minutes AS m WHERE m.tenant = d.tenant AND m.at >= d.at AND m.at < d.at + ${DAY_MS} ` +
      `AND dimension = '' AND ${notArchived('d.at', dialect)}`,
    FIGURES,
  )
}
