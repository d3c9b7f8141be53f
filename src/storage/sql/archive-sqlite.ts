import { join } from 'node:path'
import { type Clock, dayOf, SHANGHAI_OFFSET_MS } from '../../base/clock.ts'
import { type ArchivableDay, ArchiveRefused, type OnProgress } from '../books.ts'
import { runArchiver } from '../journal/archiver.ts'
import type { Journal } from '../journal/client.ts'
import type { ArchiveFacts } from './archive-file.ts'
import type { ArchiveDriver, ClosingDay } from './archive.ts'
import { numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'

const DAY_MS = 86_400_000
/** Events deleted per commit: a few milliseconds, which is what another commit may have to wait. */
const DELETE_SLICE = 100
/** Sums stored per commit. */
const SUM_SLICE = 500

export interface SqliteArchiveOptions {
  readonly data_dir: string
  readonly executor: SqlExecutor
  /** Reads that take long. */
  readonly auditing: Pick<SqlExecutor, 'read'>
  readonly journal: Journal
  readonly clock: Clock
}

/** The archive of the embedded mode: journal and events are in one file, whose rows are deleted in small commits beside traffic. */
export class SqliteArchiveDriver implements ArchiveDriver {
  readonly #options: SqliteArchiveOptions
  #busy = false

  constructor(options: SqliteArchiveOptions) {
    this.#options = options
  }

  read(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]> {
    return this.#options.executor.read(statements)
  }

  async alone<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#busy) throw new ArchiveRefused('another run of the archive is under way')
    this.#busy = true
    try {
      return await work()
    } finally {
      this.#busy = false
    }
  }

  async days(end: string): Promise<readonly ArchivableDay[]> {
    const { journal, clock, auditing } = this.#options
    const now_ms = clock.now_ms()
    // Rows of the journal that are past their time only wait for a quiet moment.
    while ((await journal.ask<'forget'>({ what: 'forget', now_ms })) > 0);
    const [counts = [], [kept] = [], stale = []] = await auditing.read([
      { sql: DAYS, params: [end] },
      { sql: OLDEST_KEPT, params: [] },
      { sql: STALE, params: [] },
    ])
    const stale_days = new Set(stale.map((row) => dayOf(numberOf(row, 'at'))))
    return counts.map((row) => {
      const day = textOf(row, 'day')
      const blocked = row['state'] === 'written' ? null : blockedBy(day, kept, stale_days)
      return { day, events: numberOf(row, 'events'), blocked }
    })
  }

  write(day: string, directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
    return runArchiver({ what: 'write', path: join(this.#options.data_dir, 'weir.db'), day, directory, file }, on_lines)
  }

  readFile(directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
    return runArchiver({ what: 'read', directory, file }, on_lines)
  }

  /** In several commits: beside traffic each must be short. */
  async keepBooks(day: string, { sums, numbers }: Pick<ArchiveFacts, 'sums' | 'numbers'>): Promise<void> {
    const { executor } = this.#options
    await executor.write([
      { sql: 'DELETE FROM archive_sums WHERE day = ?', params: [day] },
      { sql: 'DELETE FROM archive_numbers WHERE day = ?', params: [day] },
    ])
    for (const slice of slicesOf(sums)) {
      const rows = JSON.stringify(slice.map(({ owner, ref, unit, amount }) => [owner, ref, unit, String(amount)]))
      await executor.write([{ sql: KEEP_SUMS, params: [day, rows] }])
    }
    for (const slice of slicesOf(numbers)) {
      const rows = JSON.stringify(slice.map(({ node, first_seq, last_seq }) => [node, first_seq, last_seq]))
      await executor.write([{ sql: KEEP_NUMBERS, params: [day, rows] }])
    }
  }

  /** One transaction: what is posted or marked between a look and the insertion would be closed unseen. */
  async close(closing: ClosingDay): Promise<boolean> {
    const { day, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes } = closing
    const values = [day, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes]
    const [, changes] = await this.#options.executor.write([
      { sql: CLOSE_DAY, params: [...values, day, events, day, previous] },
      { sql: 'SELECT changes() AS closed', params: [] },
    ])
    return changes?.[0] !== undefined && numberOf(changes[0], 'closed') === 1
  }

  async deleteRows(day: string, on_progress: OnProgress): Promise<void> {
    const { executor } = this.#options
    const [rows] = await executor.read([{ sql: 'SELECT COUNT(*) AS events FROM events WHERE day = ?', params: [day] }])
    const of = rows?.[0] === undefined ? 0 : numberOf(rows[0], 'events')
    for (let done = 0; ; done += DELETE_SLICE) {
      const [, changes] = await executor.write([
        { sql: DELETE_ROWS, params: [day, DELETE_SLICE] },
        { sql: 'SELECT changes() AS deleted', params: [] },
      ])
      if (changes?.[0] === undefined || numberOf(changes[0], 'deleted') < DELETE_SLICE) return
      on_progress({ doing: `deleting rows of ${day}`, done, of })
    }
  }

  async finish(day: string): Promise<void> {
    await this.#options.executor.write([{ sql: "UPDATE archives SET state = 'closed' WHERE day = ?", params: [day] }])
  }
}

const DAYS =
  'SELECT day, COUNT(*) AS events, (SELECT state FROM archives AS a WHERE a.day = e.day) AS state FROM events AS e WHERE day < ?1 ' +
  "GROUP BY day UNION ALL SELECT day, 0, state FROM archives WHERE state = 'written' AND day < ?1 " +
  'AND day NOT IN (SELECT day FROM events) ORDER BY day'

const OLDEST_KEPT = "SELECT MIN(at) AS at, MIN(CASE kind WHEN 'U' THEN day END) AS day FROM journal"

const STALE = 'SELECT DISTINCT at FROM usage_stale'

const DELETE_ROWS = 'DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE day = ? ORDER BY id, revision LIMIT ?)'

const CLOSE_DAY =
  'INSERT INTO archives (day, state, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes) ' +
  "SELECT ?, 'written', ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT COUNT(*) FROM events WHERE day = ?) = ? " +
  "AND NOT EXISTS (SELECT 1 FROM usage_stale WHERE date(at / 1000 + 28800, 'unixepoch') = ?) " +
  "AND COALESCE((SELECT chain FROM archives ORDER BY number DESC LIMIT 1), '') = ?"

const KEEP_SUMS =
  "INSERT INTO archive_sums SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), " +
  "CAST(json_extract(value, '$[3]') AS INTEGER) FROM json_each(?)"

const KEEP_NUMBERS =
  "INSERT INTO archive_numbers SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)"

function blockedBy(day: string, kept: SqlRow | undefined, stale_days: ReadonlySet<string>): string | null {
  const end_ms = Date.parse(`${day}T00:00:00Z`) - SHANGHAI_OFFSET_MS + DAY_MS
  if (kept !== undefined && kept['at'] !== null) {
    const first_day = kept['day']
    if (numberOf(kept, 'at') < end_ms || (typeof first_day === 'string' && first_day <= day)) {
      return 'the journal still keeps rows of that day: it was less than keep_days ago, or a request of it is open or not posted'
    }
  }
  return stale_days.has(day) ? 'its sums are not derived yet; try again in a minute' : null
}

function* slicesOf<Item>(list: readonly Item[]): Generator<readonly Item[]> {
  for (let from = 0; from < list.length; from += SUM_SLICE) yield list.slice(from, from + SUM_SLICE)
}
