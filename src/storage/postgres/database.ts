import { setTimeout as sleep } from 'node:timers/promises'
import { type CustomTypesConfig, Pool, type PoolClient } from 'pg'
import { LedgerUnavailable } from '../cluster-ports.ts'
import type { SqlExecutor, SqlRow, SqlStatement } from '../sql/executor.ts'
import { ConnectionLost, NoAnswer, TransactionConflict, translatedConnecting } from './errors.ts'
import { Session } from './session.ts'

export interface DatabaseOptions {
  readonly url: string
  readonly schema: string
  /** As `pg_stat_activity` names its connections. */
  readonly name: string
  /** Most connections at once; more callers wait, at most {@link CONNECT_TIMEOUT_MS}. */
  readonly connections: number
  readonly statement_timeout_ms: number
  readonly lock_timeout_ms: number
  /**
   * Every statement looks rows up one by one. Without this, plans that were made while tables were small would read them whole when
   * they no longer are.
   */
  readonly looks_up?: boolean
}

/** How long a caller waits for a connection, new or used. */
const CONNECT_TIMEOUT_MS = 5000
/** A server that has not answered so long after its own limit is not there any more. */
const SILENCE_MS = 5000
/** A transaction must not be left open by a process that hangs: others wait for what it has locked. */
const IDLE_IN_TRANSACTION_MS = 30_000
const IDLE_CONNECTION_MS = 30_000
const KEEPALIVE_MS = 10_000
/** The server asks too whether the process is still there: one whose machine is gone would keep its locks for hours otherwise. */
const SERVER_KEEPALIVE = { tcp_keepalives_idle: 10, tcp_keepalives_interval: 5, tcp_keepalives_count: 3 }
/** Runs of a transaction that others are in the way of. */
const MAX_RUNS = 6
const PAUSE_MS = 10

/** Some connections to one database, for work of one kind. */
export class Database implements SqlExecutor {
  readonly #pool: Pool

  constructor(options: DatabaseOptions) {
    this.#pool = new Pool({
      connectionString: options.url,
      application_name: options.name,
      max: options.connections,
      options: settings(options),
      types: INTEGERS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      idleTimeoutMillis: IDLE_CONNECTION_MS,
      query_timeout: options.statement_timeout_ms + SILENCE_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEPALIVE_MS,
    })
    // A connection that nobody has was closed by the server: the pool has dropped it, and whoever comes next gets another.
    this.#pool.on('error', () => undefined)
  }

  /**
   * Lends a connection. It is closed afterwards if it has failed, or may be in the middle of something.
   * @throws LedgerUnavailable if there is none
   */
  async use<Result>(work: (session: Session) => Promise<Result>): Promise<Result> {
    const client = await this.#connect()
    const session = new Session(client)
    const onError = (error: Error): void => session.fail(error)
    client.on('error', onError)
    let broken = true
    try {
      const result = await work(session)
      broken = false
      return result
    } catch (error) {
      broken = error instanceof ConnectionLost || client.getTransactionStatus() !== 'I'
      throw error
    } finally {
      client.removeListener('error', onError)
      client.release(broken || session.failed !== null)
    }
  }

  /**
   * Runs `work` in one transaction, again where others were in its way or the connection broke before it began. Work must change
   * nothing else.
   * @throws LedgerUnavailable also where the outcome is not known
   */
  async transaction<Result>(work: (session: Session) => Promise<Result>): Promise<Result> {
    return await repeated(() => this.use((session) => inTransaction(session, BEGIN, work)))
  }

  /** Runs `work` in one transaction that sees one state and writes nothing. */
  async snapshot<Result>(work: (session: Session) => Promise<Result>): Promise<Result> {
    return await onceMore(() => this.use((session) => inSnapshot(session, work)))
  }

  async read(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]> {
    const [only, ...others] = statements
    if (only === undefined) return []
    if (others.length === 0) return [await onceMore(() => this.use((session) => session.statement(only)))]
    return await this.snapshot((session) => eachIn(session, statements))
  }

  async write(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]> {
    return await this.transaction((session) => eachIn(session, statements))
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }

  async #connect(): Promise<PoolClient> {
    try {
      return await this.#pool.connect()
    } catch (error) {
      throw translatedConnecting(error)
    }
  }
}

