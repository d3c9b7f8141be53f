import type { Clock } from '../../base/clock.ts'
import type { EventArchive, Rebuilder } from '../books.ts'
import type { SharedLedger } from '../cluster-ports.ts'
import type { PostResult } from '../ports.ts'
import type { Records } from '../records.ts'
import { SqlArchive } from '../sql/archive.ts'
import { SchemaError } from '../sql/migrate.ts'
import { SqlRecords } from '../sql/records.ts'
import { PostgresArchiveDriver } from './archive.ts'
import { Database } from './database.ts'
import { POSTGRES } from './dialect.ts'
import { type Databases, PostgresLedger } from './ledger.ts'
import { migrate } from './migrate.ts'
import { MoveTarget, unfinishedMove } from './move.ts'
import { Partitions } from './partitions.ts'
import { PostgresRebuilder } from './rebuild.ts'
import { Retention } from './retention.ts'
import { Rollups } from './rollups.ts'

/**
 * Most connections of each kind that one process has at once: together 17, of which a gateway alone uses 6. Those that nobody has used
 * for a while are closed. A server allows 100 unless it is told otherwise.
 */
export interface Connections {
  readonly short: number
  readonly posting: number
  readonly searching: number
  readonly long: number
  readonly turns: number
  readonly buckets: number
}
export const CONNECTIONS: Connections = { short: 4, posting: 2, searching: 2, long: 2, turns: 3, buckets: 4 }

/** How long a statement may take: those that somebody waits for, those of searches, and those of audits, reports and upkeep. */
const [SHORT_MS, SEARCH_MS, LONG_MS] = [10_000, 60_000, 30 * 60_000]
/** How long anybody waits for another's lock, unless it is said otherwise. */
const LOCK_MS = 8000
const DEFAULT_SCHEMA = 'weir'

export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`; its parameters are those of node-postgres (`sslmode` and so on). */
  readonly url: string
  /** Where its tables are; made if missing. */
  readonly schema?: string
  readonly clock: Clock
  readonly connections?: Partial<Connections>
  /** How long anybody waits for another's lock: a bucket's, a turn, a row. */
  readonly lock_timeout_ms?: number
  /** Whether books are to be moved here; nobody else may use them until they are all here. */
  readonly moving?: boolean
  /** Has everything posted that usage logs have closed by now, for `Ledger.post`; without it that posts nothing. */
  readonly forward?: () => Promise<PostResult>
}

/** The books that processes share. */
export interface PostgresBooks {
  readonly records: Records
  readonly ledger: SharedLedger
  /** Recomputes what is derived, beside running traffic. */
  readonly rebuilder: Rebuilder
  /**
   * Events of closed days as files in a directory, which every process that archives must share.
   * @param keep_days how long journals keep rows that were posted
   */
  archiveIn(directory: string, keep_days: number): EventArchive
  /** Takes an embedded installation's books in. */
  readonly move_target: MoveTarget
  /** Waits for what is under way, and closes every connection. */
  close(): Promise<void>
}

/**
 * Opens the books in a PostgreSQL database, and brings their schema to this release's. Several processes may do so at once.
 *
 * @throws SchemaError if the schema is of a newer release, or the server cannot have it
 * @throws LedgerUnavailable
 */
export async function openPostgres(options: PostgresOptions): Promise<PostgresBooks> {
  const { clock, schema = DEFAULT_SCHEMA } = options
  const url = checkedUrl(options.url)
  await migrate(url, schema, clock.now_ms())
  const lock_timeout_ms = options.lock_timeout_ms ?? LOCK_MS
  const databases = connect(url, schema, { ...CONNECTIONS, ...options.connections }, lock_timeout_ms)
  const { short, long, turns } = databases
  if (options.moving !== true) await refuseUnfinished(databases)
  const partitions = new Partitions(short, schema)
  const rollups = new Rollups(long, schema)
  const retention = new Retention(long, partitions, schema)
  const forward = options.forward ?? (() => Promise.resolve({ events: 0, transactions: 0 }))
  const connection = { url, schema, statement_timeout_ms: LONG_MS, lock_timeout_ms }
  return {
    records: new SqlRecords(short, POSTGRES),
    ledger: new PostgresLedger({ databases, schema, partitions, rollups, retention, forward }),
    rebuilder: new PostgresRebuilder({ database: long, rollups, partitions, schema, clock }),
    archiveIn: (directory, keep_days) => {
      const driver = new PostgresArchiveDriver({ database: long, locks: turns, connection, retention, clock, keep_days })
      return new SqlArchive({ directory, driver, clock })
    },
    move_target: new MoveTarget(long, partitions),
    close: () => closeAll(databases),
  }
}

async function closeAll(databases: Databases): Promise<void> {
  await Promise.all(Object.values(databases).map((database: Database) => database.close()))
}

/** @throws SchemaError while an installation is being moved here, with everything closed */
async function refuseUnfinished(databases: Databases): Promise<void> {
  try {
    if ((await unfinishedMove(databases.short)) === null) return
  } catch (error) {
    await closeAll(databases)
    throw error
  }
  await closeAll(databases)
  throw new SchemaError(
    'an installation is being moved into this database and not everything is here: run "weir move" again until it says so',
  )
}

function connect(url: string, schema: string, connections: Connections, lock_timeout_ms: number): Databases {
  const database = (kind: keyof Connections, statement_timeout_ms: number): Database => {
    const looks_up = kind === 'posting' || kind === 'buckets'
    return new Database({
      url,
      schema,
      name: `weir ${kind}`,
      connections: connections[kind],
      statement_timeout_ms,
      lock_timeout_ms,
      looks_up,
    })
  }
  return {
    short: database('short', SHORT_MS),
    posting: database('posting', SHORT_MS),
    searching: database('searching', SEARCH_MS),
    long: database('long', LONG_MS),
    turns: database('turns', SHORT_MS),
    buckets: database('buckets', SHORT_MS),
  }
}

/** @throws TypeError that does not quote it, since it holds a password */
function checkedUrl(url: string): string {
  if (!URL.canParse(url) || !/^postgres(ql)?:$/.test(new URL(url).protocol)) {
    throw new TypeError('the URL of the database is not one: write postgres://user:password@host:port/database')
  }
  return url
}
