import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'
import { madeAt } from '../../src/base/ids.ts'
import { noCluster } from '../support/cluster.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import { REPO_ROOT } from '../support/root.ts'
import { expectAudit, newCluster, underLoad } from '../support/two-gateways.ts'

const CLOCK = pathToFileURL(`${REPO_ROOT}/tests/support/stepping-clock.ts`).href
const off = (off_ms: number): { env: Record<string, string> } => ({
  env: { NODE_OPTIONS: `--import=${CLOCK}`, WEIR_TEST_CLOCK_OFF_MS: String(off_ms) },
})
const MINUTE_MS = 60_000

it.skipIf(noCluster !== null)(
  'machines whose clocks are hours apart and are set back and forth under load hold, charge and post as if they were right',
  async () => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const machines = { 'gateway-a': off(-30 * MINUTE_MS), 'gateway-b': off(90 * MINUTE_MS), control: off(20 * MINUTE_MS) }
    const cluster = await newCluster({ redis_url: redis.url, postgres, machines })
    const { gateways, control, crowd } = cluster
    await underLoad(cluster, async () => {
      for (const machine of [...gateways, control]) {
        machine.process.kill('SIGUSR2')
        await sleep(1500)
      }
    })
    await expectAudit(cluster)
    expect(crowd.sightings.filter(({ outcome }) => outcome === 'completed').length).toBeGreaterThan(50)
    // By the clock that all of them share.
    const now_ms = Date.now()
    const { events } = await cluster.fleet.books()
    for (const { admitted_at } of events) expect(Math.abs(now_ms - admitted_at)).toBeLessThan(10 * MINUTE_MS)
    // An id says what its process took the time for.
    expect(events.some(({ id, admitted_at }) => (madeAt(id) ?? 0) - admitted_at > 80 * MINUTE_MS)).toBe(true)
    expect(events.some(({ id, admitted_at }) => (madeAt(id) ?? 0) - admitted_at < -25 * MINUTE_MS)).toBe(true)
  },
)