export const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED'
const BEGIN_SNAPSHOT = 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY'

/** Runs `work` where it sees one state, on a connection that somebody has. */
export async function inSnapshot<Result>(session: Session, work: (session: Session) => Promise<Result>): Promise<Result> {
  return await inTransaction(session, BEGIN_SNAPSHOT, work)
}

/** Nothing was sent but the beginning. */
class NotBegun extends ConnectionLost {}

/** Runs `work` between a beginning and a commit on a connection that somebody has. */
export async function inTransaction<Result>(session: Session, begin: string, work: (session: Session) => Promise<Result>): Promise<Result> {
  try {
    await session.run(begin)
  } catch (error) {
    throw error instanceof ConnectionLost ? new NotBegun(error.message) : error
  }
  let result: Result
  try {
    result = await work(session)
  } catch (error) {
    if (!(error instanceof ConnectionLost)) await rollBack(session)
    throw error
  }
  await session.run('COMMIT')
  return result
}

/** What went wrong counts; a connection that cannot roll back is closed, and the server does it. */
async function rollBack(session: Session): Promise<void> {
  await session.run('ROLLBACK').catch((error: unknown) => session.fail(error instanceof Error ? error : new Error(String(error))))
}

async function eachIn(session: Session, statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]> {
  const results: (readonly SqlRow[])[] = []
  for (const statement of statements) results.push(await session.statement(statement))
  return results
}

/** @throws LedgerUnavailable where others were in the way each time */
export async function repeated<Result>(transaction: () => Promise<Result>): Promise<Result> {
  for (let run = 1; ; run += 1) {
    try {
      return await transaction()
    } catch (error) {
      const again = error instanceof TransactionConflict || (error instanceof NotBegun && run === 1)
      if (!again) throw error
      if (run >= MAX_RUNS) throw new LedgerUnavailable(`other transactions were in the way ${MAX_RUNS} times`)
      // Longer each time: whoever was in the way is done by then.
      await sleep(PAUSE_MS * run)
    }
  }
}

/** Reads change nothing: one whose connection broke is read again on another. */
async function onceMore<Result>(reading: () => Promise<Result>): Promise<Result> {
  try {
    return await reading()
  } catch (error) {
    if (!(error instanceof ConnectionLost) || error instanceof NoAnswer) throw error
    return await reading()
  }
}

/** Of the connection itself, so that no transaction has to set them. */
function settings({ schema, statement_timeout_ms, lock_timeout_ms, looks_up = false }: DatabaseOptions): string {
  const values = {
    search_path: schema,
    statement_timeout: statement_timeout_ms,
    lock_timeout: lock_timeout_ms,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
    ...SERVER_KEEPALIVE,
    // Compiling a plan takes longer than what is asked here.
    jit: 'off',
    ...(looks_up ? { enable_seqscan: 'off', enable_hashjoin: 'off', enable_mergejoin: 'off' } : {}),
  }
  return Object.entries(values)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ')
}

const [BOOL, INT8, INT2, INT4, OID, NUMERIC] = [16, 20, 21, 23, 26, 1700]
const integer = (text: string): bigint => BigInt(text)

/** Every integer becomes a bigint, sums (numeric) too; the rest is text. @throws SyntaxError for a fraction */
const PARSERS: ReadonlyMap<number, (text: string) => bigint> = new Map([
  [BOOL, (text) => (text === 't' ? 1n : 0n)],
  [INT8, integer],
  [INT2, integer],
  [INT4, integer],
  [OID, integer],
  [NUMERIC, integer],
])

const INTEGERS: CustomTypesConfig = {
  getTypeParser: (oid: number) => PARSERS.get(oid) ?? ((text: string) => text),
}
