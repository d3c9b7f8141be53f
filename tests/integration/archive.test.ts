import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { uuidv7 } from '../../src/base/ids.ts'
import { ArchiveRefused } from '../../src/storage/books.ts'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { archiveAll, archiveSuite, type ArchiveSubject, FIRST_NOON, ignore, threeDays } from './archive-suite.ts'

async function open(): Promise<ArchiveSubject> {
  const [data_dir, clock] = [tempDir(), testClock(FIRST_NOON)]
  const storage = await openTest(data_dir, { clock })
  atEnd(() => storage.close())
  const books = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  atEnd(() => books.close())
  return {
    storage,
    clock,
    data_dir,
    edit: async (sql) => books.exec(sql),
    rows: async (sql) => books.prepare(sql).all(),
    mark: (grain, query) => `INSERT INTO usage_stale SELECT '${grain}', tenant, at FROM (${query}); `,
    derived: () => derived(data_dir),
  }
}

async function derived(data_dir: string): Promise<void> {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  const stale = database.prepare('SELECT 1 FROM usage_stale WHERE at < ?')
  while (stale.get(FIRST_NOON + 5 * DAY_MS) !== undefined) await new Promise((resolve) => setTimeout(resolve, 50))
  database.close()
}

archiveSuite('SQLite', open)

it('rows are deleted only on the word of a sound file, and a deletion that stopped goes on', async () => {
  const subject = await threeDays(await open())
  const { storage, data_dir } = subject
  const copy = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  copy.exec("CREATE TEMP TABLE kept AS SELECT * FROM events WHERE day = '2026-11-02'")
  await archiveAll(subject, { before: '2026-11-03' })
  // As if the process had died in the middle of deleting.
  copy.exec("INSERT INTO events SELECT * FROM kept WHERE id > '2026-11-02-000700'; UPDATE archives SET state = 'written'")
  copy.close()
  expect(await wrongFacts(storage)).toEqual({})
  const file = join(data_dir, 'archive', 'events-2026-11-02.jsonl.gz')
  const sound = readFileSync(file)
  writeFileSync(file, sound.subarray(0, sound.length - 100))
  await expect(storage.archive.archive('2026-11-02', ignore)).rejects.toBeInstanceOf(ArchiveRefused)
  expect((await storage.ledger.events({ limit: 10, to_ms: FIRST_NOON + DAY_MS / 2 })).events).toHaveLength(10)
  writeFileSync(file, sound)
  expect(await archiveAll(subject, { before: '2026-11-03' })).toMatchObject({ archived: [{ day: '2026-11-02', state: 'closed' }] })
  expect((await storage.ledger.events({ limit: 10, to_ms: FIRST_NOON + DAY_MS / 2 })).events).toEqual([])
  expect(await wrongFacts(storage)).toEqual({})
  expect(readdirSync(join(data_dir, 'archive'))).toEqual(['events-2026-11-02.jsonl.gz'])
})

it('an open request or rows that the journal keeps hold their day, and every later one, back', async () => {
  const [data_dir, clock] = [tempDir(), testClock(FIRST_NOON)]
  const storage = await openTest(data_dir, { clock })
  atEnd(() => storage.close())
  await serveDay(storage, clock.now_ms(), 3)
  clock.advance(3 * DAY_MS)
  expect(await archiveAll({ storage, clock })).toMatchObject({ archived: [], waiting: [{ day: '2026-11-02' }] })
  await expect(storage.archive.archive('2026-11-02', ignore)).rejects.toThrow('the journal still keeps rows of that day')
  await expect(storage.archive.archive('2026-11-05', ignore)).rejects.toThrow('has no events to archive, or is not over')
})

it('a tenant who asks for an event of an archived day is told so, and lists name the days that they lack', async () => {
  const gateway = await startGateway()
  await (await gateway.chat({ max_tokens: 5 })).text()
  await gateway.audit()
  const books = new DatabaseSync(join(gateway.data_dir, 'weir.db'), { timeout: 5000 })
  books.exec("INSERT INTO archives VALUES (1, '2026-11-02', 'closed', 'events-2026-11-02.jsonl.gz', 0, 0, 0, 0, 'd', '', 'c', 0, NULL)")
  books.close()
  const path = `/v1/usage/${uuidv7(FIRST_NOON)}`
  const answer = await gateway.get(path)
  expect(answer.status).toBe(404)
  expect(await answer.json()).toMatchObject({
    error: { code: 'not_found', message: expect.stringContaining('events of 2026-11-02 are archived') as unknown },
  })
  expect(await (await gateway.get('/v1/usage?from=2026-11-01T00:00:00%2B08:00')).json()).toMatchObject({ archived_days: ['2026-11-02'] })
  expect(await (await gateway.get('/v1/usage')).json()).toMatchObject({ archived_days: [] })
})

it('on a server without traffic too a day that is over can be archived, once its sums are derived', async () => {
  const [data_dir, clock] = [tempDir(), testClock(FIRST_NOON)]
  const storage = await openTest(data_dir, { clock })
  atEnd(() => storage.close())
  await serveDay(storage, clock.now_ms(), 3)
  clock.advance(9 * DAY_MS)
  // The first look finds that the day is over and has its sums derived.
  await archiveAll({ storage, clock }, { dry_run: true })
  await derived(data_dir)
  expect(await archiveAll({ storage, clock })).toMatchObject({ archived: [{ day: '2026-11-02' }], waiting: [] })
})
