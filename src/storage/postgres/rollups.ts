import { assert } from '../../base/assert.ts'
import { type Cell, DAY_MS, dayStart, floorTo, HOUR_MS, MINUTES_KEPT_DAYS, PLACE, type RollupBatch, SUMS } from '../sql/rollup-batch.ts'
import { bigOf, numberOf, type SqlRow, textOf } from '../sql/executor.ts'
import { bigints, texts } from './arrays.ts'
import type { Database } from './database.ts'
import { bucketLock, CLOSING, lockKey } from './locks.ts'
import { POSTGRES } from './dialect.ts'
import type { Parameter, Session } from './session.ts'

/** Hours or days of one bucket derived in one transaction: so long a posting to that bucket may have to wait. */
const DERIVE_SLICE = 20
/** Oldest marks looked at to find a bucket that nobody posts to. */
const MARKS_LOOKED_AT = 200
/** Minutes deleted in one transaction. */
const DELETE_SLICE = 2000

const KEYS: readonly string[] = ['tenant', ...PLACE]
const COLUMNS: readonly string[] = [...KEYS, ...SUMS]
const cast = (name: string): string => (name === 'at' || SUMS.includes(name) ? 'bigint[]' : 'text[]')
const unnested = (columns: readonly string[]): string =>
  `unnest(${columns.map((name, index) => `$${index + 1}::${cast(name)}`).join(', ')}) AS x (${columns.join(', ')})`

/**
 * Adds to rows that are there and inserts the others. Under the bucket's lock nobody else does: `ON CONFLICT` would lock each row before
 * it changes it, which costs as much again.
 */
const add = (table: string): string =>
  `MERGE INTO ${table} AS r USING ${unnested(COLUMNS)} ON ${KEYS.map((name) => `r.${name} = x.${name}`).join(' AND ')} ` +
  `WHEN MATCHED THEN UPDATE SET ${SUMS.map((name) => `${name} = r.${name} + x.${name}`).join(', ')} ` +
  `WHEN NOT MATCHED THEN INSERT (${COLUMNS.join(', ')}) VALUES (${COLUMNS.map((name) => `x.${name}`).join(', ')})`
const ADD = { minute: add('usage_minutes'), hour: add('usage_hours') } as const
const dropEmpty = (table: string): string =>
  `DELETE FROM ${table} AS r USING ${unnested(KEYS)} ` +
  `WHERE ${KEYS.map((name) => `r.${name} = x.${name}`).join(' AND ')} AND r.requests = 0`
const DROP_EMPTY = { minute: dropEmpty('usage_minutes'), hour: dropEmpty('usage_hours') } as const
const MARK =
  'INSERT INTO usage_stale (grain, tenant, at, bucket) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) ' +
  'ON CONFLICT DO NOTHING'

/**
 * Writes the minutes of a posting and marks its hours and days to be derived, inside the posting's transaction and under the locks of its
 * buckets.
 * @param floor_ms before this there are no minutes any more, so that hours are added to
 */
export async function writeRollups(
  session: Session,
  batch: RollupBatch,
  floor_ms: number,
  bucketOf: (tenant: string) => number,
): Promise<void> {
  // In the order of the primary key, so that pages of the index are visited once.
  const cells = [...batch.cells()].toSorted(inOrder)
  const [minutes, hours] = [cells.filter((cell) => hourOf(cell) >= floor_ms), cells.filter((cell) => hourOf(cell) < floor_ms)]
  await write(session, 'minute', minutes)
  // Several minutes of an hour: one statement adds to a row only once.
  for (const alike of byMinute(hours)) await write(session, 'hour', alike)
  await mark(session, cells, floor_ms, bucketOf)
}

/** Adds to minutes what each of these rows of sums lacks, under the lock of their bucket. A row that comes to nothing is none. */
export async function correctMinutes(session: Session, lacking: readonly SqlRow[]): Promise<void> {
  if (lacking.length === 0) return
  const keys = KEYS.map((name) =>
    name === 'at' ? bigints(lacking.map((row) => bigOf(row, name))) : texts(lacking.map((row) => textOf(row, name))),
  )
  await session.run(ADD.minute, [...keys, ...SUMS.map((name) => bigints(lacking.map((row) => bigOf(row, name))))])
  await session.run(DROP_EMPTY.minute, keys)
}

function inOrder(a: Cell, b: Cell): number {
  if (a.tenant !== b.tenant) return a.tenant < b.tenant ? -1 : 1
  if (a.minute !== b.minute) return a.minute - b.minute
  return a.dimension < b.dimension ? -1 : Number(a.dimension > b.dimension)
}

function hourOf({ minute }: Cell): number {
  return floorTo(minute, HOUR_MS)
}

function byMinute(cells: readonly Cell[]): Iterable<readonly Cell[]> {
  return Map.groupBy(cells, ({ minute }) => minute).values()
}

