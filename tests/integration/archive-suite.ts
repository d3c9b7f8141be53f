import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { dayOf } from '../../src/base/clock.ts'
import { runArchive } from '../../src/control/archive.ts'
import { decodeEvent, encodeEvent } from '../../src/money/event-json.ts'
import type { Storage } from '../../src/storage/open.ts'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import type { TestClock } from '../support/clock.ts'
import { closingEvent } from '../support/storage.ts'

export const FIRST_NOON = Date.parse('2026-11-02T12:00:00+08:00')
const REQUESTS = 1200
export const ignore = (): void => undefined

/** Storage whose clock a test moves, and whose books it can change behind its back. */
export interface ArchiveSubject {
  readonly storage: Pick<Storage, 'archive' | 'ledger' | 'log' | 'rebuilder'>
  readonly clock: TestClock
  /** Has the folder `archive`. */
  readonly data_dir: string
  edit(sql: string): Promise<void>
  rows(sql: string): Promise<unknown>
  /** SQL that marks what a query gives (tenant, at) to be derived again. */
  mark(grain: 'hour' | 'day', query: string): string
  /** Waits until the sums of days that are over are there. */
  derived(): Promise<void>
}

/** Three days of requests, the third so recent that the journal keeps it. */
export async function threeDays(subject: ArchiveSubject): Promise<ArchiveSubject> {
  const { storage, clock } = subject
  for (let day = 0; day < 2; day += 1) {
    await serveDay(storage, clock.now_ms(), REQUESTS)
    clock.advance(DAY_MS)
  }
  clock.advance(9 * DAY_MS)
  await serveDay(storage, clock.now_ms(), 50)
  clock.advance(DAY_MS)
  await serveDay(storage, clock.now_ms(), 1)
  await subject.derived()
  return subject
}

export function archiveAll(
  { storage, clock }: Pick<ArchiveSubject, 'storage' | 'clock'>,
  options: { before?: string; dry_run?: boolean } = {},
): Promise<object> {
  return runArchive({ dry_run: false, ...options }, { archive: storage.archive, ledger: storage.ledger, clock }, ignore)
}

/** Every driver of the archive. @param open storage whose clock is at the first noon, closed when the test ends */
export function archiveSuite(name: string, open: () => Promise<ArchiveSubject>): void {
  describe(`archive: ${name}`, () => {
    it('closed days become files of canonical events; nothing else changes, and days that can still change wait', async () => {
      const subject = await threeDays(await open())
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
      expect(events.map(({ id, revision }) => `${id} ${revision}`)).toEqual(
        events.map(({ id, revision }) => `${id} ${revision}`).toSorted(),
      )
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
      const subject = await threeDays(await open())
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
      const subject = await threeDays(await open())
      const { storage, data_dir } = subject
      await archiveAll(subject)
      const file = join(data_dir, 'archive', 'events-2026-11-02.jsonl.gz')
      const sound = readFileSync(file)
      const found = async (): Promise<readonly string[]> => (await storage.archive.verify(ignore)).map(({ day, what }) => `${day} ${what}`)
      const text = gunzipSync(sound).toString()
      writeFileSync(file, gzipSync(text.replace('"amount_nano":"1001"', '"amount_nano":"1002"')))
      expect(await found()).toEqual([
        '2026-11-02 digest of events-2026-11-02.jsonl.gz',
        '2026-11-02 amount_nano of events-2026-11-02.jsonl.gz',
      ])
      writeFileSync(file, gzipSync(text.slice(text.indexOf('\n') + 1)))
      expect(await found()).toContain('2026-11-02 numbers of events-2026-11-02.jsonl.gz')
      writeFileSync(file, sound.subarray(0, sound.length - 100))
      expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
      rmSync(file)
      expect(await found()).toEqual(['2026-11-02 events-2026-11-02.jsonl.gz'])
      writeFileSync(file, sound)
      await subject.edit("UPDATE archive_sums SET amount = amount + 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
      expect(await found()).toEqual(['2026-11-02 sums of events-2026-11-02.jsonl.gz'])
      expect(Object.keys(await wrongFacts(storage))).toEqual(['wrong_sums'])
      await subject.edit("UPDATE archive_sums SET amount = amount - 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
      await subject.edit("UPDATE archives SET digest = 'x' WHERE day = '2026-11-02'")
      expect(await found()).toEqual(['2026-11-02 the chain of archives', '2026-11-02 digest of events-2026-11-02.jsonl.gz'])
    })

    it('sums of an archived day are never derived again, whatever is lost of its minutes or marks it', async () => {
      const subject = await threeDays(await open())
      const { storage } = subject
      await archiveAll(subject)
      const sums = async (): Promise<unknown> => [
        await subject.rows('SELECT * FROM usage_hours'),
        await subject.rows('SELECT * FROM usage_days'),
      ]
      const before = await sums()
      await subject.edit(
        `DELETE FROM usage_minutes WHERE at < ${FIRST_NOON + 60_000}; ` +
          subject.mark('hour', `SELECT DISTINCT tenant, at FROM usage_hours WHERE at < ${FIRST_NOON + DAY_MS / 2}`) +
          subject.mark('day', `SELECT DISTINCT tenant, at FROM usage_days WHERE at < ${FIRST_NOON}`),
      )
      expect(await storage.rebuilder.rollups(false, ignore)).toEqual([])
      await subject.derived()
      expect(await sums()).toEqual(before)
      expect(await storage.rebuilder.rollups(false, ignore)).toEqual([])
      expect(await sums()).toEqual(before)
      expect((await storage.rebuilder.lost()).map(({ what, id }) => `${what} ${id}`)).toEqual(['sums of an archived day 2026-11-02'])
      expect(Object.keys(await wrongFacts(storage))).toEqual(['wrong_rollups'])
    })

    it('a glance sees files that are gone or have another size, and books that do not fit together', async () => {
      const subject = await threeDays(await open())
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
      await subject.edit("UPDATE archives SET digest = 'x', events = events + 1 WHERE day = '2026-11-02'")
      expect(await found()).toEqual(['2026-11-02 the chain of archives', '2026-11-02 numbers of events-2026-11-02.jsonl.gz'])
    })

    it('entries of usage stay as they are where an archive is not what was written', async () => {
      const subject = await threeDays(await open())
      const { storage } = subject
      await archiveAll(subject)
      const sound = async (): Promise<boolean> => (await storage.archive.verify(ignore)).length === 0
      const before = await storage.ledger.balances()
      await subject.edit("UPDATE archive_sums SET amount = amount + 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
      expect(await storage.rebuilder.entries(false, sound)).toEqual([])
      expect((await storage.rebuilder.lost()).map(({ what }) => what)).toEqual(['entries of usage that differ from events'])
      expect(await storage.ledger.balances()).toEqual(before)
      await subject.edit("UPDATE archive_sums SET amount = amount - 1 WHERE day = '2026-11-02' AND unit = 'tokens'")
      await subject.edit("UPDATE ledger_entries SET amount = amount + 1 WHERE code = 'usage_revenue'")
      expect((await storage.rebuilder.entries(false, sound)).map(({ what }) => what)).toContain('usage transaction')
      await storage.rebuilder.balances(false)
      expect(await storage.ledger.balances()).toEqual(before)
      expect(await wrongFacts(storage)).toEqual({})
    })
  })
}
