import { randomBytes } from 'node:crypto'
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import { Journal } from './journal/client.ts'
import { lazyReader, startReader } from './journal/reader.ts'
import { createMemoryChanges } from './memory/changes.ts'
import { createClosing } from './memory/closing.ts'
import { MemoryCredits } from './memory/credits.ts'
import { createMemoryLimits, type MemoryLimits } from './memory/limits.ts'
import { createTurns } from './memory/turns.ts'
import type { Cut, EventArchive, Rebuilder } from './books.ts'
import type { Changes, Closing, Credits, Ledger, LimitRule, Limits, Turns, UsageLog } from './ports.ts'
import type { Records } from './records.ts'
import type { SqlExecutor } from './sql/executor.ts'
import { SqlArchive } from './sql/archive.ts'
import { SqliteArchiveDriver } from './sql/archive-sqlite.ts'
import { SqlLedger, type LedgerWriter } from './sql/ledger.ts'
import { SqlRebuilder } from './sql/rebuild.ts'
import { SqlRecords } from './sql/records.ts'

export interface EmbeddedOptions {
  readonly data_dir: string
  readonly clock: Clock
  /** A close that is not durable after this long rejects. */
  readonly commit_timeout_ms: number
  /** Journal rows are kept this long after they were posted. */
  readonly keep_days: number
  readonly random?: RandomBytes
  /** Hears of failures that nobody waits for; they are tried again. */
  readonly on_trouble?: (error: Error) => void
}

/** Every port of one process, whichever the mode. */
export interface Storage {
  readonly limits: Limits
  readonly log: UsageLog
  readonly closing: Closing
  readonly credits: Credits
  readonly turns: Turns
  readonly ledger: Ledger
  readonly records: Records
  readonly changes: Changes
  /** Name of this data directory's journal, as on its events. */
  readonly node: string
  /** Events of closed days as files. */
  readonly archive: EventArchive
  /** Recomputes what is derived, beside running traffic. */
  readonly rebuilder: Rebuilder
  /**
   * Admission and journal at one moment, and where `rules` stood then. Taken between two turns of the event loop: a settle charges
   * limits and gives its row to the journal within one turn, so none is half done.
   */
  readonly cut: (rules?: readonly LimitRule[]) => Promise<Cut>
  /** Commits and posts what is left, checkpoints, and frees the data directory. */
  close(): Promise<void>
}

/** `limits` are empty: fill them with `rebuildLimits` once the journal is posted. */
export interface EmbeddedStorage extends Storage {
  readonly limits: MemoryLimits
  /** Its database, to be read table by table. */
  readonly database: Pick<SqlExecutor, 'read'>
}

/**
 * Opens a data directory (made if missing) and takes ownership of it. SQLite runs in two threads: one writes journal, ledger
 * and records, one reads; the main thread never waits for a disk.
 *
 * @throws DataDirectoryInUse if another process owns it
 * @throws SchemaError if its database is of a newer release
 * @throws JournalUnavailable if it cannot be opened
 * @throws DataDirectoryMoved if a cluster has its books now
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<EmbeddedStorage> {
  const { data_dir, clock, commit_timeout_ms, keep_days, random = randomBytes } = options
  const on_trouble = options.on_trouble ?? ((error) => process.emitWarning(error))
  refuseMoved(data_dir)
  const journal = await Journal.start({ data_dir, clock, commit_timeout_ms, keep_days, random, on_trouble })
  const path = join(data_dir, DATABASE)
  const reader = startReader(path)
  const auditing = lazyReader(path)
  const searching = lazyReader(path)
  const executor: SqlExecutor = {
    read: (statements) => reader.read(statements),
    write: (statements) => journal.ask<'write'>({ what: 'write', statements }),
  }
  const waiting = new WaitingTransactions()
  const writer: LedgerWriter = {
    post: () => journal.ask<'post'>({ what: 'post' }),
    transact: (transaction) => waiting.during(transaction.id, journal.ask<'transact'>({ what: 'transact', transaction })),
  }
  const ledger = new SqlLedger(executor, writer, auditing, searching)
  const records = new SqlRecords(executor)
  const limits = createMemoryLimits({ clock })
  const turns = createTurns()
  const cut: Storage['cut'] = (rules = []) =>
    new Promise((resolve, reject) => {
      setImmediate(() => {
        try {
          const [views, pending] = [limits.views(rules), waiting.ids()]
          journal.mark().then((mark) => resolve({ mark: { ...mark, pending }, ...views }), reject)
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)))
        }
      })
    })
  return {
    limits,
    database: executor,
    log: journal,
    closing: createClosing({ limits, log: journal, on_trouble }),
    credits: new MemoryCredits({ limits, records, ledger, turns }),
    turns,
    ledger,
    records,
    changes: createMemoryChanges(),
    node: journal.node,
    archive: new SqlArchive({
      directory: archiveDirectory(data_dir),
      driver: new SqliteArchiveDriver({ data_dir, executor, auditing, journal, clock }),
      clock,
    }),
    rebuilder: new SqlRebuilder({ executor, auditing, journal, clock }),
    cut,
    close: async () => {
      await searching.close()
      await auditing.close()
      await reader.close()
      await journal.shutdown()
    },
  }
}

/** Where a data directory has the files of archived days. */
export function archiveDirectory(data_dir: string): string {
  return join(data_dir, 'archive')
}

const DATABASE = 'weir.db'
const MOVED_DATABASE = 'weir.db.moved'

/** The books of this data directory are a cluster's now. */
export class DataDirectoryMoved extends Error {
  override name = 'DataDirectoryMoved'
}

/** An empty database must not be taken for the one that was moved away. */
function refuseMoved(data_dir: string): void {
  const moved = join(data_dir, MOVED_DATABASE)
  if (existsSync(join(data_dir, DATABASE)) || !existsSync(moved)) return
  throw new DataDirectoryMoved(
    `the books of ${data_dir} were moved into a cluster. Set WEIR_REDIS_URL and WEIR_DATABASE_URL as that cluster has them. ` +
      `To go back to what they were before the move, and lose everything since, rename ${moved} to ${DATABASE}.`,
  )
}

/** Keeps a database whose books were moved, under another name. To be called when nothing has it open. */
export function setAside(data_dir: string): void {
  renameSync(join(data_dir, DATABASE), join(data_dir, MOVED_DATABASE))
}

/** Transactions that somebody waits for: in the ledger already or not, and not applied to limits. One id may be asked for twice at once. */
class WaitingTransactions {
  readonly #counts = new Map<string, number>()

  async during<Result>(id: string, answer: Promise<Result>): Promise<Result> {
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1)
    try {
      return await answer
    } finally {
      const left = (this.#counts.get(id) ?? 1) - 1
      if (left > 0) this.#counts.set(id, left)
      else this.#counts.delete(id)
    }
  }

  ids(): readonly string[] {
    return [...this.#counts.keys()]
  }
}
