import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { assert } from '../../base/assert.ts'
import { inTransaction } from '../journal/rows.ts'
import { type Cell, DAY_MS, dayStart, floorTo, HOUR_MS, MINUTES_KEPT_DAYS, PLACE, type RollupBatch, SUMS } from './rollup-batch.ts'

/** Rows that one slice of work reads or deletes: a few milliseconds, which is what a commit may have to wait. */
const SLICE_ROWS = 500

/** A step of derivation counts as so many rows, however few it touches. */
const STEP_ROWS = 5

const COLUMNS: readonly string[] = ['tenant', ...PLACE, ...SUMS]
const ADDED = `ON CONFLICT DO UPDATE SET ${SUMS.map((name) => `${name} = ${name} + excluded.${name}`).join(', ')}`

type Grain = 'hour' | 'day'
const SPAN_MS = { hour: HOUR_MS, day: DAY_MS } as const

/** A stale hour or day on its way: rows up to and with `after` are in its sums, once what was there before is `emptied`. */
interface Progress {
  readonly grain: Grain
  readonly tenant: string
  readonly at: number
  readonly emptied: boolean
  readonly after: readonly (string | number)[] | null
}
interface Step {
  readonly rows: number
  /** What is left of it; null when it is derived. */
  readonly progress: Progress | null
}

/**
 * Sums of usage by minute, hour and day, for the writer's thread only. Minutes are written with the events, in their transaction.
 * Hours and days are derived from them later, a slice at a time; until then they are marked stale, and readers go one grain finer.
 */
export class Rollups {
  readonly #database: DatabaseSync
  readonly #slice_rows: number
  readonly #statements: Statements
  /** Hours before this have no minutes. */
  #floor_ms: number
  #progress: Progress | null = null
  /** The last tenant whose old minutes were deleted; null when there are none. */
  #cleaned: string | null = ''

  /** @param slice_rows most rows that one slice of work reads or deletes */
  constructor(database: DatabaseSync, slice_rows = SLICE_ROWS) {
    this.#database = database
    this.#slice_rows = slice_rows
    this.#statements = prepare(database)
    this.#floor_ms = Number(this.#statements.floor.get()?.['value'] ?? 0)
  }

