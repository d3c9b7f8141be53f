import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { dayOf, systemClock } from '../../src/base/clock.ts'
import { bucketOf, LedgerUnavailable, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { Database } from '../../src/storage/postgres/database.ts'
import { migrate } from '../../src/storage/postgres/migrate.ts'
import { openPostgres, type PostgresBooks } from '../../src/storage/postgres/open.ts'
import type { KeyRecord, PriceVersionRecord } from '../../src/storage/records.ts'
import { SchemaError } from '../../src/storage/sql/migrate.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { freePort } from '../support/ports.ts'
import { noPostgres, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { REPO_ROOT } from '../support/root.ts'
import { charged, numbered, openBooks, outboxOf, postEvents, wrongFactsOf } from '../support/shared-ledger.ts'
import { tempDir } from '../support/temp.ts'

const DAY_MS = 86_400_000
const KEY: KeyRecord = {
  id: 'key-1',
  tenant: 'acme',
  project: 'web',
  name: 'server',
  hash: 'ab'.repeat(32),
  last4: 'wxyz',
  scopes: [],
  models: null,
  zones: null,
  limits: [],
  expires_at: null,
  revoked_at: null,
  created_at: 3,
}

const MIGRATIONS = join(REPO_ROOT, 'src/storage/postgres/schema/migrations')

describe.skipIf(noPostgres !== null)('books in PostgreSQL', () => {
  let server: PostgresServer
  let books: PostgresBooks & { readonly schema: string }
  let ledger: SharedLedger
  beforeAll(async () => {
    server = await startPostgres()
  })
  beforeEach(async () => {
    books = await openBooks(server)
    ledger = books.ledger
  })
  const sql = (text: string): Promise<readonly Record<string, unknown>[]> => server.sql(`SET search_path = ${books.schema}; ${text}`)

  describe('schema', () => {
    it('processes that start at once make it once', async () => {
      const url = await server.url()
      const opened = await Promise.all(Array.from({ length: 5 }, () => openPostgres({ url, schema: 'at_once', clock: systemClock() })))
      expect(await server.sql('SELECT number FROM at_once.migrations')).toHaveLength(readdirSync(MIGRATIONS).length)
      for (const one of opened) await one.close()
    })

    it('one of a newer release, and one whose migrations were edited, are refused with what to do', async () => {
      const [url, directory] = [await server.url(), join(tempDir(), 'migrations')]
      mkdirSync(directory)
      cpSync(MIGRATIONS, directory, { recursive: true })
      const here = pathToFileURL(`${directory}/`)
      const next = readdirSync(MIGRATIONS).length + 1
      writeFileSync(join(directory, `${String(next).padStart(3, '0')}_more.sql`), 'CREATE TABLE more (id integer)')
      await migrate(url, 'newer', 0, here)
      await expect(migrate(url, 'newer', 0)).rejects.toThrow(`schema ${next}, which is newer than this release`)
      const first = join(directory, '001_first.sql')
      writeFileSync(first, `${readFileSync(first, 'utf8')}-- edited\n`)
      await expect(migrate(url, 'newer', 0, here)).rejects.toThrow('migration 1 was edited')
      await expect(migrate(url, 'newer', 0, here)).rejects.toBeInstanceOf(SchemaError)
    })

    it('a migration that fails leaves nothing of itself', async () => {
      const [url, directory] = [await server.url(), join(tempDir(), 'migrations')]
      mkdirSync(directory)
      writeFileSync(join(directory, '001_bad.sql'), 'CREATE TABLE half (id integer); SELECT 1 / 0')
      await expect(migrate(url, 'failing', 0, pathToFileURL(`${directory}/`))).rejects.toThrow('22012')
      expect(await server.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'failing' AND tablename = 'half'")).toEqual([])
    })

    it.each(['Weir', 'a b', "x'; DROP", '', '1a'])('a name that would need quotes is refused: %s', async (schema) => {
      await expect(openPostgres({ url: await server.url(), schema, clock: systemClock() })).rejects.toBeInstanceOf(SchemaError)
    })

    it('a database that is not encoded as UTF8 is refused', async () => {
      await server.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", 'postgres')
      await expect(openPostgres({ url: await server.url('latin'), clock: systemClock() })).rejects.toThrow('LATIN1')
    })

    it('its bucket of a tenant is the one that everybody else computes', async () => {
      const tenants = ['acme', '', '某某科技', 'tenant-17', '🦭', "o'x"]
      const names = tenants.map((tenant) => `('${tenant.replaceAll("'", "''")}')`).join(', ')
      const rows = await sql(`SELECT bucket_of(t) AS bucket FROM (VALUES ${names}) AS v (t)`)
      expect(rows.map(({ bucket }) => Number(bucket))).toEqual(tenants.map(bucketOf))
    })
  })

  describe('messages', () => {
    it('never hold the password or the address of the database', async () => {
      const port = await freePort()
      const secret = 'very-secret'
      const failures = [
        `postgres://weir:${secret}@127.0.0.1:${port}/weir`,
        `postgres://weir:${secret}@127.0.0.1:${server.port}/nowhere`,
        `postgres://weir:${secret}@no-such-host.invalid/weir`,
        `postgres//weir:${secret}@x`,
        `http://weir:${secret}@x/`,
      ]
      for (const url of failures) {
        const error: unknown = await openPostgres({ url, clock: systemClock() }).then(
          () => null,
          (thrown: unknown) => thrown,
        )
        expect(error).toBeInstanceOf(Error)
        const { message, stack, cause } = error as Error
        expect(`${message} ${stack} ${String(cause)} ${JSON.stringify(error)}`).not.toMatch(/very-secret|127\.0\.0\.1|no-such-host/)
      }
      await expect(openPostgres({ url: failures[1] ?? '', clock: systemClock() })).rejects.toBeInstanceOf(LedgerUnavailable)
    })

    it('of a refused row name its constraint, and not what it held', async () => {
      await books.records.put({ kind: 'key', record: KEY })
      const again = books.records.put({ kind: 'key', record: { ...KEY, id: 'key-2' } })
      await expect(again).rejects.toThrow('UNIQUE constraint keys_hash_key forbids a row')
      await expect(again).rejects.not.toThrow(KEY.hash)
    })
  })

  describe('records', () => {
    it('changes have no gap and come in the order of commits, whichever process makes them', async () => {
      const other = await openBooks(server, { schema: books.schema })
      const seen: number[] = []
      let done = false
      const follow = async (): Promise<void> => {
        for (let [last, ended] = [0, false]; !ended;) {
          const all_made = done
          const changes = await books.records.changesAfter(last, 1000)
          // What was not there when its successor was seen would be missed for good.
          for (const { seq } of changes) seen.push(seq)
          last = changes.at(-1)?.seq ?? last
          ended = all_made && changes.length === 0
        }
      }
      const put = async (index: number): Promise<void> => {
        const record = { ...KEY, id: `key-${index}`, hash: index % 10 === 0 ? KEY.hash : `hash-${index}` }
        await (index % 2 === 0 ? books : other).records.put({ kind: 'key', record }).catch((error: unknown) => {
          if (index % 10 !== 0) throw error
        })
      }
      const following = follow()
      // Every tenth but one is refused by the unique hash, and takes no number.
      await Promise.all(Array.from({ length: 132 }, (_, index) => put(index)))
      done = true
      await following
      expect(seen).toEqual(Array.from({ length: seen.length }, (_, index) => index + 1))
      expect(seen).toHaveLength(132 - 13)
    })

    it('processes that start at once with the same new prices store them once', async () => {
      const others = await Promise.all([1, 2, 3].map(() => openBooks(server, { schema: books.schema })))
      const version = (id: string): PriceVersionRecord => ({ id, side: 'sell', subject: 'm', effective_from: 1, body: '{}', created_at: 1 })
      const versions = Array.from({ length: 50 }, (_, index) => version(`p@${index}`))
      await Promise.all([books, ...others].map(({ records }) => records.putPriceVersions(versions)))
      expect(await books.records.priceVersions()).toHaveLength(50)
    })
  })

  describe('partitions', () => {
    const partitions = async (): Promise<readonly unknown[]> =>
      (await sql("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY 1")).map(
        ({ name }) => name,
      )

    it('are made ahead by upkeep, and by whoever posts to a day without one, also when two do so at once', async () => {
      await ledger.upkeep(Date.parse('2026-11-23T23:00:00+08:00'))
      const ahead = ['2026_11_23', '2026_11_24', '2026_11_25', '2026_11_26'].map((day) => `events_${day}`)
      expect(await partitions()).toEqual(ahead)
      const other = (await openBooks(server, { schema: books.schema })).ledger
      const instants = Array.from({ length: 6 }, (_, index) => ADMITTED_AT - index * 7 * DAY_MS)
      const days = instants.map(dayOf)
      const post = (by: SharedLedger, from: number) =>
        postEvents(
          by,
          instants.map((admitted_at, index) =>
            charged(numbered(`e${from + index}`, from + index, { admitted_at, day: dayOf(admitted_at) }), null),
          ),
        )
      await Promise.all([post(ledger, 1), post(other, 7)])
      expect(await partitions()).toEqual([...new Set([...ahead, ...days.map((day) => `events_${day.replaceAll('-', '_')}`)])].toSorted())
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 12, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('one that was taken away by hand is made again', async () => {
      await postEvents(ledger, [charged(numbered('a', 1), null)])
      await sql('DROP TABLE events_2026_11_23')
      expect(await postEvents(ledger, [charged(numbered('b', 2), null)])).toEqual(['posted'])
    })
  })

  describe('texts', () => {
    it('code units that are no characters, in whatever an upstream or a client says, keep nobody from reading', async () => {
      const odd = '\u0000 \ud800 \udfff \\u0000 \\ud800'
      const event = numbered('a', 1, { finish_reason: odd, model_asked: odd, tags: { team: 'x' }, end_user: 'u' })
      expect(await postEvents(ledger, [charged(event, null)])).toEqual(['posted'])
      expect(await ledger.event('a')).toEqual(event)
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 1, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
      expect((await ledger.events({ tag: { name: 'team', value: 'x' }, limit: 5 })).events).toEqual([event])
      const edge = { from_ms: ADMITTED_AT, to_ms: ADMITTED_AT + 1 }
      expect((await ledger.usage({ periods: [edge], by: ['tag:team'], limit: 5 })).rows).toMatchObject([{ group: ['x'], requests: 1 }])
    })

    it('a name with U+0000 is nobody’s', async () => {
      await postEvents(ledger, [charged(numbered('a', 1), null)])
      const name = 'acme\u0000'
      expect(await ledger.event('a\u0000')).toBeNull()
      expect((await ledger.events({ tenant: name, limit: 5 })).events).toEqual([])
      expect((await ledger.usage({ tenant: name, periods: [{ from_ms: 0, to_ms: 9e15 }], by: [], limit: 5 })).rows).toEqual([])
      expect([await books.records.tenant(name), await ledger.transaction(name)]).toEqual([null, null])
    })

    it('are in the order of their bytes, whatever the database’s locale', async () => {
      await server.sql("CREATE DATABASE english LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8' TEMPLATE template0", 'postgres')
      const english = await openPostgres({ url: await server.url('english'), clock: systemClock() })
      for (const [index, key] of ['b', 'a', 'B', 'Ä', '_'].entries()) {
        await postEvents(english.ledger, [charged(numbered(`e-${key}`, index, { key }), null)])
      }
      const { rows } = await english.ledger.usage({ periods: [{ from_ms: 0, to_ms: 9e15 }], by: ['key'], limit: 9 })
      expect(rows.map(({ group }) => group[0])).toEqual(['B', '_', 'a', 'b', 'Ä'])
      const { events } = await english.ledger.events({ limit: 9 })
      expect(events.map(({ key }) => key)).toEqual(['Ä', 'b', 'a', '_', 'B'])
      await english.close()
    })
  })

  describe('limits', () => {
    it('a statement that takes too long is given up on, and its connection serves the next', async () => {
      const rest = { name: 'slow', connections: 1, lock_timeout_ms: 1000 }
      const database = new Database({ url: await server.url(), schema: books.schema, statement_timeout_ms: 200, ...rest })
      await expect(database.read([{ sql: 'SELECT pg_sleep(5)', params: [] }])).rejects.toThrow('did not finish a statement in time (57014)')
      expect(await database.read([{ sql: 'SELECT 1 AS one', params: [] }])).toEqual([[{ one: 1n }]])
      await database.close()
    })

    it('a process that is gone without a word, with locks or in the middle of a transaction, is noticed within seconds', async () => {
      const rest = { name: 'gone', connections: 1, lock_timeout_ms: 1000, statement_timeout_ms: 5000 }
      const database = new Database({ url: await server.url(), schema: books.schema, ...rest })
      const show = async (name: string): Promise<unknown> =>
        (await database.read([{ sql: `SELECT current_setting('${name}') AS value`, params: [] }]))[0]?.[0]?.['value']
      const names = ['tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'idle_in_transaction_session_timeout']
      expect(await Promise.all(names.map(show))).toEqual(['10', '5', '3', '30s'])
      await database.close()
    })

    it('more than its connections wait, and are told when they have waited too long', async () => {
      const rest = { name: 'few', connections: 1, lock_timeout_ms: 1000, statement_timeout_ms: 20_000 }
      const database = new Database({ url: await server.url(), schema: books.schema, ...rest })
      const slow = database.read([{ sql: 'SELECT 2 AS two FROM pg_sleep(6)', params: [] }])
      await expect(database.read([{ sql: 'SELECT 1', params: [] }])).rejects.toThrow('no connection to PostgreSQL was free in time')
      expect(await slow).toEqual([[{ two: 2n }]])
      await database.close()
    })

    it('a server without a connection left is away', async () => {
      await sql(`CREATE ROLE few LOGIN CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA ${books.schema} TO few`)
      const url = (await server.url()).replace('weir@', 'few@')
      const rest = { schema: books.schema, name: 'few', connections: 1, lock_timeout_ms: 1000, statement_timeout_ms: 5000 }
      const [one, other] = [new Database({ url, ...rest }), new Database({ url, ...rest })]
      const ask = (database: Database) => database.read([{ sql: 'SELECT 1 AS one', params: [] }])
      expect(await ask(one)).toEqual([[{ one: 1n }]])
      await expect(ask(other)).rejects.toThrow('PostgreSQL has no connection left (53300)')
      await one.close()
      expect(await ask(other)).toEqual([[{ one: 1n }]])
      await other.close()
    })

    it('transactions that are in each other’s way are run again', async () => {
      const rest = { name: 'ways', connections: 2, lock_timeout_ms: 5000, statement_timeout_ms: 5000 }
      const database = new Database({ url: await server.url(), schema: books.schema, ...rest })
      await sql('CREATE TABLE ways (id integer PRIMARY KEY, value integer); INSERT INTO ways VALUES (1, 0), (2, 0)')
      let runs = 0
      const cross = (first: number, second: number): Promise<void> =>
        database.transaction(async (session) => {
          runs += 1
          await session.run('UPDATE ways SET value = value + 1 WHERE id = $1', [first])
          await new Promise((resolve) => setTimeout(resolve, 100))
          await session.run('UPDATE ways SET value = value + 1 WHERE id = $1', [second])
        })
      await Promise.all([cross(1, 2), cross(2, 1)])
      expect(runs).toBeGreaterThan(2)
      expect(await sql('SELECT value FROM ways')).toEqual([{ value: 2 }, { value: 2 }])
      await database.close()
    })
  })

  it('a tenant’s outbox is its own', async () => {
    await postEvents(ledger, [charged(numbered('a', 1), null)])
    await postEvents(ledger, [charged(numbered('z', 2, { tenant: 'zeta' }), null)], 'zeta')
    expect([await outboxOf(ledger, 'acme'), (await outboxOf(ledger)).length]).toEqual([['acme 1 wallet-acme -1000'], 2])
  })
})
