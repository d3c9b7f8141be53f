import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import { testClock } from '../support/clock.ts'
import { noPostgres, startPostgres } from '../support/postgres.ts'
import { openPostgresStorage } from '../support/postgres-storage.ts'
import { spawnNode } from '../support/processes.ts'
import { faultRounds, faultSeed, seededRandom } from '../support/random.ts'
import { tempDir } from '../support/temp.ts'

const NOON = Date.parse('2026-11-02T12:00:00+08:00')
const LATER = NOON + 20 * DAY_MS
const DAYS = 3
const REQUESTS = 600
/** Kills per round, each at any moment of what an undisturbed run takes; then one run is left alone. */
const KILLS = 3
/** More of them only while every run ended before its kill. */
const MOST_ROUNDS = 15
const CHILD = 'tests/faults/postgres-archive-child.ts'

it.skipIf(noPostgres !== null)(
  'archiving killed at any moment: the audit holds after every kill, and in the end every event is in one file, once',
  async () => {
    const random = seededRandom(faultSeed())
    const server = await startPostgres()
    const [data_dir, clock] = [tempDir(), testClock(NOON)]
    const making = await openPostgresStorage(server, { data_dir, schema: 'weir', clock, database: 'made' })
    for (let day = 0; day < DAYS; day += 1) {
      await serveDay(making, clock.now_ms(), REQUESTS)
      clock.advance(DAY_MS)
    }
    clock.advance(LATER - clock.now_ms())
    await serveDay(making, clock.now_ms(), 1)
    while (await making.ledger.upkeep(LATER));
    const { events, amount_nano, balances } = await making.ledger.auditFacts()
    await making.close()
    let killed = 0
    // The first round measures how long a run takes; one that ends before its kill says that it takes less.
    let run_ms = 0
    const rounds = Math.max(2, Math.ceil(faultRounds() / 5))
    for (let round = 0; round <= rounds || (killed === 0 && round < MOST_ROUNDS); round += 1) {
      await server.sql(`CREATE DATABASE round_${round} TEMPLATE made`, 'postgres')
      const [url, directory] = [await server.url(`round_${round}`), join(tempDir(), 'archive')]
      const books = await openPostgres({ url, clock: testClock(LATER) })
      for (let [run, ended] = [0, false]; !ended; run += 1) {
        const child = spawnNode(CHILD, [url, directory, String(LATER)])
        await child.waitForOutput(/begun/, 30_000)
        const begun_ms = performance.now()
        if (round > 0 && run < KILLS) {
          await Promise.race([child.exited, sleep(random.whole(0, run_ms))])
          child.kill('SIGKILL')
        }
        ended = (await child.exited).code === 0
        if (round === 0) run_ms = Math.ceil(performance.now() - begun_ms)
        else if (ended && run < KILLS) run_ms = Math.ceil(run_ms / 2)
        killed += ended ? 0 : 1
        expect(await wrongFacts(books)).toEqual({})
        expect(await books.ledger.auditFacts()).toMatchObject({ events, amount_nano, balances })
      }
      const archive = books.archiveIn(directory, 7)
      expect((await archive.list()).map(({ state, requests }) => ({ state, requests }))).toEqual(
        Array.from({ length: DAYS }, () => ({ state: 'closed', requests: REQUESTS })),
      )
      expect(await archive.verify(() => undefined)).toEqual([])
      expect(readdirSync(directory)).toHaveLength(DAYS)
      expect((await books.ledger.events({ limit: 1, to_ms: LATER - DAY_MS })).events).toEqual([])
      await books.close()
    }
    console.info(`${killed} runs of the archive were killed`)
    expect(killed).toBeGreaterThan(0)
  },
)
