import type { Clock } from '../../base/clock.ts'
import { assert } from '../../base/assert.ts'
import type { LimitUse, LostFact, OnProgress, RebuildChange, Rebuilder, UsageMark } from '../books.ts'
import { bucketOf } from '../cluster-ports.ts'
import type { LedgerEntry } from '../ports.ts'
import { entryFrom } from '../sql/audit-accounts.ts'
import { BALANCES } from '../sql/balances.ts'
import { FLOOR, notArchived, PLACE, wrongCells, wrongDays, wrongHours } from '../sql/cells.ts'
import { dayStartSql } from '../sql/dialect.ts'
import { bigOf, numberOf, type SqlRow, type SqlStatement, textOf } from '../sql/executor.ts'
import { againTransaction, type EntriesOptions, lostFacts, rebuildEntries } from '../sql/rebuild-entries.ts'
import { balanceChange, columnsChange, placeOf, standingChange, sumChanges, told, readUses, WRONG_BALANCES } from '../sql/rebuild-parts.ts'
import { DAY_MS, dayStart, HOUR_MS, MINUTE_MS, SUMS } from '../sql/rollup-batch.ts'
import { brokenSeals } from '../sql/seal.ts'
import { missingNumbers } from './audit.ts'
import { COLUMNS_OFF, PUT_BACK, STANDING_OFF, SET_STANDING, TAKE_PLACE } from './rebuild-rows.ts'
import type { Database } from './database.ts'
import { addBalances, type BalanceChange } from './entries.ts'
import { POSTGRES } from './dialect.ts'
import { bucketLock, lockKey } from './locks.ts'
import type { Partitions } from './partitions.ts'
import { correctMinutes, type Rollups } from './rollups.ts'
import { transact } from './transact.ts'

/** Rows of events looked for, and put right, at a time. */
const SLICE = 100

export interface PostgresRebuilderOptions {
  /** For statements that take long. */
  readonly database: Database
  readonly rollups: Rollups
  readonly partitions: Partitions
  readonly schema: string
  readonly clock: Clock
}

/**
 * Looks in snapshots and changes what is wrong in small transactions, so that postings come in between. What the ledger lacks of events
 * only journals know: whoever has them posts it again.
 */
export class PostgresRebuilder implements Rebuilder {
  readonly #options: PostgresRebuilderOptions
  /** Entries and balances that the latest look had to leave as they are. */
  #lost: readonly LostFact[] = []

  constructor(options: PostgresRebuilderOptions) {
    this.#options = options
  }

