import { numberOf } from '../sql/executor.ts'
import type { Database } from './database.ts'
import { LockTaken, underLock } from './buckets.ts'
import { lockKey, PARTITIONS } from './locks.ts'
import { partitionOf, type Partitions } from './partitions.ts'

/** Rows of side tables deleted in one transaction. */
const DELETE_SLICE = 5000

/** Takes away what is kept of days whose events are in a closed archive. */
export class Retention {
  readonly #database: Database
  readonly #partitions: Partitions
  readonly #key: bigint

  /** @param database whose statements may take long: dropping a partition waits for whoever reads it */
  constructor(database: Database, partitions: Partitions, schema: string) {
    this.#database = database
    this.#partitions = partitions
    this.#key = lockKey(schema, PARTITIONS)
  }

  /** Deletes some of what is kept beside the events of closed days. @returns whether there is more */
  async deleteSome(): Promise<boolean> {
    const { count } = await this.#database.transaction((session) => session.run(DELETE_SECONDS))
    return count === DELETE_SLICE
  }

  /**
   * Drops a day's partition: detached while everybody reads and posts on, which waits for those who have read it, then dropped.
   * @returns false if another process is at it
   * @throws LedgerUnavailable if a reader kept it for too long; a later call goes on
   */
  async drop(day: string): Promise<boolean> {
    const table = partitionOf(day)
    try {
      await underLock(this.#database, this.#key, 'try', async (session) => {
        const { rows } = await session.run(STANDING, [table])
        const pending = rows[0] === undefined ? null : numberOf(rows[0], 'pending')
        if (pending !== null)
          await session.run(`ALTER TABLE events DETACH PARTITION ${table} ${pending === 1 ? 'FINALIZE' : 'CONCURRENTLY'}`)
        await session.run(`DROP TABLE IF EXISTS ${table}`)
      })
    } catch (error) {
      if (error instanceof LockTaken) return false
      throw error
    }
    this.#partitions.forget()
    return true
  }
}

const STANDING = "SELECT inhdetachpending AS pending FROM pg_inherits WHERE inhparent = 'events'::regclass AND inhrelid = to_regclass($1)"

const DELETE_SECONDS =
  'DELETE FROM second_revisions WHERE ctid = ANY (ARRAY(SELECT ctid FROM second_revisions AS s WHERE EXISTS (SELECT 1 FROM archives AS a ' +
  `WHERE a.day = s.day AND a.state = 'closed') LIMIT ${DELETE_SLICE}))`
