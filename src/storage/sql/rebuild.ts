import type { Clock } from '../../base/clock.ts'
import type { Journal } from '../journal/client.ts'
import type { LimitUse, LostFact, OnProgress, RebuildChange, Rebuilder, UsageMark } from '../books.ts'
import type { LedgerEntry } from '../ports.ts'
import { lostNumbers, readBalancesAt } from './audit.ts'
import { differingNames, differs, fromBody, UNLIKE_BODY } from './audit-columns.ts'
import { FLOOR, notArchived, PLACE, wrongCells, wrongDays, wrongHours } from './cells.ts'
import { dayStartSql, SQLITE } from './dialect.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { againTransaction, type EntriesOptions, lostFacts, rebuildEntries } from './rebuild-entries.ts'
import { balanceChange, columnsChange, placeOf, standingChange, sumChanges, told, readUses, WRONG_BALANCES } from './rebuild-parts.ts'
import { DAY_MS, HOUR_MS, MINUTE_MS, SUMS } from './rollup-batch.ts'
import { brokenSeals } from './seal.ts'

/** Rows posted again per commit. */
const REPOST_SLICE = 100
/** Sums corrected per commit. */
const CELL_SLICE = 100
/** How long hours and days may take to be derived again. */
const DERIVE_TIMEOUT_MS = 120_000
const DERIVE_POLL_MS = 100

export interface SqlRebuilderOptions {
  readonly executor: SqlExecutor
  /** Reads that take long. */
  readonly auditing: Pick<SqlExecutor, 'read'>
  readonly journal: Journal
  readonly clock: Clock
}

/**
 * Looks in the reader's thread and changes what is wrong in the writer's, in slices of a few milliseconds, so that commits of
 * running requests come in between.
 */
export class SqlRebuilder implements Rebuilder {
  readonly #options: SqlRebuilderOptions
  /** Entries and balances that the latest look had to leave as they are. */
  #lost: readonly LostFact[] = []

  constructor(options: SqlRebuilderOptions) {
    this.#options = options
  }