  /** Writes a batch and marks its hours and days stale, inside the caller's transaction. */
  write(batch: RollupBatch): void {
    const hours = new Map<string, { readonly tenant: string; readonly at: number }>()
    for (const cell of batch.cells()) {
      const at = floorTo(cell.minute, HOUR_MS)
      // Minutes so old are gone, so the hour cannot be derived from them again.
      if (at < this.#floor_ms) this.#put('hour', cell, at)
      else this.#put('minute', cell, cell.minute)
      hours.set(`${at} ${cell.tenant}`, { tenant: cell.tenant, at })
    }
    for (const { tenant, at } of hours.values()) {
      if (at >= this.#floor_ms) this.#markStale('hour', tenant, at)
      this.#markStale('day', tenant, dayStart(at))
    }
  }

  /** Has the hour or day that holds an instant derived again, inside the caller's transaction. Below the floor hours are all there is. */
  touch(grain: Grain, tenant: string, at: number): void {
    const start = grain === 'hour' ? floorTo(at, HOUR_MS) : dayStart(at)
    if (grain === 'day' || start >= this.#floor_ms) this.#markStale(grain, tenant, start)
  }

  /**
   * One slice of deriving hours, then days, that ended before `now_ms`.
   * @returns whether there is more to do
   */
  deriveSome(now_ms: number): boolean {
    if (this.#following(this.#progress, now_ms) === null) return false
    // What is posted to meanwhile begins anew (`#markStale`); nothing can come between here and the commit.
    this.#progress = inTransaction(this.#database, () => {
      let progress = this.#progress
      for (let rows = 0; rows < this.#slice_rows;) {
        const step = this.#following(progress, now_ms)
        if (step === null) return null
        const done = this.#isArchived(step.at) ? this.#drop(step) : step.emptied ? this.#fill(step) : this.#empty(step)
        progress = done.progress
        rows += done.rows + STEP_ROWS
      }
      return progress
    })
    return true
  }

  /**
   * One slice of deleting minutes that are older than they are kept.
   * @returns whether there is more to do
   */
  deleteSome(now_ms: number): boolean {
    this.#raiseFloor(dayStart(now_ms - MINUTES_KEPT_DAYS * DAY_MS))
    if (this.#cleaned === null) return false
    const { nextTenant, deleteMinutes } = this.#statements
    const tenant = nextTenant.get(this.#cleaned)?.['tenant']
    if (tenant === undefined) this.#cleaned = null
    else if (Number(deleteMinutes.run(String(tenant), this.#floor_ms, this.#slice_rows).changes) < this.#slice_rows)
      this.#cleaned = String(tenant)
    return this.#cleaned !== null
  }

  /** Readers stop looking below the floor before anything there is deleted. Hours below it must be derived. */
  #raiseFloor(floor_ms: number): void {
    if (floor_ms <= this.#floor_ms || this.#statements.staleBefore.get(floor_ms) !== undefined) return
    this.#statements.setFloor.run(String(floor_ms))
    this.#floor_ms = floor_ms
    this.#cleaned = ''
  }

  #put(grain: 'minute' | 'hour', cell: Cell, at: number): void {
    assert(cell.counts.every(Number.isSafeInteger), 'a count of a posting is beyond 2^53')
    const place = [cell.tenant, at, cell.dimension, cell.value, ...cell.names] as const
    this.#statements.add[grain].run(...place, ...cell.counts.map(BigInt), ...cell.amounts)
    if (cell.lessened) this.#statements.dropEmpty[grain].run(...place)
  }

  #markStale(grain: Grain, tenant: string, at: number): void {
    this.#statements.mark.run(grain, tenant, at)
    const { grain: own, tenant: of, at: from } = this.#progress ?? {}
    if (own === grain && of === tenant && from === at) this.#progress = null
  }

  #following(progress: Progress | null, now_ms: number): Progress | null {
    return progress ?? this.#next('hour', now_ms) ?? this.#next('day', now_ms)
  }

  #next(grain: Grain, now_ms: number): Progress | null {
    const row = this.#statements.nextStale.get(grain, now_ms - SPAN_MS[grain])
    return row === undefined ? null : { grain, tenant: String(row['tenant']), at: Number(row['at']), emptied: false, after: null }
  }

  /** A day becomes an archive only once nothing of it is stale: whatever marks it later must not touch sums that are closed. */
  #isArchived(at: number): boolean {
    return this.#statements.archived.get(at / 1000) !== undefined
  }

  #drop({ grain, tenant, at }: Progress): Step {
    this.#statements.unmark.run(grain, tenant, at)
    return { rows: 0, progress: null }
  }

  #empty(progress: Progress): Step {
    const { grain, tenant, at } = progress
    const rows = Number(this.#statements.empty[grain].run(tenant, at, this.#slice_rows).changes)
    return { rows, progress: { ...progress, emptied: rows < this.#slice_rows } }
  }

  #fill({ grain, tenant, at, after, ...rest }: Progress): Step {
    const span = [tenant, at, at + SPAN_MS[grain]] as const
    const from = after ?? [at - 1, '', '', '', '', '', '']
    const last = this.#statements.sliceEnd[grain].get(...span, ...from, this.#slice_rows - 1)
    const to = last === undefined ? null : PLACE.map((name) => (name === 'at' ? Number(last[name]) : String(last[name])))
    const beyond = [at + SPAN_MS[grain], '', '', '', '', '', '']
    const rows = Number(this.#statements.fill[grain].run(at, ...span, ...from, ...(to ?? beyond)).changes)
    if (to !== null) return { rows, progress: { grain, tenant, at, ...rest, after: to } }
    this.#statements.unmark.run(grain, tenant, at)
    return { rows, progress: null }
  }
}

interface Statements {
  readonly add: Readonly<Record<'minute' | 'hour', StatementSync>>
  readonly dropEmpty: Readonly<Record<'minute' | 'hour', StatementSync>>
  readonly empty: Readonly<Record<Grain, StatementSync>>
  readonly sliceEnd: Readonly<Record<Grain, StatementSync>>
  readonly fill: Readonly<Record<Grain, StatementSync>>
  readonly mark: StatementSync
  readonly unmark: StatementSync
  readonly nextStale: StatementSync
  readonly staleBefore: StatementSync
  readonly floor: StatementSync
  readonly setFloor: StatementSync
  readonly archived: StatementSync
  readonly nextTenant: StatementSync
  readonly deleteMinutes: StatementSync
}

function prepare(database: DatabaseSync): Statements {
  const prepared = (sql: string): StatementSync => database.prepare(sql)
  const keys = ['tenant', ...PLACE]
  const where_keys = keys.map((name) => `${name} = ?`).join(' AND ')
  const add = (table: string): StatementSync =>
    prepared(`INSERT INTO ${table} (${COLUMNS.join(', ')}) VALUES (${COLUMNS.map(() => '?').join(', ')}) ${ADDED}`)
  const dropEmpty = (table: string): StatementSync => prepared(`DELETE FROM ${table} WHERE ${where_keys} AND requests = 0`)
  const deleteFirst = (table: string, where: string): StatementSync =>
    prepared(`DELETE FROM ${table} WHERE (${keys.join(', ')}) IN (SELECT ${keys.join(', ')} FROM ${table} WHERE ${where} LIMIT ?)`)
  const place = `(${PLACE.join(', ')})`
  const marks = `(${PLACE.map(() => '?').join(', ')})`
  const span = 'tenant = ? AND at >= ? AND at < ?'
  const sliceEnd = (table: string): StatementSync =>
    prepared(`SELECT ${PLACE.join(', ')} FROM ${table} WHERE ${span} AND ${place} > ${marks} ORDER BY ${PLACE.join(', ')} LIMIT 1 OFFSET ?`)
  const fill = (from: string, to: string): StatementSync =>
    prepared(
      `INSERT INTO ${to} (${COLUMNS.join(', ')}) SELECT tenant, ?, ${[...PLACE.slice(1), ...SUMS].join(', ')} FROM ${from} ` +
        `WHERE ${span} AND ${place} > ${marks} AND ${place} <= ${marks} ${ADDED}`,
    )
  return {
    add: { minute: add('usage_minutes'), hour: add('usage_hours') },
    dropEmpty: { minute: dropEmpty('usage_minutes'), hour: dropEmpty('usage_hours') },
    empty: { hour: deleteFirst('usage_hours', 'tenant = ? AND at = ?'), day: deleteFirst('usage_days', 'tenant = ? AND at = ?') },
    sliceEnd: { hour: sliceEnd('usage_minutes'), day: sliceEnd('usage_hours') },
    fill: { hour: fill('usage_minutes', 'usage_hours'), day: fill('usage_hours', 'usage_days') },
    mark: prepared('INSERT INTO usage_stale (grain, tenant, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'),
    unmark: prepared('DELETE FROM usage_stale WHERE grain = ? AND tenant = ? AND at = ?'),
    // A day has to wait for its hours; one that has ended has none left that still runs.
    nextStale: prepared(
      'SELECT tenant, at FROM usage_stale AS s WHERE grain = ? AND at <= ? AND NOT (s.grain = ' +
        `'day' AND EXISTS (SELECT 1 FROM usage_stale AS h WHERE h.grain = 'hour' AND h.tenant = s.tenant AND h.at >= s.at ` +
        `AND h.at < s.at + ${DAY_MS})) ORDER BY at LIMIT 1`,
    ),
    staleBefore: prepared("SELECT 1 FROM usage_stale WHERE grain = 'hour' AND at < ? LIMIT 1"),
    floor: prepared("SELECT value FROM meta WHERE name = 'usage_floor'"),
    setFloor: prepared("INSERT INTO meta (name, value) VALUES ('usage_floor', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"),
    archived: prepared("SELECT 1 FROM archives WHERE day = date(? + 28800, 'unixepoch')"),
    nextTenant: prepared('SELECT tenant FROM usage_minutes WHERE tenant > ? ORDER BY tenant LIMIT 1'),
    deleteMinutes: deleteFirst('usage_minutes', 'tenant = ? AND at < ?'),
  }
}