async function write(session: Session, grain: 'minute' | 'hour', cells: readonly Cell[]): Promise<void> {
  if (cells.length === 0) return
  for (const { counts } of cells) assert(counts.every(Number.isSafeInteger), 'a count of a posting is beyond 2^53')
  const columns = keyColumns(grain, cells)
  const counts = Array.from({ length: cells[0]?.counts.length ?? 0 }, (_, index) => bigints(cells.map((cell) => cell.counts[index] ?? 0)))
  const amounts = Array.from({ length: cells[0]?.amounts.length ?? 0 }, (_, index) =>
    bigints(cells.map((cell) => cell.amounts[index] ?? 0n)),
  )
  await session.prepared(ADD[grain], [...columns, ...counts, ...amounts])
  const lessened = cells.filter((cell) => cell.lessened)
  if (lessened.length > 0) await session.prepared(DROP_EMPTY[grain], keyColumns(grain, lessened))
}

function keyColumns(grain: 'minute' | 'hour', cells: readonly Cell[]): readonly Parameter[] {
  const names = [0, 1, 2, 3].map((index) => texts(cells.map((cell) => cell.names[index] ?? '')))
  return [
    texts(cells.map(({ tenant }) => tenant)),
    bigints(cells.map((cell) => (grain === 'minute' ? cell.minute : hourOf(cell)))),
    texts(cells.map(({ dimension }) => dimension)),
    texts(cells.map(({ value }) => value)),
    ...names,
  ]
}

async function mark(session: Session, cells: readonly Cell[], floor_ms: number, bucketOf: (tenant: string) => number): Promise<void> {
  const marks = new Map<string, readonly [grain: string, tenant: string, at: number]>()
  for (const cell of cells) {
    const { tenant } = cell
    const [hour, day] = [hourOf(cell), dayStart(cell.minute)]
    if (hour >= floor_ms) marks.set(`hour ${hour} ${tenant}`, ['hour', tenant, hour])
    marks.set(`day ${day} ${tenant}`, ['day', tenant, day])
  }
  const rows = [...marks.values()]
  if (rows.length === 0) return
  await session.prepared(MARK, [
    texts(rows.map(([grain]) => grain)),
    texts(rows.map(([, tenant]) => tenant)),
    bigints(rows.map(([, , at]) => at)),
    bigints(rows.map(([, tenant]) => bucketOf(tenant))),
  ])
}

type Grain = 'hour' | 'day'
const SPAN_MS = { hour: HOUR_MS, day: DAY_MS } as const
const FINER = { hour: 'usage_minutes', day: 'usage_hours' } as const
const COARSER = { hour: 'usage_hours', day: 'usage_days' } as const

/** Marks of spans that are over, oldest first. A day waits for its hours. */
const STALE = (grain: Grain): string =>
  `SELECT tenant, at, bucket FROM usage_stale AS s WHERE grain = '${grain}' AND at <= $1` +
  (grain === 'hour'
    ? ''
    : " AND NOT EXISTS (SELECT 1 FROM usage_stale AS h WHERE h.grain = 'hour' AND h.tenant = s.tenant AND h.at >= s.at " +
      `AND h.at < s.at + ${DAY_MS})`) +
  ` ORDER BY at LIMIT ${MARKS_LOOKED_AT}`

const spans = 'unnest($1::text[], $2::bigint[]) AS x (tenant, at)'
const UNMARK = (grain: Grain): string =>
  `DELETE FROM usage_stale AS s USING ${spans} WHERE s.grain = '${grain}' AND s.tenant = x.tenant AND s.at = x.at RETURNING s.tenant, s.at`
/** A day becomes an archive only once nothing of it is stale: whatever marks it later must not touch sums that are closed. */
const ARCHIVED_STARTS = `SELECT ${POSTGRES.startOfDay('day')} AS at FROM archives`
const EMPTY = (grain: Grain): string => `DELETE FROM ${COARSER[grain]} AS r USING ${spans} WHERE r.tenant = x.tenant AND r.at = x.at`
const FILL = (grain: Grain): string => {
  const names = PLACE.filter((name) => name !== 'at').map((name) => `r.${name}`)
  return (
    `INSERT INTO ${COARSER[grain]} (${COLUMNS.join(', ')}) SELECT x.tenant, x.at, ${names.join(', ')}, ` +
    `${SUMS.map((name) => `SUM(r.${name})`).join(', ')} FROM ${spans} ` +
    `JOIN ${FINER[grain]} AS r ON r.tenant = x.tenant AND r.at >= x.at AND r.at < x.at + ${SPAN_MS[grain]} ` +
    `GROUP BY x.tenant, x.at, ${names.join(', ')} HAVING SUM(r.requests) > 0`
  )
}

interface Span {
  readonly tenant: string
  readonly at: number
}

/** Sums of usage that are derived, and minutes that are deleted, in quiet moments; one slice at a time. */
export class Rollups {
  readonly #database: Database
  readonly #schema: string
  readonly #slice: number
  /** The last tenant whose old minutes were deleted; null when there are none. */
  #cleaned: string | null = ''

