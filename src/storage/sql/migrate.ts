import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'

const MIGRATIONS = new URL('./schema/migrations/', import.meta.url)

/** The database's schema is not one that this release may use. Says what to do. */
export class SchemaError extends Error {
  override name = 'SchemaError'
}

/** One numbered file of a schema. */
export interface Migration {
  readonly number: number
  readonly sql: string
  readonly checksum: string
}

/**
 * Brings a SQLite file to this release's schema: numbered files in order, each in one transaction with its record.
 * A file that holds an older schema is copied to `<path>.before-NNN` first, NNN being the first migration to run.
 *
 * @param path the database's file, for the name of the copy
 * @throws SchemaError if the file is of a newer release, or a migration that ran was edited since
 */
export function migrate(database: DatabaseSync, path: string, at_ms: number, directory: URL = MIGRATIONS): void {
  const migrations = readMigrations(directory)
  database.exec('CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, at INTEGER NOT NULL)')
  const done = new Map<number, string>()
  for (const row of database.prepare('SELECT number, checksum FROM migrations').all()) {
    done.set(Number(row['number']), String(row['checksum']))
  }
  checkKnown(done, migrations, 'an older schema is kept beside it as *.before-NNN')
  const missing = migrations.filter(({ number }) => !done.has(number))
  const [first] = missing
  if (first === undefined) return
  if (done.size > 0) copyBefore(database, path, first.number)
  const record = database.prepare('INSERT INTO migrations (number, checksum, at) VALUES (?, ?, ?)')
  for (const { number, sql, checksum } of missing) {
    database.exec('BEGIN IMMEDIATE')
    try {
      database.exec(sql)
      record.run(number, checksum, at_ms)
      database.exec('COMMIT')
    } catch (error) {
      database.exec('ROLLBACK')
      throw error
    }
  }
}

/** The files of a schema, in order. */
export function readMigrations(directory: URL): readonly Migration[] {
  const names = readdirSync(fileURLToPath(directory))
    .filter((name) => name.endsWith('.sql'))
    .toSorted()
  return names.map((name) => {
    const sql = readFileSync(new URL(name, directory), 'utf8')
    return { number: Number(name.slice(0, 3)), sql, checksum: createHash('sha256').update(sql).digest('hex') }
  })
}

/**
 * Whether this release may use a database on which these migrations ran.
 * @param elsewhere where an older schema can be found
 * @throws SchemaError
 */
export function checkKnown(done: ReadonlyMap<number, string>, migrations: readonly Migration[], elsewhere: string): void {
  for (const [number, checksum] of done) {
    const known = migrations.find((migration) => migration.number === number)
    if (known === undefined) {
      throw new SchemaError(
        `the database has schema ${Math.max(...done.keys())}, which is newer than this release of weir knows. ` +
          `Start the release that wrote it, or a later one; ${elsewhere}.`,
      )
    }
    if (known.checksum !== checksum) {
      throw new SchemaError(`migration ${number} was edited after it ran on this database; add a new migration instead`)
    }
  }
}

/** `VACUUM INTO` copies a consistent state and never touches the locks of the open file, as copying it by hand would. */
function copyBefore(database: DatabaseSync, path: string, number: number): void {
  const copy = `${path}.before-${String(number).padStart(3, '0')}`
  if (existsSync(copy)) return
  database.prepare('VACUUM INTO ?').run(copy)
}
