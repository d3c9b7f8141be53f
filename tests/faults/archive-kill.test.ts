import { cpSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { DAY_MS, serveDay, wrongFacts } from '../support/archive.ts'
import { testClock } from '../support/clock.ts'
import { spawnNode } from '../support/processes.ts'
import { faultRounds, faultSeed, seededRandom } from '../support/random.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const NOON = Date.parse('2026-11-02T12:00:00+08:00')
const LATER = NOON + 20 * DAY_MS
const DAYS = 3
const REQUESTS = 1500
/** Kills per round, each at any moment of what an undisturbed run takes; then one run is left alone. */
const KILLS = 4
const CHILD = 'tests/faults/archive-child.ts'

it('archiving killed at any moment: the audit holds after every kill, and in the end every event is in one file, once', async () => {
  const random = seededRandom(faultSeed())
  const made = join(tempDir(), 'made')
  const clock = testClock(NOON)
  const making = await openTest(made, { clock })
  for (let day = 0; day < DAYS; day += 1) {
    await serveDay(making, clock.now_ms(), REQUESTS)
    clock.advance(DAY_MS)
  }
  clock.advance(LATER - clock.now_ms())
  await serveDay(making, clock.now_ms(), 1)
  const { events, amount_nano, balances } = await making.ledger.auditFacts()
  await making.close()
  let killed = 0
  // The first round measures how long a run takes.
  let run_ms = 0
  for (let round = 0; round <= Math.max(2, Math.ceil(faultRounds() / 5)); round += 1) {
    const data_dir = join(tempDir(), 'data')
    cpSync(made, data_dir, { recursive: true })
    for (let [run, ended] = [0, false]; !ended; run += 1) {
      const child = spawnNode(CHILD, [data_dir, String(LATER)])
      await child.waitForOutput(/begun/, 30_000)
      const begun_ms = performance.now()
      if (round > 0 && run < KILLS) {
        await Promise.race([child.exited, sleep(random.whole(0, run_ms))])
        child.kill('SIGKILL')
      }
      ended = (await child.exited).code === 0
      if (round === 0) run_ms = Math.ceil(performance.now() - begun_ms)
      killed += ended ? 0 : 1
      const storage = await openTest(data_dir, { clock: testClock(LATER) })
      expect(await wrongFacts(storage)).toEqual({})
      expect(await storage.ledger.auditFacts()).toMatchObject({ events, amount_nano, balances })
      if (ended) {
        const archived = await storage.archive.list()
        expect(archived.map(({ state, requests }) => ({ state, requests }))).toEqual(
          Array.from({ length: DAYS }, () => ({ state: 'closed', requests: REQUESTS })),
        )
        expect(await storage.archive.verify(() => undefined)).toEqual([])
        expect(readdirSync(join(data_dir, 'archive'))).toHaveLength(DAYS)
        expect((await storage.ledger.events({ limit: 1, to_ms: LATER - DAY_MS })).events).toEqual([])
      }
      await storage.close()
    }
  }
  console.info(`${killed} runs of the archive were killed`)
  expect(killed).toBeGreaterThan(0)
})
