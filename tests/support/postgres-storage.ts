import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { decodeEvent } from '../../src/money/event-json.ts'
import { bucketOf, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { Journal } from '../../src/storage/journal/client.ts'
import { createMemoryChanges } from '../../src/storage/memory/changes.ts'
import { createClosing } from '../../src/storage/memory/closing.ts'
import { MemoryCredits } from '../../src/storage/memory/credits.ts'
import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import { createTurns } from '../../src/storage/memory/turns.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { PostResult } from '../../src/storage/ports.ts'
import { openPostgres, type PostgresBooks } from '../../src/storage/postgres/open.ts'
import type { PostgresServer } from './postgres-server.ts'

const PUMP_ROWS = 500
const KEEP_DAYS = 7

/** Storage whose journal is in a directory and whose books are in PostgreSQL. */
export interface PostgresStorage extends Storage {
  readonly ledger: SharedLedger
  readonly books: PostgresBooks
  readonly journal: Journal
}

export interface PostgresStorageOptions {
  readonly data_dir: string
  readonly schema: string
  readonly clock?: Clock
  readonly database?: string
}

/**
 * Opens a journal that posts nothing by itself and books in a schema. `ledger.post()` posts what the journal has closed, as if no limits
 * had charged it; closing posts what is left.
 */
export async function openPostgresStorage(server: PostgresServer, options: PostgresStorageOptions): Promise<PostgresStorage> {
  const { data_dir, schema, clock = systemClock() } = options
  const rest = { clock, random: randomBytes, commit_timeout_ms: 5000, keep_days: KEEP_DAYS, posting: 'elsewhere' } as const
  const journal = await Journal.start({ data_dir, ...rest, on_trouble: (error) => console.warn(error) })
  const pump = new Pump(journal)
  const books = await openPostgres({ url: await server.url(options.database), schema, clock, forward: () => pump.run(books.ledger) })
  const { ledger, records } = books
  const limits = createMemoryLimits({ clock })
  const turns = createTurns()
  return {
    closing: createClosing({ limits, log: journal, on_trouble: (error) => console.warn(error) }),
    credits: new MemoryCredits({ limits, records, ledger, turns }),
    turns,
    books,
    journal,
    limits,
    log: journal,
    ledger,
    records,
    changes: createMemoryChanges(),
    node: journal.node,
    archive: books.archiveIn(join(data_dir, 'archive'), KEEP_DAYS),
    rebuilder: books.rebuilder,
    cut: () => Promise.reject(new Error('a cut of shared limits is taken elsewhere')),
    close: async () => {
      await pump.run(ledger)
      await books.close()
      await journal.shutdown()
    },
  }
}

/** Posts the journal's events in the order of their rows, one run at a time, and says how far the journal has come. */
class Pump {
  readonly #journal: Journal
  #row = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(journal: Journal) {
    this.#journal = journal
  }

  run(ledger: SharedLedger): Promise<PostResult> {
    const run = this.#last.then(() => this.#postAll(ledger))
    this.#last = run.catch(() => undefined)
    return run
  }

  async #postAll(ledger: SharedLedger): Promise<PostResult> {
    let [events, transactions] = [0, 0]
    for (;;) {
      const rows = await this.#journal.ask<'events_after'>({ what: 'events_after', row: this.#row, limit: PUMP_ROWS })
      const last = rows.at(-1)
      if (last === undefined) break
      const of_bucket = Map.groupBy(rows, ({ body }) => bucketOf(decodeEvent(body).tenant))
      const batches = [...of_bucket].map(([bucket, own]) => ({
        bucket,
        source: `${this.#journal.node}-${own[0]?.row}-${own.at(-1)?.row}`,
        events: own.map(({ body }) => ({ body, charged: null })),
      }))
      for (const { states } of await ledger.postBatches(batches)) {
        const posted = states.filter((state) => state === 'posted').length
        events += posted
        transactions += posted > 0 ? 1 : 0
      }
      this.#row = last.row
    }
    const { node, event_seq } = await this.#journal.mark()
    await ledger.beat({ node, roles: ['gateway'], version: 'test', last_seq: event_seq, unposted: 0, stopped: false })
    return { events, transactions }
  }
}
