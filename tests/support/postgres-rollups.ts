import { systemClock } from '../../src/base/clock.ts'
import { encodeUnnumbered, numberEvent } from '../../src/money/event-json.ts'
import { bucketOf } from '../../src/storage/cluster-ports.ts'
import { Database } from '../../src/storage/postgres/database.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { Rollups } from '../../src/storage/postgres/rollups.ts'
import type { PostgresServer } from './postgres-server.ts'
import type { RollupSubject } from './rollups.ts'

/** On PostgreSQL. @param slice hours or days of one slice */
export async function postgresRollupSubject(server: PostgresServer, schema: string, slice: number): Promise<RollupSubject> {
  const url = await server.url()
  const { ledger, close } = await openPostgres({ url, schema, clock: systemClock() })
  const timeouts = { statement_timeout_ms: 60_000, lock_timeout_ms: 8000 }
  const database = new Database({ url, schema, name: 'test', connections: 1, ...timeouts })
  const rollups = new Rollups(database, schema, slice)
  let seq = 0
  return {
    ledger,
    post: async (events) => {
      const numbered = events.map((event) => {
        seq += 1
        return { tenant: event.tenant, body: numberEvent(encodeUnnumbered(event), 'n-test', seq), charged: null }
      })
      const batches = [...Map.groupBy(numbered, ({ tenant }) => bucketOf(tenant))].map(([bucket, own]) => ({
        bucket,
        source: `test-${seq}`,
        events: own,
      }))
      await ledger.postBatches(batches)
    },
    deriveSome: (now_ms) => rollups.deriveSome(now_ms),
    deleteSome: (now_ms) => rollups.deleteSome(now_ms),
    count: async (table) => {
      const [rows] = await database.read([{ sql: `SELECT COUNT(*) AS count FROM ${table}`, params: [] }])
      return Number(rows?.[0]?.['count'])
    },
    end: async () => {
      await database.close()
      await close()
    },
  }
}
