import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { Configuration } from '../../src/config/model.ts'
import { createLogger } from '../../src/observe/log.ts'
import { configurationOrThrow } from '../../src/weir.ts'
import { moveToCluster, type MoveReport } from '../../src/start/move.ts'
import { givingEntries } from '../../src/storage/accounts.ts'
import type { OnProgress } from '../../src/storage/books.ts'
import type { RoutingRecord } from '../../src/storage/records.ts'
import { openPostgres, type PostgresBooks } from '../../src/storage/postgres/open.ts'
import { LEFT_BEHIND, MOVED } from '../../src/storage/sql/moved.ts'
import { chatPlan, Crowd } from '../support/audit-clients.ts'
import { DAY_MS, wrongFacts } from '../support/archive.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { newFleet, newTenant, noCluster } from '../support/cluster.ts'
import { startGateway } from '../support/fleet.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { PACK, WALLET } from '../support/planted.ts'
import { faultSeed, seededRandom } from '../support/random.ts'
import { startRedis } from '../support/redis.ts'
import { REPO_ROOT } from '../support/root.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { archiveAll, FIRST_NOON, ignore, threeDays } from './archive-suite.ts'

const TIMEOUT_MS = 240_000
const LOAD_MS = 4000
const TOKEN = 'admin-token-of-a-fleet'
const quiet = createLogger({ level: 'error', destination: { write: () => {} } })

/** Three days of requests, two of them archived, and what else an installation may have. @returns its data directory */
async function oldInstallation(clock: ReturnType<typeof testClock>): Promise<string> {
  const data_dir = tempDir()
  const storage = await openTest(data_dir, { clock })
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  const stale = database.prepare('SELECT 1 FROM usage_stale WHERE at < ?')
  const derived = async (): Promise<void> => {
    while (stale.get(FIRST_NOON + 5 * DAY_MS) !== undefined) await sleep(50)
  }
  const subject = { storage, clock, data_dir, derived }
  for (const record of GRANTS) {
    await storage.records.put({ kind: 'grant', record })
    const given = { id: `grant:${record.id}`, at: FIRST_NOON, kind: 'grant', note: '' } as const
    if (record.amount > 0n) await storage.ledger.transact({ ...given, entries: givingEntries(record, record.amount) })
  }
  for (const record of ROUTING) await storage.records.put({ kind: 'routing', record })
  await threeDays({ ...subject, edit: neverAsked, rows: neverAsked, mark: () => '' })
  await archiveAll(subject)
  database.close()
  await storage.close()
  return data_dir
}

/** What the requests of those days are paid with. */
const GRANTS = [WALLET, { ...PACK, id: 'pack-1', amount: 1_000_000n }]

/** More than one page of what tenants say of routing. */
const ROUTING = Array.from({ length: 25 }, (_, at): RoutingRecord => {
  const [rules, samples] = [[{ domain: 'own', keywords: [`关键词${at}`] }], [{ text: `"\n\u0000${at}`, domain: 'own' }]]
  return { tenant: `tenant-${at}`, version: at, rules, samples, models: [], updated_at: FIRST_NOON }
})

const neverAsked = (): Promise<never> => Promise.reject(new Error('nobody asks this here'))

async function configurationOf(data_dir: string, postgres: PostgresServer, database: string): Promise<Configuration> {
  const env = {
    WEIR_DATA_DIR: data_dir,
    WEIR_REDIS_URL: 'redis://127.0.0.1:1',
    WEIR_DATABASE_URL: await postgres.url(database),
  }
  return configurationOrThrow({ config_dir: join(REPO_ROOT, 'config'), env })
}

function edit(data_dir: string, sql: string): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  database.exec(sql)
  database.close()
}

/** Fails when a move has come so far. */
function stopAt(what: string): OnProgress {
  return ({ doing }) => {
    if (doing === what) throw new Error('stopped by the test')
  }
}

/** What is written after a move has the next numbers, and the audit still agrees. */
async function numbersGoOn({ records, ledger }: PostgresBooks): Promise<void> {
  const { seq } = await records.load(() => undefined)
  await records.put({ kind: 'grant', record: PACK })
  expect((await records.load(() => undefined)).seq).toBe(seq + 1)
  await ledger.transact({ id: 'grant:pack', at: 3, kind: 'grant', note: '', entries: givingEntries(PACK, PACK.amount) })
  expect(await wrongFacts({ ledger })).toEqual({})
}

function rowsOf(data_dir: string, file: string): Record<string, number> {
  const database = new DatabaseSync(join(data_dir, file), { readOnly: true })
  try {
    return Object.fromEntries(MOVED.map((table) => [table, Number(database.prepare(`SELECT COUNT(*) AS n FROM ${table}`).get()?.['n'])]))
  } finally {
    database.close()
  }
}

it('every table of the schema is moved, or known to be left behind', async () => {
  const data_dir = tempDir()
  await (await openTest(data_dir)).close()
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  const tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").all()
  database.close()
  expect(tables.map(({ name }) => String(name)).toSorted()).toEqual([...MOVED, ...LEFT_BEHIND].toSorted())
})

