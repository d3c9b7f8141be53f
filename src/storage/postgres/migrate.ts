import { checkKnown, type Migration, readMigrations, SchemaError } from '../sql/migrate.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import { BEGIN, Database, inTransaction } from './database.ts'
import { lockKey, MIGRATIONS } from './locks.ts'
import type { Session } from './session.ts'

const DIRECTORY = new URL('./schema/migrations/', import.meta.url)
const OLDEST_SERVER = 15
/** Another process may be migrating; a migration may have much to do. */
const TIMEOUT_MS = 30 * 60_000

/** Names that need no quotes, and that no setting of a connection reads as something else. */
const SCHEMA_NAME = /^[a-z_][a-z0-9_]{0,62}$/

/**
 * Brings a schema of a database to this release's: numbered files in order, each in one transaction with its record. One process
 * migrates at a time; the others wait for it.
 *
 * @throws SchemaError if the schema is of a newer release, a migration that ran was edited since, or the server cannot have it
 * @throws LedgerUnavailable
 */
export async function migrate(url: string, schema: string, at_ms: number, directory: URL = DIRECTORY): Promise<void> {
  if (!SCHEMA_NAME.test(schema)) throw new SchemaError('a schema is named by small letters, digits and underscores, at most 63')
  const migrations = readMigrations(directory)
  const timeouts = { statement_timeout_ms: TIMEOUT_MS, lock_timeout_ms: TIMEOUT_MS }
  const database = new Database({ url, schema, name: 'weir migrations', connections: 1, ...timeouts })
  try {
    await database.use(async (session) => {
      await checkServer(session)
      // Freed with the connection, which is closed below.
      await session.run('SELECT pg_advisory_lock($1)', [lockKey(schema, MIGRATIONS)])
      await runMissing(session, schema, at_ms, migrations)
    })
  } finally {
    await database.close()
  }
}

async function checkServer(session: Session): Promise<void> {
  const sql = "SELECT current_setting('server_version_num')::integer / 10000 AS major, current_setting('server_encoding') AS encoding"
  const [row = {}] = (await session.run(sql)).rows
  const [major, encoding] = [numberOf(row, 'major'), textOf(row, 'encoding')]
  if (major < OLDEST_SERVER) throw new SchemaError(`the database is PostgreSQL ${major}; weir needs ${OLDEST_SERVER} or a later one`)
  if (encoding !== 'UTF8') throw new SchemaError(`the database is encoded as ${encoding}; weir needs one that was created with UTF8`)
}

async function runMissing(session: Session, schema: string, at_ms: number, migrations: readonly Migration[]): Promise<void> {
  // Asked first, so that a user who may not create schemas can use one that is there.
  const { rows: schemas } = await session.run('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schema])
  if (schemas.length === 0) await session.run(`CREATE SCHEMA ${schema}`)
  await session.run('CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, checksum text NOT NULL, at bigint NOT NULL)')
  const { rows } = await session.run('SELECT number, checksum FROM migrations')
  const done = new Map(rows.map((row) => [numberOf(row, 'number'), textOf(row, 'checksum')]))
  checkKnown(done, migrations, 'an older schema is only in your backups')
  for (const { number, sql, checksum } of migrations.filter((migration) => !done.has(migration.number))) {
    await inTransaction(session, BEGIN, async () => {
      await session.run(sql)
      await session.run('INSERT INTO migrations (number, checksum, at) VALUES ($1, $2, $3)', [number, checksum, at_ms])
    })
  }
}