  async events(check: boolean): Promise<readonly RebuildChange[]> {
    const changes = await this.#rows(check, COLUMNS_OFF, PUT_BACK, columnsChange)
    for (let after = 0; ;) {
      const rows = await this.#read(LACKING, after, REPOST_SLICE)
      const last = rows.at(-1)
      if (last === undefined) break
      changes.push(...rows.map(lackingChange))
      after = numberOf(last, 'seq')
      if (!check) await this.#options.journal.ask<'repost'>({ what: 'repost', seqs: rows.map((row) => numberOf(row, 'seq')) })
    }
    changes.push(...(await this.#rows(check, STANDING_OFF, SET_STANDING, standingChange)))
    return told(changes)
  }

  async entries(check: boolean, archivesAreSound: () => Promise<boolean>): Promise<readonly RebuildChange[]> {
    const { changes, lost } = await rebuildEntries(check, this.#entries(), archivesAreSound)
    this.#lost = lost
    return told(changes)
  }

  async lost(): Promise<readonly LostFact[]> {
    return [...(await lostFacts(this.#entries())), ...this.#lost]
  }

  #entries(): EntriesOptions {
    const { executor, auditing, journal, clock } = this.#options
    return {
      executor,
      auditing,
      dialect: SQLITE,
      lostNumbers: () => lostNumbers(auditing),
      post: async (entries) => {
        const [rows] = await executor.read([{ sql: 'SELECT COALESCE(MAX(rowid), 0) + 1 AS next FROM ledger_transactions', params: [] }])
        const next = rows?.[0] === undefined ? 1 : numberOf(rows[0], 'next')
        const transaction = againTransaction(`${journal.node}-again-${next}`, clock.now_ms(), entries)
        if ((await journal.ask<'transact'>({ what: 'transact', transaction })) === 'duplicate') {
          throw new Error(`${transaction.id} is posted already; try again`)
        }
      },
    }
  }

  async balances(check: boolean): Promise<readonly RebuildChange[]> {
    const wrong = await this.#read(WRONG_BALANCES)
    const [broken] = wrong.length === 0 ? [] : await brokenSeals(this.#options.auditing, SQLITE)
    if (broken !== undefined) {
      // Of a transaction that lost its entries the balances are all that is left.
      const why = `transaction ${broken}: the balances may be right`
      this.#lost = [...this.#lost, { what: 'running balances that differ from entries', id: `${wrong.length} accounts`, why }]
      return []
    }
    if (!check && wrong.length > 0) {
      // The difference and not the sum: what is posted meanwhile moves both sides.
      await this.#options.executor.write(wrong.map(correction))
    }
    return told(wrong.map(balanceChange))
  }

  balancesAt(mark: UsageMark): Promise<readonly LedgerEntry[]> {
    return readBalancesAt(this.#options.executor, mark)
  }

  usedAt(mark: UsageMark, uses: readonly LimitUse[]): Promise<readonly bigint[]> {
    return readUses(uses, mark, SQLITE, this.#options.auditing)
  }

  async rollups(check: boolean, on_progress: OnProgress): Promise<readonly RebuildChange[]> {
    const changes: RebuildChange[] = []
    const [floor] = await this.#read(`SELECT ${FLOOR} AS floor`)
    const floor_ms = floor === undefined ? 0 : numberOf(floor, 'floor')
    // Of an event that is lost its minute is all that is left.
    const days = (await lostNumbers(this.#options.auditing)).length > 0 ? [] : await this.#read(PRESENT_DAYS)
    for (const [done, row] of days.entries()) {
      const day_ms = Date.parse(`${textOf(row, 'day')}T00:00:00+08:00`)
      for (let at = Math.max(day_ms, floor_ms); at < day_ms + DAY_MS; at += HOUR_MS) changes.push(...(await this.#minutes(at, check)))
      on_progress({ doing: `comparing minutes of ${textOf(row, 'day')} with their events`, done: done + 1, of: days.length })
    }
    for (const grain of ['hour', 'day'] as const) changes.push(...(await this.#coarse(grain, check)))
    return told(changes)
  }

  /** Minutes of one hour that are not the sums of their events. Archived days keep theirs: their events are not here. */
  async #minutes(at: number, check: boolean): Promise<readonly RebuildChange[]> {
    const params = [at, at + HOUR_MS]
    const cells = await this.#read(WRONG_MINUTES, ...params, ...params, ...params, ...params)
    if (!check) await this.#correct(cells)
    return sumChanges('minute', cells)
  }

  /** Adds the difference and not the sum: what is posted meanwhile moves both sides. */
  async #correct(cells: readonly SqlRow[]): Promise<void> {
    for (let from = 0; from < cells.length; from += CELL_SLICE) {
      await this.#options.executor.write(cells.slice(from, from + CELL_SLICE).flatMap(cellCorrection))
    }
    await this.#deriveAgain(cells, ['hour', 'day'])
  }

  /** Hours that are not the sums of their minutes, then days that are not those of their hours; stale ones are on their way already. */
  async #coarse(grain: 'hour' | 'day', check: boolean): Promise<readonly RebuildChange[]> {
    if (!check) await this.#derived()
    const cells = await this.#read(grain === 'hour' ? WRONG_HOURS : WRONG_DAYS)
    if (!check && cells.length > 0) {
      await this.#deriveAgain(cells, [grain])
      await this.#derived()
    }
    return sumChanges(grain, cells)
  }

  async #deriveAgain(cells: readonly SqlRow[], grains: readonly ('hour' | 'day')[]): Promise<void> {
    for (const [first] of [...Map.groupBy(cells, placeOf).values()]) {
      if (first === undefined) continue
      const [tenant, at] = [textOf(first, 'tenant'), numberOf(first, 'at')]
      for (const grain of grains) await this.#options.journal.ask<'derive'>({ what: 'derive', grain, tenant, at })
    }
  }

  /** Waits until nothing that was over is stale. */
  async #derived(): Promise<void> {
    const { clock, journal } = this.#options
    const start_ms = clock.monotonic_ms()
    // Marks that nobody told the writer of are looked at too.
    await journal.ask<'forget'>({ what: 'forget', now_ms: clock.now_ms() })
    const [last] = await this.#read('SELECT MAX(at) AS at FROM usage_minutes')
    const before = last === undefined || last['at'] === null ? 0 : Math.min(numberOf(last, 'at'), clock.now_ms()) - HOUR_MS
    for (;;) {
      const [row] = await this.#read(STALE_BEFORE, before, before - DAY_MS)
      if (row === undefined) return
      if (clock.monotonic_ms() - start_ms > DERIVE_TIMEOUT_MS) throw new Error('hours and days were not derived in time; try again later')
      await new Promise((resolve) => setTimeout(resolve, DERIVE_POLL_MS))
    }
  }

  /** Rows of events that a query finds, by rowid, each put right by one statement. */
  async #rows(check: boolean, find: string, right: string, changeOf: (row: SqlRow) => RebuildChange): Promise<RebuildChange[]> {
    const changes: RebuildChange[] = []
    for (let after = 0; ;) {
      const rows = await this.#read(find, after, REPOST_SLICE)
      const last = rows.at(-1)
      if (last === undefined) return changes
      changes.push(...rows.map(changeOf))
      after = numberOf(last, 'row')
      if (!check) await this.#options.executor.write(rows.map((row) => ({ sql: right, params: [numberOf(row, 'row')] })))
    }
  }

  async #read(sql: string, ...params: readonly number[]): Promise<readonly SqlRow[]> {
    const [rows] = await this.#options.auditing.read([{ sql, params }])
    return rows ?? []
  }
}

function lackingChange(row: SqlRow): RebuildChange {
  const was = row['found'] === null ? 'not in the ledger' : 'with another body in the ledger'
  return { what: 'event', id: textOf(row, 'id'), was, now: 'as the journal has it' }
}

function correction(row: SqlRow): SqlStatement {
  const names = ['code', 'owner', 'ref', 'unit'].map((name) => textOf(row, name))
  return {
    sql:
      'INSERT INTO ledger_balances (code, owner, ref, unit, amount) VALUES (?, ?, ?, ?, ?) ' +
      'ON CONFLICT (code, owner, ref, unit) DO UPDATE SET amount = amount + excluded.amount',
    params: [...names, bigOf(row, 'missing')],
  }
}

/** Adds what a sum lacks; a row that comes to nothing is none. */
function cellCorrection(row: SqlRow): readonly SqlStatement[] {
  const place = PLACE.map((name) => (name === 'at' ? bigOf(row, name) : textOf(row, name)))
  return [
    { sql: ADD_CELL, params: [...place, ...SUMS.map((name) => bigOf(row, name))] },
    { sql: DROP_EMPTY_CELL, params: place },
  ]
}

const LACKING =
  'SELECT j.seq, j.id, e.id AS found FROM journal AS j LEFT JOIN events AS e ON e.day = j.day AND e.id = j.id AND e.revision = j.revision ' +
  "WHERE j.kind = 'U' AND j.seq > ? AND j.seq <= CAST((SELECT value FROM meta WHERE name = 'posted_seq') AS INTEGER) " +
  'AND j.day NOT IN (SELECT day FROM archives) AND (e.id IS NULL OR e.body <> j.body) ORDER BY j.seq LIMIT ?'

/** Rows whose columns are not what their bodies say. The first condition is the cheap one. */
const COLUMNS_OFF =
  `SELECT rowid AS row, id, ${differingNames(SQLITE)} AS names FROM events NOT INDEXED WHERE rowid > ? AND ${UNLIKE_BODY} AND ${differs(SQLITE)} ` +
  "AND json_extract(body, '$.day') NOT IN (SELECT day FROM archives) ORDER BY rowid LIMIT ?"

/** Another row in the place where this one belongs is not what belongs there. */
const PUT_BACK = `UPDATE OR REPLACE events SET ${fromBody(SQLITE)} WHERE rowid = ?`

const STANDING = '(e.revision = 1 AND EXISTS (SELECT 1 FROM events AS n WHERE n.day = e.day AND n.id = e.id AND n.revision = 2))'
const STANDING_OFF =
  'SELECT e.rowid AS row, id, superseded FROM events AS e NOT INDEXED WHERE e.rowid > ? AND day NOT IN (SELECT day FROM archives) ' +
  `AND superseded <> ${STANDING} ORDER BY e.rowid LIMIT ?`
const SET_STANDING = `UPDATE events AS e SET superseded = ${STANDING} WHERE rowid = ?`

/** Also days of minutes without any event: nothing else would find them. */
const PRESENT_DAYS =
  'SELECT day FROM events WHERE day NOT IN (SELECT day FROM archives) UNION ' +
  `SELECT date(at / 1000 + 28800, 'unixepoch') FROM (SELECT DISTINCT ${dayStartSql('at')} AS at FROM usage_minutes WHERE at >= ${FLOOR}) ` +
  `WHERE ${notArchived('at', SQLITE)} ORDER BY 1`

/** What the minutes of a span must be, by the same rule by which they are written: one row per dimension. */
const EXPECTED =
  `SELECT e.tenant, e.admitted_at - e.admitted_at % ${MINUTE_MS} AS at, d.dimension, d.value, e.project, e.key, e.model, e.endpoint, ` +
  "COUNT(*) AS requests, SUM(e.status = 'completed') AS completed, SUM(e.input) AS input, SUM(e.cached_input) AS cached_input, " +
  'SUM(e.cache_write) AS cache_write, SUM(e.output) AS output, SUM(e.reasoning) AS reasoning, ' +
  "SUM(json_extract(e.body, '$.calls.search')) AS searches, SUM(json_extract(e.body, '$.calls.image')) AS images, " +
  'SUM(e.amount_nano) AS amount_nano, SUM(e.cost_nano) AS cost_nano, SUM(e.overrun_nano) AS overrun_nano ' +
  "FROM (SELECT rowid AS row, '' AS dimension, '' AS value FROM events WHERE admitted_at >= ? AND admitted_at < ? " +
  "UNION ALL SELECT rowid, 'end_user', end_user FROM events WHERE admitted_at >= ? AND admitted_at < ? AND end_user IS NOT NULL " +
  "UNION ALL SELECT e.rowid, 'tag:' || t.key, t.value FROM events AS e, json_each(e.body, '$.tags') AS t " +
  'WHERE e.admitted_at >= ? AND e.admitted_at < ?) AS d CROSS JOIN events AS e ON e.rowid = d.row WHERE e.superseded = 0 ' +
  'GROUP BY 1, 2, 3, 4, 5, 6, 7, 8'

const ADD_CELL =
  `INSERT INTO usage_minutes (${PLACE.join(', ')}, ${SUMS.join(', ')}) VALUES (${[...PLACE, ...SUMS].map(() => '?').join(', ')}) ` +
  `ON CONFLICT DO UPDATE SET ${SUMS.map((name) => `${name} = ${name} + excluded.${name}`).join(', ')}`
const DROP_EMPTY_CELL = `DELETE FROM usage_minutes WHERE ${[...PLACE.map((name) => `${name} = ?`), ...SUMS.map((name) => `${name} = 0`)].join(' AND ')}`

const WRONG_MINUTES = wrongCells(EXPECTED, `SELECT * FROM usage_minutes WHERE at >= ? AND at < ?`)

/** Archived days keep what they have: of a minute that is lost there nothing here knows. */
const WRONG_HOURS = wrongHours(notArchived('t.at', SQLITE))
const WRONG_DAYS = wrongDays(notArchived('t.at', SQLITE))

const STALE_BEFORE = "SELECT 1 FROM usage_stale WHERE (grain = 'hour' AND at < ?) OR (grain = 'day' AND at < ?) LIMIT 1"