describe.skipIf(noCluster !== null)('weir move', () => {
  it(
    'takes archived days, late revisions and sums of usage along, and a second run finds everything there',
    async () => {
      const server = await startPostgres()
      const clock = testClock(FIRST_NOON)
      const data_dir = await oldInstallation(clock)
      const before = rowsOf(data_dir, 'weir.db')
      const configuration = await configurationOf(data_dir, server, 'old')
      const move = (): Promise<MoveReport> =>
        moveToCluster({ configuration, clock, logger: quiet, despite_findings: false, on_progress: ignore })
      expect(await move()).toMatchObject({ state: 'moved', audit: { findings: [], checked: { archives: 2 } } })
      expect(rowsOf(data_dir, 'weir.db.moved')).toEqual(before)
      expect(before).toMatchObject({ archives: 2, events: 57 })
      for (const [table, rows] of Object.entries(before)) {
        const [found] = await server.sql(`SELECT COUNT(*)::integer AS rows FROM weir.${table}`, 'old')
        expect([table, found?.['rows']]).toEqual([table, rows])
      }
      await expect(move()).rejects.toThrow('were moved into a cluster')
      await expect(openTest(data_dir)).rejects.toThrow('were moved into a cluster')
      const books = await openPostgres({ url: await server.url('old'), clock })
      atEnd(() => books.close())
      for (const record of ROUTING) expect(await books.records.routing(record.tenant)).toEqual(record)
      await numbersGoOn(books)
    },
    TIMEOUT_MS,
  )

  it(
    'refuses a database that has books, books that do not agree, and a cluster that begins before it has ended',
    async () => {
      const server = await startPostgres()
      const clock = testClock(FIRST_NOON)
      const data_dir = await oldInstallation(clock)
      const configuration = await configurationOf(data_dir, server, 'taken')
      const options = { configuration, clock, logger: quiet, despite_findings: false, on_progress: ignore }
      const taken = await openPostgres({ url: await server.url('taken'), clock })
      await taken.ledger.transact({ id: 'x', at: 1, kind: 'top_up', note: '', entries: [] })
      await taken.close()
      await expect(moveToCluster(options)).rejects.toThrow('an installation moves into an empty one')
      const other = await openTest(data_dir, { clock })
      await other.close()
      edit(data_dir, "UPDATE ledger_balances SET amount = amount + 1 WHERE code = 'wallet_liability'")
      const elsewhere = { ...options, configuration: await configurationOf(data_dir, server, 'wrong') }
      const refused = await moveToCluster(elsewhere)
      expect(refused).toMatchObject({ state: 'refused', rows: 0 })
      expect(refused.audit?.findings.map(({ rule }) => rule)).toContain('events sum to entries')
      expect(existsSync(join(data_dir, 'weir.db'))).toBe(true)
      const stopped = { ...elsewhere, despite_findings: true, on_progress: stopAt('moving usage_hours') }
      await expect(moveToCluster(stopped)).rejects.toThrow('stopped by the test')
      await expect(openPostgres({ url: await server.url('wrong'), clock })).rejects.toThrow('is being moved into this database')
      expect(await moveToCluster({ ...elsewhere, despite_findings: true })).toMatchObject({ state: 'moved' })
    },
    TIMEOUT_MS,
  )

  it(
    'of an installation that was killed under load, itself killed again and again, loses nothing: keys go on working, and all agrees',
    async () => {
      const random = seededRandom(faultSeed())
      const fleet = await newFleet({ redis_url: (await startRedis()).url, postgres: await startPostgres() })
      const alone = { config_dir: fleet.config_dir, data_dir: fleet.folderOf('first'), env: { WEIR_ADMIN_TOKEN: TOKEN } }
      const crowd = new Crowd(random)
      const old = await startGateway(alone)
      const keys = [await newTenant(old, 'acme', '5'), await newTenant(old, 'delta', '0.000001')]
      const over = AbortSignal.timeout(LOAD_MS)
      const load = Promise.all(keys.map((key) => crowd.run({ url: old.url, key }, 3, over)))
      await sleep(LOAD_MS - 500)
      await old.stop('SIGKILL')
      await load
      for (let run = 0; run < 3; run += 1) {
        const move = fleet.spawnWeir('first', 'move')
        await sleep(random.whole(200, 2500))
        await move.stop('SIGKILL')
      }
      const { said } = await fleet.weir('first', 'move')
      // One that was killed at the very end had nothing left to do.
      expect(said).toMatch(/Everything has arrived and agrees|Everything had been moved already|were moved into a cluster/)
      const machine = await fleet.start('first')
      await fleet.expectAudit('first')
      const [key = ''] = keys
      const sent = await crowd.send({ url: machine.url, key }, chatPlan({ stream: true, directives: { tokens: 30 } }))
      expect(sent.outcome).toBe('completed')
      await fleet.rest(machine)
      await fleet.expectAudit('first')
    },
    TIMEOUT_MS,
  )
})
