import { atEnd } from './cleanup.ts'
import { launchPostgres, noPostgres, type PostgresServer, type PostgresSettings } from './postgres-server.ts'

export { noPostgres, type PostgresServer }

if (noPostgres !== null) console.warn(`${noPostgres}: tests that need PostgreSQL are skipped`)

/** Starts a server for the current file of tests, or the current test; it ends with that, also when that fails. */
export async function startPostgres(settings: PostgresSettings = {}): Promise<PostgresServer> {
  const server = await launchPostgres(settings)
  atEnd(() => server.end())
  return server
}
