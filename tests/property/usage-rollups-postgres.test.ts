import { describe } from 'vitest'
import { noPostgres, startPostgres, type PostgresServer } from '../support/postgres.ts'
import { postgresRollupSubject } from '../support/postgres-rollups.ts'
import { usageRollups } from './usage-rollups.ts'

describe.skipIf(noPostgres !== null)('with a server', () => {
  let server: Promise<PostgresServer> | null = null
  let schemas = 0
  usageRollups(
    'PostgreSQL',
    async (slice) => {
      server ??= startPostgres()
      schemas += 1
      return await postgresRollupSubject(await server, `rollups_${schemas}`, slice)
    },
    50,
  )
})
