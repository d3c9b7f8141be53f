import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { chatPlan, type Crowd, type Target } from '../support/audit-clients.ts'
import { admin, knownTo, newTenant, noCluster } from '../support/cluster.ts'
import { startHalfOpenProxy } from '../support/half-open.ts'
import { startRedis } from '../support/redis.ts'
import { expectAudit, newCluster, OPEN_TIMEOUT_MS, underLoad } from '../support/two-gateways.ts'
import { waitFor } from '../support/wait.ts'

/** How many refusals of this code clients have seen. */
function refusals({ sightings }: Crowd, code: string): number {
  return sightings.filter((seen) => seen.code === code).length
}

it.skipIf(noCluster !== null)(
  'Redis restarted under load, with what it had on disk and without: buckets are filled from the ledger, and nothing is lost',
  async () => {
    const redis = await startRedis({ appendonly: true })
    const cluster = await newCluster({ redis_url: redis.url })
    await underLoad(cluster, async () => {
      await redis.stop()
      await sleep(500)
      await redis.start()
    })
    await expectAudit(cluster)
    await underLoad(cluster, async () => {
      await redis.kill()
      await redis.start()
      await waitFor(() => redis.client.flushall(), { timeout_ms: OPEN_TIMEOUT_MS, what: 'the test to be connected again' })
    })
    expect(refusals(cluster.crowd, 'admission_unavailable')).toBeGreaterThan(0)
    await expectAudit(cluster)
  },
)

it.skipIf(noCluster !== null)(
  'Redis killed and its replica, detached a second before, promoted: the lost second is made good from journals and ledger',
  async () => {
    const master = await startRedis()
    const replica = await startRedis({ replica_of: master })
    const proxy = await startHalfOpenProxy(master.port)
    const cluster = await newCluster({ redis_url: `redis://127.0.0.1:${proxy.port}` })
    await underLoad(cluster, async () => {
      // From here on the replica hears nothing: its second is lost.
      await replica.promote()
      await sleep(1000)
      await master.kill()
      proxy.retarget(replica.port)
    })
    await expectAudit(cluster)
  },
)

it.skipIf(noCluster !== null)('Redis flushed under load, twice: every bucket is closed until it is what the ledger says', async () => {
  const redis = await startRedis()
  const cluster = await newCluster({ redis_url: redis.url })
  for (let time = 0; time < 2; time += 1) await underLoad(cluster, async () => void (await redis.client.flushall()))
  await expectAudit(cluster)
})

it.skipIf(noCluster !== null)('Redis without memory: what is new is refused, what runs ends and is charged', async () => {
  const redis = await startRedis()
  const cluster = await newCluster({ redis_url: redis.url })
  const { crowd, gateways, payers } = cluster
  const target: Target = { url: gateways[0]?.url ?? '', key: payers[0]?.key ?? '' }
  const running = crowd.send(target, chatPlan({ stream: true, directives: { tokens: 100, token_delay_ms: 20 } }))
  await sleep(500)
  await redis.client.config('SET', 'maxmemory', '1mb')
  const refused = await crowd.send(target, chatPlan({ stream: false, directives: { tokens: 5 } }))
  expect(refused).toMatchObject({ outcome: 'refused', code: 'admission_unavailable' })
  expect((await running).outcome).toBe('completed')
  await redis.client.config('SET', 'maxmemory', '0')
  expect((await crowd.send(target, chatPlan({ stream: false, directives: { tokens: 5 } }))).outcome).toBe('completed')
  await expectAudit(cluster)
})

it.skipIf(noCluster !== null)(
  'Redis away: a tenant with a contract goes on up to its credit line, everyone else is refused, and afterwards all is charged',
  async () => {
    const redis = await startRedis()
    const cluster = await newCluster({ redis_url: redis.url })
    const { control, crowd, gateways, payers } = cluster
    const key = await newTenant(control, 'contract', '0', { credit_line_cny: '0.02', on_limits_away: 'open' })
    const [url = ''] = gateways.map((gateway) => gateway.url)
    const plan = chatPlan({ stream: false, directives: { tokens: 300 } })
    await knownTo(gateways, key)
    expect((await crowd.send({ url, key }, plan)).outcome).toBe('completed')
    await redis.stop()
    expect(await crowd.send({ url, key: payers[0]?.key ?? '' }, plan)).toMatchObject({ outcome: 'refused', code: 'admission_unavailable' })
    const outcomes: (string | null)[] = []
    for (let n = 0; n < 20; n += 1) {
      const { outcome, code } = await crowd.send({ url, key }, plan)
      outcomes.push(outcome === 'completed' ? outcome : code)
    }
    expect(new Set(outcomes)).toEqual(new Set(['completed', 'insufficient_balance']))
    await redis.start()
    await waitFor(async () => (await crowd.send({ url, key: payers[0]?.key ?? '' }, plan)).outcome === 'completed', {
      timeout_ms: OPEN_TIMEOUT_MS,
      what: 'admission to be back',
    })
    await expectAudit(cluster, { contract: 20_000_000n })
    const balance = (await admin(control, '/balance/contract')) as { readonly available_cny: string }
    expect(Number(balance.available_cny)).toBeLessThan(0)
  },
)
