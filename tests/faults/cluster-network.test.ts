import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { noCluster } from '../support/cluster.ts'
import { type Direction, startHalfOpenProxy } from '../support/half-open.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import { expectAudit, newCluster, underLoad } from '../support/two-gateways.ts'

/** Longer than a lease of 30 s would take too long for every run; longer than every timeout of a command. */
const LOST_MS = 6000

it.skipIf(noCluster !== null).each<Direction>(['to_server', 'to_client'])(
  'one gateway loses what goes %s between it and Redis, while connections stay open: nobody is charged twice or not at all',
  async (direction) => {
    const redis = await startRedis()
    const proxy = await startHalfOpenProxy(redis.port)
    const cluster = await newCluster({
      redis_url: redis.url,
      machines: { 'gateway-a': { redis_url: `redis://127.0.0.1:${proxy.port}` } },
    })
    await underLoad(cluster, async () => {
      proxy.blackhole(direction)
      await sleep(LOST_MS)
      proxy.heal()
    })
    await expectAudit(cluster)
  },
)

it.skipIf(noCluster !== null).each<Direction>(['to_server', 'to_client'])(
  'the machine that posts loses what goes %s between it and PostgreSQL: whatever it posted or not, every event is posted once',
  async (direction) => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const proxy = await startHalfOpenProxy(postgres.port)
    const database_url = (await postgres.url()).replace(`:${postgres.port}/`, `:${proxy.port}/`)
    expect(database_url).toContain(`:${proxy.port}/`)
    const cluster = await newCluster({ redis_url: redis.url, postgres, machines: { control: { database_url } } })
    await underLoad(cluster, async () => {
      proxy.blackhole(direction)
      await sleep(LOST_MS)
      proxy.heal()
    })
    await expectAudit(cluster)
  },
)