  /** Rows of events from their bodies, and which of two revisions counts. */
  async events(check: boolean): Promise<readonly RebuildChange[]> {
    const changes: RebuildChange[] = []
    for (const row of await this.#read(DAYS)) {
      const day = textOf(row, 'day')
      changes.push(...(await this.#rowsOf(day, COLUMNS_OFF, columnsChange, check ? null : (rows) => this.#putBack(rows))))
    }
    // Rows may have gone to another day.
    for (const row of await this.#read(DAYS)) {
      const day = textOf(row, 'day')
      changes.push(...(await this.#rowsOf(day, STANDING_OFF, standingChange, check ? null : (rows) => this.#setStanding(rows))))
    }
    return told(changes)
  }

  async entries(check: boolean, archivesAreSound: () => Promise<boolean>): Promise<readonly RebuildChange[]> {
    const { changes, lost } = await rebuildEntries(check, this.#entries(), archivesAreSound)
    this.#lost = lost
    return told(changes)
  }

  async balances(check: boolean): Promise<readonly RebuildChange[]> {
    const { database } = this.#options
    const wrong = await this.#read(WRONG_BALANCES)
    const [broken] = wrong.length === 0 ? [] : await brokenSeals(database, POSTGRES)
    if (broken !== undefined) {
      // Of a transaction that lost its entries the balances are all that is left.
      const why = `transaction ${broken}: the balances may be right`
      this.#lost = [...this.#lost, { what: 'running balances that differ from entries', id: `${wrong.length} accounts`, why }]
      return []
    }
    // The difference and not the sum: what is posted meanwhile moves both sides.
    if (!check) await database.transaction((session) => addBalances(session, wrong.map(correction)))
    return told(wrong.map(balanceChange))
  }

  /** @param mark with its balances, if it is not to be now */
  async balancesAt(mark: UsageMark): Promise<readonly LedgerEntry[]> {
    return mark.balances ?? (await this.#read(BALANCES)).map(entryFrom)
  }

  usedAt(mark: UsageMark, uses: readonly LimitUse[]): Promise<readonly bigint[]> {
    return readUses(uses, mark, POSTGRES, this.#options.database)
  }

  async rollups(check: boolean, on_progress: OnProgress): Promise<readonly RebuildChange[]> {
    const changes: RebuildChange[] = []
    const [floor] = await this.#read(`SELECT ${FLOOR} AS floor`)
    const floor_ms = floor === undefined ? 0 : numberOf(floor, 'floor')
    // Of an event that is lost its minute is all that is left.
    const days = (await missingNumbers(this.#options.database)).length > 0 ? [] : await this.#read(MINUTE_DAYS)
    for (const [done, row] of days.entries()) {
      const day_ms = Date.parse(`${textOf(row, 'day')}T00:00:00+08:00`)
      for (let at = Math.max(day_ms, floor_ms); at < day_ms + DAY_MS; at += HOUR_MS) changes.push(...(await this.#minutes(at, check)))
      on_progress({ doing: `comparing minutes of ${textOf(row, 'day')} with their events`, done: done + 1, of: days.length })
    }
    for (const grain of ['hour', 'day'] as const) changes.push(...(await this.#coarse(grain, check)))
    return told(changes)
  }

  async lost(): Promise<readonly LostFact[]> {
    return [...(await lostFacts(this.#entries())), ...this.#lost]
  }

  #entries(): EntriesOptions {
    const { database, clock } = this.#options
    return {
      executor: database,
      auditing: database,
      dialect: POSTGRES,
      lostNumbers: () => missingNumbers(database),
      post: async (entries) => {
        const [row] = await this.#read("SELECT COUNT(*) + 1 AS next FROM ledger_transactions WHERE id LIKE 'usage-again-%'")
        const transaction = againTransaction(`again-${row === undefined ? 1 : numberOf(row, 'next')}`, clock.now_ms(), entries)
        if ((await transact(transaction, database)) === 'duplicate') throw new Error(`${transaction.id} is posted already; try again`)
      },
    }
  }

  /** Rows of one day that a query finds, page by page, each page put right before the next is looked for. */
  async #rowsOf(
    day: string,
    find: string,
    changeOf: (row: SqlRow) => RebuildChange,
    right: ((rows: readonly SqlRow[]) => Promise<void>) | null,
  ): Promise<readonly RebuildChange[]> {
    const changes: RebuildChange[] = []
    let after: readonly [string, number] = ['', 0]
    for (;;) {
      const rows = await this.#read(find, day, ...after, SLICE)
      const last = rows.at(-1)
      if (last === undefined) return changes
      changes.push(...rows.map(changeOf))
      after = [textOf(last, 'id'), numberOf(last, 'revision')]
      if (right !== null) await right(rows)
    }
  }

  /** Another row in the place where this one belongs is not what belongs there. */
  async #putBack(rows: readonly SqlRow[]): Promise<void> {
    await this.#options.partitions.ensure(rows.map((row) => textOf(row, 'own_day')))
    await this.#options.database.write(
      rows.flatMap((row) => {
        const key = keyOf(row)
        return [
          { sql: TAKE_PLACE, params: [...key, ...key] },
          { sql: PUT_BACK, params: key },
        ]
      }),
    )
  }

  async #setStanding(rows: readonly SqlRow[]): Promise<void> {
    await this.#options.database.write(rows.map((row) => ({ sql: SET_STANDING, params: keyOf(row) })))
  }

  /** Minutes of one hour that are not the sums of their events. Archived days keep theirs: their events are not here. */
  async #minutes(at: number, check: boolean): Promise<readonly RebuildChange[]> {
    const params = [at, at + HOUR_MS]
    const cells = await this.#read(WRONG_MINUTES, ...params, ...params)
    if (!check) await this.#correct(cells)
    return sumChanges('minute', cells)
  }

  /** Adds the difference and not the sum, under the locks of posting: what is posted meanwhile moves both sides. */
  async #correct(cells: readonly SqlRow[]): Promise<void> {
    const { database, schema } = this.#options
    for (const [bucket, own] of Map.groupBy(cells, (row) => bucketOf(textOf(row, 'tenant')))) {
      await database.transaction(async (session) => {
        await session.run('SELECT pg_advisory_xact_lock($1)', [lockKey(schema, bucketLock(bucket))])
        await correctMinutes(session, own)
      })
    }
    await this.#deriveAgain(cells, ['hour', 'day'])
  }

  /** Hours that are not the sums of their minutes, then days that are not those of their hours; stale ones are on their way already. */
  async #coarse(grain: 'hour' | 'day', check: boolean): Promise<readonly RebuildChange[]> {
    if (!check) await this.#derive()
    const cells = await this.#read(grain === 'hour' ? WRONG_HOURS : WRONG_DAYS)
    if (!check && cells.length > 0) {
      await this.#deriveAgain(cells, [grain])
      await this.#derive()
    }
    return sumChanges(grain, cells)
  }

  async #deriveAgain(cells: readonly SqlRow[], grains: readonly ('hour' | 'day')[]): Promise<void> {
    for (const [first] of Map.groupBy(cells, placeOf).values()) {
      assert(first !== undefined, 'a place without a cell')
      const [tenant, at] = [textOf(first, 'tenant'), numberOf(first, 'at')]
      for (const grain of grains) {
        const start = grain === 'hour' ? Math.floor(at / HOUR_MS) * HOUR_MS : dayStart(at)
        await this.#options.rollups.touch(grain, tenant, start, bucketOf(tenant))
      }
    }
  }

  async #derive(): Promise<void> {
    const { rollups, clock } = this.#options
    while (await rollups.deriveSome(clock.now_ms()));
  }

  async #read(sql: string, ...params: SqlStatement['params']): Promise<readonly SqlRow[]> {
    const [rows] = await this.#options.database.read([{ sql, params }])
    return rows ?? []
  }
}

function keyOf(row: SqlRow): readonly [string, string, number] {
  return [textOf(row, 'day'), textOf(row, 'id'), numberOf(row, 'revision')]
}

/** A tenant's accounts are in its bucket; of a supplier's rows any may take it. */
function correction(row: SqlRow): BalanceChange {
  const { account } = entryFrom({ ...row, amount: 0n })
  return { account, amount: bigOf(row, 'missing'), bucket: bucketOf(account.owner) }
}

const DAYS = 'SELECT DISTINCT day FROM events WHERE day NOT IN (SELECT day FROM archives) ORDER BY day'

/** Also days of minutes without any event: nothing else would find them. */
const MINUTE_DAYS =
  'SELECT day FROM events WHERE day NOT IN (SELECT day FROM archives) UNION ' +
  `SELECT ${POSTGRES.dateOf('at')} FROM (SELECT DISTINCT ${dayStartSql('at')} AS at FROM usage_minutes WHERE at >= ${FLOOR}) AS m ` +
  `WHERE ${notArchived('at', POSTGRES)} ORDER BY 1`

const FIGURES = [
  'COUNT(*) AS requests',
  "SUM(CASE e.status WHEN 'completed' THEN 1 ELSE 0 END) AS completed",
  ...['input', 'cached_input', 'cache_write', 'output', 'reasoning'].map((name) => `SUM(e.${name}) AS ${name}`),
  `SUM(${POSTGRES.jsonInteger('e.body', 'calls', 'search')}) AS searches`,
  `SUM(${POSTGRES.jsonInteger('e.body', 'calls', 'image')}) AS images`,
  ...['amount_nano', 'cost_nano', 'overrun_nano'].map((name) => `SUM(e.${name}) AS ${name}`),
]

/** What the minutes of a span must be, by the same rule by which they are written: one row per dimension. */
const EXPECTED =
  `SELECT e.tenant, e.admitted_at - e.admitted_at % ${MINUTE_MS} AS at, d.dimension, d.value, e.project, e.key, e.model, e.endpoint, ` +
  `${FIGURES.join(', ')} FROM events AS e CROSS JOIN LATERAL (SELECT '' AS dimension, '' AS value ` +
  "UNION ALL SELECT 'end_user', e.end_user WHERE e.end_user IS NOT NULL " +
  `UNION ALL SELECT 'tag:' || t.key, t.value FROM ${POSTGRES.jsonMembers('e.body', 'tags', 't')}) AS d ` +
  'WHERE e.superseded = 0 AND e.admitted_at >= ? AND e.admitted_at < ? GROUP BY 1, 2, 3, 4, 5, 6, 7, 8'

const WRONG_MINUTES = wrongCells(EXPECTED, `SELECT ${[...PLACE, ...SUMS].join(', ')} FROM usage_minutes WHERE at >= ? AND at < ?`)

/** Archived days keep what they have: of a minute that is lost there nothing here knows. */
const WRONG_HOURS = wrongHours(notArchived('t.at', POSTGRES))
const WRONG_DAYS = wrongDays(notArchived('t.at', POSTGRES))
