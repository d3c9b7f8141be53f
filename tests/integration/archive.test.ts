import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { gunzipSync, gzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { dayOf } from '../../src/base/clock.ts'
import { uuidv7 } from '../../src/base/ids.ts'
import { runArchive } from '../../src/control/archive.ts'
import { decodeEvent, encodeEvent } from '../../src/money/event-json.ts'
import type { Storage } from '../../src/storage/open.ts'
import { ArchiveRefused } from '../../src/storage/books.ts'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock, type TestClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { closingEvent, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const FIRST_NOON = Date.parse('2026-11-02T12:00:00+08:00')
const REQUESTS = 1200
const ignore = (): void => undefined

interface Subject {
  readonly storage: Storage
  readonly clock: TestClock
  readonly data_dir: string
}

/** Three days of requests, the third so recent that the journal keeps it. */
async function threeDays(): Promise<Subject> {
  const [data_dir, clock] = [tempDir(), testClock(FIRST_NOON)]
  const storage = await openTest(data_dir, { clock })
  atEnd(() => storage.close())
  for (let day = 0; day < 2; day += 1) {
    await serveDay(storage, clock.now_ms(), REQUESTS)
    clock.advance(DAY_MS)
  }
  clock.advance(9 * DAY_MS)
  await serveDay(storage, clock.now_ms(), 50)
  clock.advance(DAY_MS)
  await serveDay(storage, clock.now_ms(), 1)
  await derived(data_dir)
  return { storage, clock, data_dir }
}

/** Waits until the sums of days that are over are there. */
async function derived(data_dir: string): Promise<void> {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  const stale = database.prepare('SELECT 1 FROM usage_stale WHERE at < ?')
  while (stale.get(FIRST_NOON + 5 * DAY_MS) !== undefined) await new Promise((resolve) => setTimeout(resolve, 50))
  database.close()
}

function archiveAll({ storage, clock }: Subject, options: { before?: string; dry_run?: boolean } = {}): Promise<object> {
  return runArchive({ dry_run: false, ...options }, { archive: storage.archive, ledger: storage.ledger, clock }, ignore)
}

it('closed days become files of canonical events; nothing else changes, and days that can still change wait', async () => {
  const subject = await threeDays()
  const { storage, data_dir } = subject
  const before = await storage.ledger.auditFacts()
  const period = { from_ms: 0, to_ms: FIRST_NOON + 100 * DAY_MS }
  const usage = await storage.ledger.usage({ periods: [period], by: ['tenant'], limit: 10 })
  const [first] = (await storage.ledger.events({ limit: 1, to_ms: FIRST_NOON + 1 })).events
  expect(await archiveAll(subject, { dry_run: true })).toMatchObject({
    archived: [],
    would_archive: [
      { day: '2026-11-02', events: 1320 },
      { day: '2026-11-03', events: 1320 },
    ],
    waiting: [{ day: '2026-11-13', events: 55 }],
  })
  expect(await archiveAll(subject, { before: '2026-11-03' })).toMatchObject({
    archived: [{ day: '2026-11-02', state: 'closed', file: 'events-2026-11-02.jsonl.gz', events: 1320, requests: REQUESTS }],
  })
  expect(await archiveAll(subject)).toMatchObject({ archived: [{ day: '2026-11-03' }], waiting: [{ day: '2026-11-13' }] })
  expect(await archiveAll(subject)).toMatchObject({ archived: [] })
  const [one, two] = await storage.archive.list()
  expect(two?.previous).toBe(one?.chain)
  const text = gunzipSync(readFileSync(join(data_dir, 'archive', one?.file ?? ''))).toString()
  expect(createHash('sha256').update(text).digest('hex')).toBe(one?.digest)
  const lines = text.trimEnd().split('\n')
  const events = lines.map(decodeEvent)
  expect(events.map(encodeEvent)).toEqual(lines)
  expect(events.map(({ id, revision }) => `${id} ${revision}`)).toEqual(events.map(({ id, revision }) => `${id} ${revision}`).toSorted())
  expect(events).toContainEqual(first)
  // The rows are gone, the sums and the books are not.
  expect((await storage.ledger.events({ limit: 1000, to_ms: FIRST_NOON + 3 * DAY_MS })).events).toEqual([])
  expect(await storage.ledger.auditFacts()).toEqual(before)
  expect(await storage.ledger.usage({ periods: [period], by: ['tenant'], limit: 10 })).toEqual(usage)
  expect(await wrongFacts(storage)).toEqual({})
  expect(await storage.archive.verify(ignore)).toEqual([])
  expect(await storage.ledger.archivedDays({ from_ms: FIRST_NOON, to_ms: FIRST_NOON + 1 })).toEqual(['2026-11-02'])
  expect(await storage.rebuilder.rollups(true, ignore)).toEqual([])
})

it('an event for an archived day is posted nowhere and lost nowhere: every audit names it', async () => {
  const subject = await threeDays()
  const { storage } = subject
  await archiveAll(subject)
  const before = await storage.ledger.balances()
  await storage.log.close(closingEvent('late', { day: dayOf(FIRST_NOON), admitted_at: FIRST_NOON }))
  expect(await storage.ledger.post()).toMatchObject({ events: 0, transactions: 0 })
  expect(await storage.ledger.balances()).toEqual(before)
  expect(await wrongFacts(storage)).toEqual({ missing_events: ['late (its day 2026-11-02 is archived)'] })
  expect(await storage.rebuilder.events(false)).toEqual([])
  expect(await storage.archive.verify(ignore)).toEqual([])
})

it('a file that was changed, cut or lost, and books that were changed, are found', async () => {
  const subject = await threeDays()
  const { storage, data_dir } = subject
  await archiveAll(subject)
  const file = join(data_dir, 'archive', 'events-2026-11-02.jsonl.gz')
  const sound = readFileSync(file)
  const found = async (): Promise<readonly string[]> => (await storage.archive.verify(ignore)).map(({ day, what }) => `${day} ${what}`)
  const text = gunzipSync(sound).toString()
  writeFileSync(file, gzipSync(text.replace('"amount_nano":"1001"', '"amount_nano":"1002"')))
  expect(await found()).toEqual(['2026-11-02 digest of events-2026-11-02.jsonl.gz', '2026-11-02 amount_nano of events-2026-11-02.jsonl.gz'])
  writeFileSync(file, gzipSync(text.slice(text.indexOf('\n') + 1)))
  expect(await found()).toContain('2026-11-02 numbers of events-2026-11-02.jsonl.gz')
  writeFileSync(file, sound.subarray(0, sound.length - 100))
  expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
  rmSync(file)
  expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
  writeFileSync(file, sound)
  const books = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  books.exec("UPDATE archive_sums SET amount = amount + 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
  expect(await found()).toEqual(['2026-11-02 sums of events-2026-11-02.jsonl.gz'])
  expect(Object.keys(await wrongFacts(storage))).toEqual(['wrong_sums'])
  books.exec("UPDATE archive_sums SET amount = amount - 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
  books.exec("UPDATE archives SET digest = 'x' WHERE day = '2026-11-02'")
  books.close()
  expect(await found()).toEqual(['2026-11-02 the chain of archives', '2026-11-02 digest of events-2026-11-02.jsonl.gz'])
})

it('sums of an archived day are never derived again, whatever is lost of its minutes or marks it', async () => {
  const subject = await threeDays()
  const { storage, data_dir } = subject
  await archiveAll(subject)
  const books = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  const sums = (): unknown => ['usage_hours', 'usage_days'].map((table) => books.prepare(`SELECT * FROM ${table}`).all())
  const before = sums()
  books.exec(
    `DELETE FROM usage_minutes WHERE at < ${FIRST_NOON + 60_000}; ` +
      "INSERT INTO usage_stale SELECT DISTINCT 'hour', tenant, at FROM usage_hours WHERE at < " +
      `${FIRST_NOON + DAY_MS / 2}; INSERT INTO usage_stale SELECT DISTINCT 'day', tenant, at FROM usage_days WHERE at < ${FIRST_NOON}`,
  )
  expect(await storage.rebuilder.rollups(false, ignore)).toEqual([])
  await derived(data_dir)
  expect(sums()).toEqual(before)
  expect(await storage.rebuilder.rollups(false, ignore)).toEqual([])
  expect(sums()).toEqual(before)
  expect((await storage.rebuilder.lost()).map(({ what, id }) => `${what} ${id}`)).toEqual(['sums of an archived day 2026-11-02'])
  expect(Object.keys(await wrongFacts(storage))).toEqual(['wrong_rollups'])
  books.close()
})

it('a glance sees files that are gone or have another size, and books that do not fit together', async () => {
  const subject = await threeDays()
  const { storage, data_dir } = subject
  await archiveAll(subject)
  const found = async (): Promise<readonly string[]> => (await storage.archive.glance()).map(({ day, what }) => `${day} ${what}`)
  expect(await found()).toEqual([])
  const file = join(data_dir, 'archive', 'events-2026-11-02.jsonl.gz')
  const sound = readFileSync(file)
  writeFileSync(file, sound.subarray(1))
  expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
  rmSync(file)
  expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
  writeFileSync(file, sound)
  const books = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  books.exec("UPDATE archives SET digest = 'x', events = events + 1 WHERE day = '2026-11-02'")
  books.close()
  expect(await found()).toEqual(['2026-11-02 the chain of archives', '2026-11-02 numbers of events-2026-11-02.jsonl.gz'])
})

it('entries of usage stay as they are where an archive is not what was written', async () => {
  const subject = await threeDays()
  const { storage, data_dir } = subject
  await archiveAll(subject)
  const sound = async (): Promise<boolean> => (await storage.archive.verify(ignore)).length === 0
  const before = await storage.ledger.balances()
  const books = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  books.exec("UPDATE archive_sums SET amount = amount + 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
  expect(await storage.rebuilder.entries(false, sound)).toEqual([])
  expect((await storage.rebuilder.lost()).map(({ what }) => what)).toEqual(['entries of usage that differ from events'])
  expect(await storage.ledger.balances()).toEqual(before)
  books.exec("UPDATE archive_sums SET amount = amount - 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
  books.exec("UPDATE ledger_entries SET amount = amount + 1 WHERE code = 'usage_revenue'")
  books.close()
  expect((await storage.rebuilder.entries(false, sound)).map(({ what }) => what)).toContain('usage transaction')
  await storage.rebuilder.balances(false)
  expect(await storage.ledger.balances()).toEqual(before)
  expect(await wrongFacts(storage)).toEqual({})
})

it('rows are deleted only on the word of a sound file, and a deletion that stopped goes on', async () => {
  const subject = await threeDays()
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
  expect(await archiveAll({ storage, clock, data_dir })).toMatchObject({ archived: [], waiting: [{ day: '2026-11-02' }] })
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
  await archiveAll({ storage, clock, data_dir }, { dry_run: true })
  await derived(data_dir)
  expect(await archiveAll({ storage, clock, data_dir })).toMatchObject({ archived: [{ day: '2026-11-02' }], waiting: [] })
})
