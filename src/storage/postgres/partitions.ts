import { dayOf } from '../../base/clock.ts'
import { assert } from '../../base/assert.ts'
import { DAY_MS } from '../sql/rollup-batch.ts'
import type { Database } from './database.ts'
import { lockKey, PARTITIONS } from './locks.ts'

/** Partitions made ahead, so that a day's first posting need not. */
const AHEAD_DAYS = 3
/** Days that are known to have their partition; more of them than there are open days. */
const MAX_KNOWN = 2000

/** The partition of a day's events. @throws InvariantError for what is no date */
export function partitionOf(day: string): string {
  assert(/^\d{4}-\d{2}-\d{2}$/.test(day) && !Number.isNaN(Date.parse(day)), 'a day that is no date')
  return `events_${day.replaceAll('-', '_')}`
}

/** Makes partitions where they are missing. Archived days have none. */
export class Partitions {
  readonly #database: Database
  readonly #key: bigint
  readonly #known = new Set<string>()

  constructor(database: Database, schema: string) {
    this.#database = database
    this.#key = lockKey(schema, PARTITIONS)
  }

  async ensure(days: Iterable<string>): Promise<void> {
    for (const day of new Set(days)) if (!this.#known.has(day)) await this.#make(day)
  }

  /** Those that posting will need soon. */
  async ahead(now_ms: number): Promise<void> {
    await this.ensure(Array.from({ length: AHEAD_DAYS + 1 }, (_, index) => dayOf(now_ms + index * DAY_MS)))
  }

  /** Something was dropped. */
  forget(): void {
    this.#known.clear()
  }

  /** Attaching a table blocks neither readers nor posters, as making it a partition at once would. */
  async #make(day: string): Promise<void> {
    const table = partitionOf(day)
    const made = await this.#database.transaction(async (session) => {
      await session.run('SELECT pg_advisory_xact_lock($1)', [this.#key])
      const { rows } = await session.run(STANDING, [table, day])
      if (rows.length > 0) return rows[0]?.['archived'] !== 1n
      await session.run(`CREATE TABLE IF NOT EXISTS ${table} (LIKE events INCLUDING ALL)`)
      await session.run(`ALTER TABLE events ATTACH PARTITION ${table} FOR VALUES IN ('${day}')`)
      return true
    })
    if (!made) return
    if (this.#known.size >= MAX_KNOWN) this.#known.clear()
    this.#known.add(day)
  }
}

/** A row if the day has its partition, or is archived and must not have one. */
const STANDING =
  "SELECT 0 AS archived FROM pg_inherits WHERE inhparent = 'events'::regclass AND inhrelid = to_regclass($1) AND NOT inhdetachpending " +
  'UNION ALL SELECT 1 FROM archives WHERE day = $2'
