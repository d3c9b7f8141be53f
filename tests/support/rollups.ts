import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { encodeUnnumbered } from '../../src/money/event-json.ts'
import { JournalRows } from '../../src/storage/journal/rows.ts'
import type { ClosingEvent, Ledger } from '../../src/storage/ports.ts'
import type { SqlRow } from '../../src/storage/sql/executor.ts'
import { SqlLedger } from '../../src/storage/sql/ledger.ts'
import { migrate } from '../../src/storage/sql/migrate.ts'
import { Poster } from '../../src/storage/sql/post.ts'
import { Rollups } from '../../src/storage/sql/rollups.ts'
import { temporaryDirectory } from './storage.ts'

/** A ledger of which a test decides when rollups are derived. */
export interface RollupSubject {
  readonly ledger: Pick<Ledger, 'usage'>
  post(events: readonly ClosingEvent[]): Promise<void>
  /** One slice. @returns whether there is more */
  deriveSome(now_ms: number): Promise<boolean>
  deleteSome(now_ms: number): Promise<boolean>
  /** Rows of a table, perhaps with a condition. */
  count(table: string): Promise<number>
  end(): Promise<void>
}

/**
 * On SQLite, written in this thread.
 * @param slice_rows rows of one slice of derivation: few, so that slices are interrupted
 */
export async function rollupSubject(slice_rows: number): Promise<RollupSubject> {
  const directory = temporaryDirectory()
  const path = join(directory.path, 'weir.db')
  const database = new DatabaseSync(path)
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF')
  migrate(database, path, 0)
  const rows = new JournalRows(database, 'n-test')
  const rollups = new Rollups(database, slice_rows)
  const poster = new Poster(database, rows, rollups)
  const executor = {
    read: (statements: readonly { readonly sql: string; readonly params: readonly (string | number | bigint | null)[] }[]) =>
      Promise.resolve(
        statements.map(({ sql, params }) => {
          const statement = database.prepare(sql)
          statement.setReadBigInts(true)
          return statement.all(...params).map((row) => ({ ...row }) as SqlRow)
        }),
      ),
    write: () => Promise.reject(new Error('nothing is written through this executor')),
  }
  const ledger = new SqlLedger(executor, {
    post: () => Promise.reject(new Error('post through the subject')),
    transact: () => Promise.reject(new Error('transact through the subject')),
  })
  const post = async (events: readonly ClosingEvent[]): Promise<void> => {
    rows.commit([{ at: 0, rows: events.map((event) => ['U', event.id, encodeUnnumbered(event), event.revision, event.day] as const) }])
    while (poster.postSome(200).rows > 0);
  }
  return {
    ledger,
    post,
    deriveSome: async (now_ms) => rollups.deriveSome(now_ms),
    deleteSome: async (now_ms) => rollups.deleteSome(now_ms),
    count: async (table) => Number(database.prepare(`SELECT COUNT(*) AS count FROM ${table}`).get()?.['count']),
    end: async () => {
      database.close()
      directory.remove()
    },
  }
}
