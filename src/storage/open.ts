import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import { Journal } from './journal/client.ts'
import { startReader } from './journal/reader.ts'
import { createMemoryChanges } from './memory/changes.ts'
import { createMemoryLimits, type MemoryLimits } from './memory/limits.ts'
import type { Changes, Ledger, Records, UsageLog } from './ports.ts'
import type { SqlExecutor } from './sql/executor.ts'
import { SqlLedger } from './sql/ledger.ts'
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

/** Every port of the embedded mode. `limits` are empty: fill them with `rebuildLimits` once the journal is posted. */
export interface Storage {
  readonly limits: MemoryLimits
  readonly log: UsageLog
  readonly ledger: Ledger
  readonly records: Records
  readonly changes: Changes
  /** Name of this data directory's journal, as on its events. */
  readonly node: string
  /** Commits and posts what is left, checkpoints, and frees the data directory. */
  close(): Promise<void>
}

/**
 * Opens a data directory (made if missing) and takes ownership of it. SQLite runs in two threads: one writes journal, ledger
 * and records, one reads; the main thread never waits for a disk.
 *
 * @throws DataDirectoryInUse if another process owns it
 * @throws SchemaError if its database is of a newer release
 * @throws JournalUnavailable if it cannot be opened
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<Storage> {
  const { data_dir, clock, commit_timeout_ms, keep_days, random = randomBytes } = options
  const on_trouble = options.on_trouble ?? ((error) => process.emitWarning(error))
  const journal = await Journal.start({ data_dir, clock, commit_timeout_ms, keep_days, random, on_trouble })
  const reader = startReader(join(data_dir, 'weir.db'))
  const executor: SqlExecutor = {
    read: (statements) => reader.read(statements),
    write: (statements) => journal.ask<'write'>({ what: 'write', statements }),
  }
  const ledger = new SqlLedger(executor, {
    post: () => journal.ask<'post'>({ what: 'post' }),
    transact: (transaction) => journal.ask<'transact'>({ what: 'transact', transaction }),
  })
  return {
    limits: createMemoryLimits({ clock }),
    log: journal,
    ledger,
    records: new SqlRecords(executor),
    changes: createMemoryChanges(),
    node: journal.node,
    close: async () => {
      await reader.close()
      await journal.shutdown()
    },
  }
}
