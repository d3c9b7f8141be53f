import { createHash } from 'node:crypto'

/**
 * Names of advisory locks, which all databases of a schema's processes share. A lock that a transaction takes and one that a session
 * takes by the same name are the same lock, and who has it may take it again.
 *
 * Whoever takes several takes them in this order: {@link bucketLock}, buckets ascending; {@link CLOSING}; then rows (numbers, balances
 * by account, outbox numbers by tenant).
 */
export function lockKey(schema: string, name: string): bigint {
  return createHash('sha256').update(`weir\n${schema}\n${name}`).digest().readBigInt64BE(0)
}

/** Posting events of a bucket. */
export function bucketLock(bucket: number): string {
  return `bucket ${bucket}`
}

/** Shared by postings; alone by what ends details that postings rely on: a day's rows, minutes past their time. */
export const CLOSING = 'closing'
/** Making and dropping partitions. */
export const PARTITIONS = 'partitions'
export const MIGRATIONS = 'migrations'
/** Work of a name that one process does at a time. */
export function turnLock(name: string): string {
  return `turn ${name}`
}
