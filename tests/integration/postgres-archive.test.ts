import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client } from 'pg'
import { beforeAll, describe, expect, it } from 'vitest'
import { dayOf } from '../../src/base/clock.ts'
import { ArchiveRefused } from '../../src/storage/books.ts'
import { bucketOf, LedgerUnavailable } from '../../src/storage/cluster-ports.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { noPostgres, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { openPostgresStorage, type PostgresStorage } from '../support/postgres-storage.ts'
import { charged, numbered } from '../support/shared-ledger.ts'
import { tempDir } from '../support/temp.ts'
import { archiveAll, archiveSuite, type ArchiveSubject, FIRST_NOON, ignore, threeDays } from './archive-suite.ts'

interface PostgresSubject extends ArchiveSubject {
  readonly storage: PostgresStorage
  readonly schema: string
}

describe.skipIf(noPostgres !== null)('with a server', () => {
  let server: PostgresServer
  let schemas = 0
  beforeAll(async () => {
    server = await startPostgres()
  })

  async function open(): Promise<PostgresSubject> {
    const [data_dir, clock] = [tempDir(), testClock(FIRST_NOON)]
    schemas += 1
    const schema = `archive_${schemas}`
    const storage = await openPostgresStorage(server, { data_dir, schema, clock })
    atEnd(() => storage.close())
    const sql = (text: string) => server.sql(`SET search_path = ${schema}; ${text}`)
    return {
      storage,
      clock,
      data_dir,
      schema,
      edit: async (text) => void (await sql(text)),
      rows: sql,
      mark: (grain, query) => `INSERT INTO usage_stale SELECT '${grain}', tenant, at, bucket_of(tenant) FROM (${query}) AS q; `,
      derived: async () => {
        while (await storage.ledger.upkeep(clock.now_ms()));
      },
    }
  }

  archiveSuite('PostgreSQL', open)

  const partitions = async ({ rows }: PostgresSubject): Promise<unknown> =>
    rows(
      "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'events_2026_11_0%' AND relnamespace = current_schema::regnamespace",
    )

  it('a day’s rows are its partition, which is dropped; the tables of other days stay', async () => {
    const subject = (await threeDays(await open())) as PostgresSubject
    expect(await partitions(subject)).toEqual([{ relname: 'events_2026_11_02' }, { relname: 'events_2026_11_03' }])
    await archiveAll(subject, { before: '2026-11-03' })
    expect(await partitions(subject)).toEqual([{ relname: 'events_2026_11_03' }])
    await subject.storage.ledger.upkeep(subject.clock.now_ms())
    expect(await subject.rows("SELECT 1 FROM second_revisions WHERE day = '2026-11-02'")).toEqual([])
  })

  it('rows are dropped only on the word of a sound file, and what a dead process left is gone on with', async () => {
    const subject = (await threeDays(await open())) as PostgresSubject
    const { storage, data_dir, schema } = subject
    // A reader keeps the partition for longer than anybody waits.
    const reader = new Client({ connectionString: await server.url() })
    await reader.connect()
    await reader.query(`BEGIN; SELECT COUNT(*) FROM ${schema}.events`)
    const impatient = await openPostgres({ url: await server.url(), schema, clock: subject.clock, lock_timeout_ms: 300 })
    const archive = impatient.archiveIn(join(data_dir, 'archive'), 7)
    await expect(archive.archive('2026-11-02', ignore)).rejects.toBeInstanceOf(LedgerUnavailable)
    expect(await storage.archive.list()).toMatchObject([{ day: '2026-11-02', state: 'written' }])
    expect(await wrongFacts(storage)).toEqual({})
    await reader.query('COMMIT')
    await reader.end()
    const file = join(data_dir, 'archive', 'events-2026-11-02.jsonl.gz')
    const sound = readFileSync(file)
    writeFileSync(file, sound.subarray(0, sound.length - 100))
    await expect(archive.archive('2026-11-02', ignore)).rejects.toBeInstanceOf(ArchiveRefused)
    expect(
      await subject.rows("SELECT 1 FROM pg_class WHERE relname = 'events_2026_11_02' AND relnamespace = current_schema::regnamespace"),
    ).toHaveLength(1)
    writeFileSync(file, sound)
    expect(await archiveAll(subject, { before: '2026-11-03' })).toMatchObject({ archived: [{ day: '2026-11-02', state: 'closed' }] })
    expect((await storage.ledger.events({ limit: 10, to_ms: FIRST_NOON + DAY_MS / 2 })).events).toEqual([])
    expect(await wrongFacts(storage)).toEqual({})
    expect(readdirSync(join(data_dir, 'archive'))).toEqual(['events-2026-11-02.jsonl.gz'])
    await impatient.close()
  })

  it('a recent day, and every day while a node that fell silent has events, waits', async () => {
    const subject = await open()
    const { storage, clock } = subject
    await serveDay(storage, clock.now_ms(), 3)
    clock.advance(3 * DAY_MS)
    await subject.derived()
    expect(await archiveAll(subject)).toMatchObject({ archived: [], waiting: [{ day: '2026-11-02' }] })
    await expect(storage.archive.archive('2026-11-02', ignore)).rejects.toThrow('it ended less than 7 days ago')
    clock.advance(6 * DAY_MS)
    await storage.ledger.beat({ node: 'n-gone', roles: [], version: '1', last_seq: 3, unposted: 2, stopped: false })
    await subject.edit("UPDATE nodes SET beat_at = beat_at - 7200000 WHERE node = 'n-gone'")
    await expect(storage.archive.archive('2026-11-02', ignore)).rejects.toThrow(/node n-gone has said nothing since .* and had 2 events/)
    await storage.ledger.beat({ node: 'n-gone', roles: [], version: '1', last_seq: 3, unposted: 0, stopped: true })
    expect(await archiveAll(subject)).toMatchObject({ archived: [{ day: '2026-11-02' }] })
    await expect(storage.archive.archive('2026-11-05', ignore)).rejects.toThrow('has no events to archive, or is not over')
  })

  it('an event that comes again after its day was archived is known; what limits charged for one that comes too late they get back', async () => {
    const subject = (await threeDays(await open())) as PostgresSubject
    const { ledger, node } = subject.storage
    const [again] = (await ledger.events({ limit: 1, to_ms: FIRST_NOON + DAY_MS / 2 })).events
    if (again === undefined) throw new Error('there are no events')
    await archiveAll(subject)
    const bucket = bucketOf('acme')
    const epoch = await ledger.beginEpoch([bucket])
    await ledger.openEpoch([bucket], epoch)
    const before = (await ledger.outbox(100_000)).length
    const day = dayOf(FIRST_NOON)
    const late = numbered('late', 1, { node: 'n-late', day, admitted_at: FIRST_NOON })
    const batch = { bucket, source: 'late', events: [charged(again, epoch), charged(late, epoch), charged(late, epoch)] }
    expect(again.node).toBe(node)
    expect(await ledger.postBatches([batch])).toMatchObject([{ states: ['known', 'late', 'late'] }])
    expect(await ledger.postBatches([batch])).toMatchObject([{ states: ['known', 'late', 'late'] }])
    const rows = (await ledger.outbox(100_000)).slice(before)
    expect(rows.map(({ grant, delta }) => [grant.id, delta])).toEqual([['wallet-acme', 1000n]])
    expect(await ledger.known([{ day, id: 'late', revision: 1 }])).toEqual([{ node: 'n-late', seq: 1 }])
    expect(await wrongFacts(subject.storage)).toEqual({ missing_events: ['late (its day 2026-11-02 is archived)'] })
  })

  it('of two processes one archives; the other is told so', async () => {
    const subject = (await threeDays(await open())) as PostgresSubject
    const { schema, clock, data_dir, storage } = subject
    const other = await openPostgres({ url: await server.url(), schema, clock })
    const archive = other.archiveIn(join(data_dir, 'archive'), 7)
    const both = await Promise.allSettled([storage.archive.archive('2026-11-02', ignore), archive.archive('2026-11-02', ignore)])
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(both.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []))[0]).toBeInstanceOf(ArchiveRefused)
    await other.close()
  })
})
