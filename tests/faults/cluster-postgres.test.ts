import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { noCluster } from '../support/cluster.ts'
import { startPostgres } from '../support/postgres.ts'
import { faultRounds } from '../support/random.ts'
import { startRedis } from '../support/redis.ts'
import { expectAudit, newCluster, served, underLoad } from '../support/two-gateways.ts'

/** A minute where there is time for it. */
const AWAY_MS = faultRounds() >= 100 ? 60_000 : 12_000

it.skipIf(noCluster !== null)(
  'PostgreSQL stopped under load: requests are served all the while, streams fill up to their cap, and everything is posted once it is back',
  async () => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    // So small that it is reached: from there on events wait in journals alone.
    const cluster = await newCluster({ redis_url: redis.url, postgres, settings: 'cluster: {stream_cap: 100}\n' })
    const { crowd } = cluster
    await underLoad(cluster, async () => {
      await postgres.stop()
      const before = crowd.sightings.length
      await sleep(AWAY_MS)
      await served(crowd)
      const codes = crowd.sightings.slice(before).map(({ code }) => code)
      expect(codes).not.toContain('admission_unavailable')
      await postgres.start()
    })
    await expectAudit(cluster)
  },
)

it.skipIf(noCluster !== null)('PostgreSQL killed under load, three times: what it had not committed is posted again, once', async () => {
  const [redis, postgres] = [await startRedis(), await startPostgres({ fsync: true })]
  const cluster = await newCluster({ redis_url: redis.url, postgres })
  for (let time = 0; time < 3; time += 1) {
    await underLoad(cluster, async () => {
      await postgres.kill()
      await postgres.start()
    })
  }
  await expectAudit(cluster)
})
