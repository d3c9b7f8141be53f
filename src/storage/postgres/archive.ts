import { Worker } from 'node:worker_threads'
import { type Clock, dayOf, SHANGHAI_OFFSET_MS } from '../../base/clock.ts'
import { type ArchivableDay, ArchiveRefused, type OnProgress } from '../books.ts'
import { heardFrom } from '../journal/archiver.ts'
import type { ArchiveFacts } from '../sql/archive-file.ts'
import type { ArchiveDriver, ClosingDay } from '../sql/archive.ts'
import { numberOf, type SqlRow, type SqlStatement, textOf } from '../sql/executor.ts'
import { DAY_MS } from '../sql/rollup-batch.ts'
import { bigints, texts } from './arrays.ts'
import type { PostgresArchiveTask } from './archive-worker.ts'
import { LockTaken, underLock } from './buckets.ts'
import type { Database, DatabaseOptions } from './database.ts'
import { POSTGRES } from './dialect.ts'
import { CLOSING, lockKey, turnLock } from './locks.ts'
import { readNodes } from './nodes.ts'
import type { Retention } from './retention.ts'

/** A node that has said nothing for so long is not about to post what it has. */
const SILENT_MS = 3_600_000

export interface PostgresArchiveOptions {
  /** Reads and statements that take long. */
  readonly database: Database
  readonly locks: Database
  /** How the archiver's thread reaches the same database. */
  readonly connection: Omit<DatabaseOptions, 'name' | 'connections'>
  readonly retention: Retention
  readonly clock: Clock
  /** Journals keep rows so long after they were posted; before that, one of them may have an event that is not here. */
  readonly keep_days: number
}

/** The archive of the shared ledger: a day is a partition, which is dropped once its file is written and its books are kept. */
export class PostgresArchiveDriver implements ArchiveDriver {
  readonly #options: PostgresArchiveOptions

  constructor(options: PostgresArchiveOptions) {
    this.#options = options
  }

  read(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]> {
    return this.#options.database.read(statements)
  }

  async alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const { locks, connection } = this.#options
    const key = lockKey(connection.schema, turnLock('archive'))
    try {
      return await underLock(locks, key, 'try', work)
    } catch (error) {
      if (error instanceof LockTaken && error.key === key) throw new ArchiveRefused('another run of the archive is under way')
      throw error
    }
  }

  async days(end: string): Promise<readonly ArchivableDay[]> {
    const { database, clock, keep_days } = this.#options
    const [counts = [], stale = []] = await database.read([
      { sql: DAYS, params: [end, end] },
      { sql: STALE, params: [] },
    ])
    const stale_days = new Set(stale.map((row) => dayOf(numberOf(row, 'at'))))
    const waiting = await this.#waitingNode()
    return counts.map((row) => {
      const [day, events] = [textOf(row, 'day'), numberOf(row, 'events')]
      const ended_ms = Date.parse(`${day}T00:00:00Z`) - SHANGHAI_OFFSET_MS + DAY_MS
      const is_recent = clock.now_ms() < ended_ms + keep_days * DAY_MS
      const kept = is_recent ? `it ended less than ${keep_days} days ago, so that journals may still have events of it` : waiting
      const blocked = kept ?? (stale_days.has(day) ? 'its sums are not derived yet; try again in a minute' : null)
      return { day, events, blocked: row['state'] === 'written' ? null : blocked }
    })
  }

  write(day: string, directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
    const database = { ...this.#options.connection, name: 'weir archiver', connections: 1 }
    return runArchiver({ what: 'write', database, day, directory, file }, on_lines)
  }

  readFile(directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
    return runArchiver({ what: 'read', directory, file }, on_lines)
  }

  async keepBooks(day: string, { sums, numbers }: Pick<ArchiveFacts, 'sums' | 'numbers'>): Promise<void> {
    await this.#options.database.transaction(async (session) => {
      for (const table of ['archive_sums', 'archive_numbers']) await session.run(`DELETE FROM ${table} WHERE day = $1`, [day])
      await session.run(KEEP_SUMS, [
        day,
        texts(sums.map(({ owner }) => owner)),
        texts(sums.map(({ ref }) => ref)),
        texts(sums.map(({ unit }) => unit)),
        bigints(sums.map(({ amount }) => amount)),
      ])
      await session.run(KEEP_NUMBERS, [
        day,
        texts(numbers.map(({ node }) => node)),
        bigints(numbers.map(({ first_seq }) => first_seq)),
        bigints(numbers.map(({ last_seq }) => last_seq)),
      ])
    })
  }

  /** Postings wait while the day's rows are counted: what was posted between a look and the insertion would be closed unseen. */
  async close(closing: ClosingDay): Promise<boolean> {
    const { database, connection } = this.#options
    const { day, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes } = closing
    return await database.transaction(async (session) => {
      await session.run('SELECT pg_advisory_xact_lock($1)', [lockKey(connection.schema, CLOSING)])
      const values = [day, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes]
      return (await session.run(CLOSE_DAY, values)).count === 1
    })
  }

  async deleteRows(day: string, on_progress: OnProgress): Promise<void> {
    on_progress({ doing: `dropping the rows of ${day}`, done: 0, of: 1 })
    if (!(await this.#options.retention.drop(day)))
      throw new ArchiveRefused('partitions are being made or dropped by another process; try again')
  }

  async finish(day: string): Promise<void> {
    await this.#options.database.write([{ sql: "UPDATE archives SET state = 'closed' WHERE day = ?", params: [day] }])
  }

  /** Of which day its events are only its journal knows. */
  async #waitingNode(): Promise<string | null> {
    const nodes = await readNodes(this.#options.database)
    const silent = nodes.find(({ unposted, silent_ms }) => unposted > 0 && silent_ms > SILENT_MS)
    if (silent === undefined) return null
    const since = new Date(silent.beat_at).toISOString()
    return `node ${silent.node} has said nothing since ${since} and had ${silent.unposted} events that may be of that day; start it again`
  }
}

function runArchiver(task: PostgresArchiveTask, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
  return heardFrom(new Worker(new URL('./archive-worker.ts', import.meta.url), { workerData: task, execArgv: [] }), on_lines)
}

const DAYS =
  'SELECT e.day, COUNT(*) AS events, MIN(a.state) AS state FROM events AS e LEFT JOIN archives AS a ON a.day = e.day WHERE e.day < ? ' +
  "GROUP BY e.day UNION ALL SELECT day, 0, state FROM archives WHERE state = 'written' AND day < ? " +
  'AND day NOT IN (SELECT day FROM events) ORDER BY day'

const STALE = 'SELECT DISTINCT at FROM usage_stale'

const KEEP_SUMS = 'INSERT INTO archive_sums SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[])'
const KEEP_NUMBERS = 'INSERT INTO archive_numbers SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[])'

const CLOSE_DAY =
  'INSERT INTO archives (number, day, state, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes) ' +
  "SELECT COALESCE((SELECT MAX(number) FROM archives), 0) + 1, $1, 'written', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 " +
  'WHERE (SELECT COUNT(*) FROM events WHERE day = $1) = $3 ' +
  `AND NOT EXISTS (SELECT 1 FROM usage_stale WHERE ${POSTGRES.dateOf('at')} = $1) ` +
  "AND COALESCE((SELECT chain FROM archives ORDER BY number DESC LIMIT 1), '') = $8"
