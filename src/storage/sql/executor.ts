/** What a database takes and gives. Integers come back as bigint, so that no amount is ever rounded. */
export type SqlValue = string | bigint | null
export type SqlRow = Readonly<Record<string, SqlValue>>
export interface SqlStatement {
  readonly sql: string
  readonly params: readonly (string | number | bigint | null)[]
}

/** How records and ledger reach their database; one per driver. */
export interface SqlExecutor {
  /** Runs statements in one read transaction: all of them see the same state. Resolves with the rows of each. */
  read(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]>
  /** Runs statements in one durable transaction, all or none. Resolves with the rows that each returned. */
  write(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]>
}

/** A bound of time, Unix ms, as a 64-bit column is compared with it: the next whole millisecond. */
export function instantOf(at_ms: number): number {
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(at_ms)))
}

/** A NOT NULL text column. @throws TypeError if it is something else */
export function textOf(row: SqlRow, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new TypeError(`column ${column} is not text`)
  return value
}

/** A NOT NULL integer column. @throws TypeError if it is something else */
export function bigOf(row: SqlRow, column: string): bigint {
  const value = row[column]
  if (typeof value !== 'bigint') throw new TypeError(`column ${column} is not an integer`)
  return value
}

/** A count or time: an integer column within 2^53. @throws TypeError if it is something else */
export function numberOf(row: SqlRow, column: string): number {
  const value = Number(bigOf(row, column))
  if (!Number.isSafeInteger(value)) throw new TypeError(`column ${column} is beyond 2^53`)
  return value
}

/** A row that another one forbids. Names the constraint, never a value. */
export class UniqueViolation extends Error {
  override name = 'UniqueViolation'
}