  /** @param slice hours or days that one transaction derives */
  constructor(database: Database, schema: string, slice = DERIVE_SLICE) {
    this.#database = database
    this.#schema = schema
    this.#slice = slice
  }

  /**
   * One slice of deriving hours, then days, that ended before `now_ms`.
   * @returns whether there is more to do
   */
  async deriveSome(now_ms: number): Promise<boolean> {
    return (await this.#derive('hour', now_ms)) || (await this.#derive('day', now_ms))
  }

  /**
   * One slice of deleting minutes that are older than they are kept.
   * @returns whether there is more to do
   */
  async deleteSome(now_ms: number): Promise<boolean> {
    const floor_ms = await this.#raiseFloor(dayStart(now_ms - MINUTES_KEPT_DAYS * DAY_MS))
    if (this.#cleaned === null) return false
    const { rows } = await this.#database.use((session) => session.run(NEXT_TENANT, [this.#cleaned]))
    const tenant = rows[0] === undefined ? null : textOf(rows[0], 'tenant')
    if (tenant === null) this.#cleaned = null
    else if ((await this.#database.use((session) => session.run(DELETE_MINUTES, [tenant, floor_ms]))).count < DELETE_SLICE)
      this.#cleaned = tenant
    return this.#cleaned !== null
  }

  /** Has the hour or day of a tenant that starts at `at` derived again. */
  async touch(grain: Grain, tenant: string, at: number, bucket: number): Promise<void> {
    await this.#database.transaction(async (session) => {
      await session.run('SELECT pg_advisory_xact_lock($1)', [lockKey(this.#schema, bucketLock(bucket))])
      await session.prepared(MARK, [texts([grain]), texts([tenant]), bigints([at]), bigints([bucket])])
    })
  }

  async #derive(grain: Grain, now_ms: number): Promise<boolean> {
    const { rows } = await this.#database.use((session) => session.run(STALE(grain), [now_ms - SPAN_MS[grain]]))
    const marks = rows.map((row) => ({ tenant: textOf(row, 'tenant'), at: numberOf(row, 'at'), bucket: numberOf(row, 'bucket') }))
    let derived = false
    for (const [bucket, alike] of Map.groupBy(marks, (one) => one.bucket)) {
      const slice = alike.slice(0, this.#slice)
      derived = (await this.#database.transaction((session) => this.#deriveSlice(session, grain, bucket, slice))) || derived
    }
    // Where every bucket is being posted to there will be another time.
    return derived
  }

  async #deriveSlice(session: Session, grain: Grain, bucket: number, slice: readonly Span[]): Promise<boolean> {
    const { rows } = await session.run('SELECT pg_try_advisory_xact_lock($1) AS locked', [lockKey(this.#schema, bucketLock(bucket))])
    if (rows[0]?.['locked'] !== 1n) return false
    const archived = new Set((await session.run(ARCHIVED_STARTS)).rows.map((row) => numberOf(row, 'at')))
    const unmarked = (await session.run(UNMARK(grain), columnsOf(slice))).rows
    const spans_left = unmarked
      .map((row) => ({ tenant: textOf(row, 'tenant'), at: numberOf(row, 'at') }))
      .filter(({ at }) => !archived.has(dayStart(at)))
    if (spans_left.length === 0) return unmarked.length > 0
    await session.run(EMPTY(grain), columnsOf(spans_left))
    await session.run(FILL(grain), columnsOf(spans_left))
    return true
  }

  /** Readers and posters stop looking below the floor before anything there is deleted. Hours below it must be derived. */
  async #raiseFloor(floor_ms: number): Promise<number> {
    const { rows } = await this.#database.use((session) => session.run(FLOOR))
    const known_ms = rows[0] === undefined ? 0 : numberOf(rows[0], 'floor')
    if (floor_ms <= known_ms) return known_ms
    const raised = await this.#database.transaction(async (session) => {
      await session.run('SELECT pg_advisory_xact_lock($1)', [lockKey(this.#schema, CLOSING)])
      return (await session.run(RAISE_FLOOR, [floor_ms])).count > 0
    })
    if (raised) this.#cleaned = ''
    return raised ? floor_ms : known_ms
  }
}

function columnsOf(slice: readonly Span[]): readonly Parameter[] {
  return [texts(slice.map(({ tenant }) => tenant)), bigints(slice.map(({ at }) => at))]
}

const FLOOR = "SELECT value::bigint AS floor FROM meta WHERE name = 'usage_floor'"
const RAISE_FLOOR =
  "UPDATE meta SET value = $1::bigint::text WHERE name = 'usage_floor' AND value::bigint < $1::bigint " +
  "AND NOT EXISTS (SELECT 1 FROM usage_stale WHERE grain = 'hour' AND at < $1::bigint)"
const NEXT_TENANT = 'SELECT tenant FROM usage_minutes WHERE tenant > $1 ORDER BY tenant LIMIT 1'
const DELETE_MINUTES =
  'DELETE FROM usage_minutes WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_minutes ' +
  `WHERE tenant = $1 AND at < $2 LIMIT ${DELETE_SLICE}))`
