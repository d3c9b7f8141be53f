import type { Database } from './database.ts'
import { LockTaken, underLock } from './buckets.ts'
import { lockKey, turnLock } from './locks.ts'
import type { Outbox } from './outbox.ts'
import type { Partitions } from './partitions.ts'
import type { Retention } from './retention.ts'
import type { Rollups } from './rollups.ts'

/** What upkeep is made of. */
export interface Upkeep {
  readonly partitions: Partitions
  readonly rollups: Rollups
  readonly outbox: Outbox
  readonly retention: Retention
  readonly locks: Database
  readonly schema: string
}

/**
 * A slice of what is to be done now and then, by one process at a time.
 * @returns whether there is more; false where another process is at it
 */
export async function upkeep(now_ms: number, { partitions, rollups, outbox, retention, locks, schema }: Upkeep): Promise<boolean> {
  try {
    return await underLock(locks, lockKey(schema, turnLock('upkeep')), 'try', async () => {
      await partitions.ahead(now_ms)
      // Each slice is small, so that none of them keeps the others waiting for long.
      const more = [
        await rollups.deriveSome(now_ms),
        await rollups.deleteSome(now_ms),
        await outbox.deleteSome(now_ms),
        await retention.deleteSome(),
      ]
      return more.includes(true)
    })
  } catch (error) {
    if (error instanceof LockTaken) return false
    throw error
  }
}
