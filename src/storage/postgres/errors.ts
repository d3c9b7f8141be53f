import { UniqueViolation } from '../sql/executor.ts'
import { LedgerUnavailable } from '../cluster-ports.ts'

/** The connection broke. What was sent may have been done, or may still be. */
export class ConnectionLost extends LedgerUnavailable {
  override name = 'ConnectionLost'
}

/** The server said nothing for longer than a statement may take. Asking again would only wait as long again. */
export class NoAnswer extends ConnectionLost {
  override name = 'NoAnswer'
}

/** Two transactions were in each other's way; nothing of this one stays, and it may be run again. */
export class TransactionConflict extends Error {
  override name = 'TransactionConflict'
}

/** The day of a row has no partition (any more). */
export class PartitionMissing extends Error {
  override name = 'PartitionMissing'
}

/** What PostgreSQL says of an error; see its Appendix A. Its `detail` and `where` may hold values of rows, so nothing here reads them. */
interface ServerError {
  readonly code: string
  readonly message: string
  readonly constraint: string | undefined
}

/** Errors of a server that cannot serve now: whole classes, and single codes of others. */
const UNAVAILABLE: ReadonlyArray<readonly [code: string, what: string]> = [
  ['57014', 'PostgreSQL did not finish a statement in time'],
  ['55P03', 'another process held a lock in PostgreSQL for too long'],
  ['25P03', 'PostgreSQL ended a transaction that was idle'],
  ['25006', 'PostgreSQL only serves reads'],
  ['57P0', 'PostgreSQL is shutting down or starting'],
  ['28', 'PostgreSQL refused the user or the password'],
  ['3D000', 'PostgreSQL has no such database'],
  ['53300', 'PostgreSQL has no connection left'],
  ['53', 'PostgreSQL has no room left'],
  ['58', 'PostgreSQL met an error of its system'],
  ['08', 'the connection to PostgreSQL failed'],
]
/** After these the connection is gone. */
const ENDS_CONNECTION = /^(57P0|08|53300|25P03|28|3D000)/
const CONFLICTS: ReadonlySet<string> = new Set(['40001', '40P01'])
const UNIQUE_VIOLATION = '23505'
const OUT_OF_RANGE = '22003'
/** Nothing else here has conditions that a row can fail. */
const CHECK_VIOLATION = '23514'

/**
 * An error of the driver as the rest of the code sees it. Names codes and constraints, never a value, a password or an address.
 * Errors that are none of the driver's stay what they are.
 */
export function translated(error: unknown): Error {
  if (!(error instanceof Error)) return new Error('PostgreSQL failed without an error')
  const server = serverError(error)
  if (server !== null) return ofServer(server)
  const code = codeOf(error)
  return code !== null && /^E[A-Z]+$/.test(code) ? cannotReach(code) : ofDriver(error)
}

/** The same for what kept a connection from being made: whatever it was, there is none. */
export function translatedConnecting(error: unknown): Error {
  const known = translated(error)
  return known instanceof LedgerUnavailable ? known : cannotReach((error instanceof Error ? codeOf(error) : null) ?? known.name)
}

function cannotReach(code: string): ConnectionLost {
  return new ConnectionLost(`PostgreSQL cannot be reached (${code})`)
}

function codeOf(error: Error): string | null {
  return 'code' in error && typeof error.code === 'string' ? error.code : null
}

function serverError(error: Error): ServerError | null {
  if (!('severity' in error) || !('code' in error) || typeof error.code !== 'string') return null
  const constraint = 'constraint' in error && typeof error.constraint === 'string' ? error.constraint : undefined
  return { code: error.code, message: error.message, constraint }
}

function ofServer({ code, message, constraint }: ServerError): Error {
  const [, what] = UNAVAILABLE.find(([prefix]) => code.startsWith(prefix)) ?? []
  if (what !== undefined) return new (ENDS_CONNECTION.test(code) ? ConnectionLost : LedgerUnavailable)(`${what} (${code})`)
  if (CONFLICTS.has(code)) return new TransactionConflict(`transactions were in each other's way (${code})`)
  if (code === UNIQUE_VIOLATION) return new UniqueViolation(`UNIQUE constraint ${constraint ?? ''} forbids a row`)
  if (code === CHECK_VIOLATION) return new PartitionMissing('a row is of a day without a partition')
  if (code === OUT_OF_RANGE) return new RangeError('integer overflow: an amount left 64 bits')
  return new Error(`PostgreSQL refused a statement (${code}): ${message}`)
}

/** What the driver says in words of its own when there is no connection, or no answer. */
const NO_CONNECTION =
  /^(Connection terminated|timeout expired|timeout exceeded|Query read timeout|Client (has|was)|The server does not support SSL|Cannot use a pool)/

function ofDriver(error: Error): Error {
  if (!NO_CONNECTION.test(error.message)) return error
  if (error.message.startsWith('timeout exceeded')) return new LedgerUnavailable('no connection to PostgreSQL was free in time')
  if (error.message.startsWith('Query read')) return new NoAnswer('PostgreSQL did not answer in time')
  return new ConnectionLost(`the connection to PostgreSQL failed: ${error.message}`)
}
