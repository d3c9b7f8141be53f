import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { audit, type Evidence } from '../support/audit.ts'
import { chatPlan, Crowd, type Target } from '../support/audit-clients.ts'
import { admin, type Fleet, knownTo, newFleet, newTenant, noCluster } from '../support/cluster.ts'
import type { GatewayProcess } from '../support/fleet.ts'
import { startHalfOpenProxy } from '../support/half-open.ts'
import { loadOf, openPayers, type Payer, refill } from '../support/payers.ts'
import { startPostgres } from '../support/postgres.ts'
import { faultSeed, type Random, seededRandom } from '../support/random.ts'
import { startRedis } from '../support/redis.ts'
import { waitFor } from '../support/wait.ts'

const OPEN_TIMEOUT_MS = 30_000

/** Two gateways and a machine with the other roles. */
interface Cluster {
  readonly fleet: Fleet
  readonly gateways: readonly GatewayProcess[]
  readonly control: GatewayProcess
  readonly payers: readonly Payer[]
  readonly crowd: Crowd
  readonly random: Random
}

async function newCluster(redis_url: string, more: { readonly env?: Record<string, string> } = {}): Promise<Cluster> {
  const random = seededRandom(faultSeed())
  const fleet = await newFleet({ redis_url, postgres: await startPostgres() })
  const control = await fleet.start('control', { roles: 'control,worker', ...more })
  const gateways = [
    await fleet.start('gateway-a', { roles: 'gateway', ...more }),
    await fleet.start('gateway-b', { roles: 'gateway', ...more }),
  ]
  const payers = await openPayers(control)
  await refill(control, payers, 1)
  return { fleet, gateways, control, payers, crowd: new Crowd(random), random }
}

/** Load on all gateways while `work` is done, and some time more. */
async function underLoad({ payers, gateways, crowd }: Cluster, work: () => Promise<void>): Promise<void> {
  const over = new AbortController()
  const urls = gateways.map(({ url }) => url)
  const load = loadOf(payers, urls, crowd, over.signal)
  try {
    await sleep(1500)
    await work()
    await served(crowd)
  } finally {
    over.abort()
    await load
  }
}

/** Requests are answered again. */
async function served(crowd: Crowd): Promise<void> {
  const before = crowd.sightings.length
  await waitFor(() => crowd.sightings.slice(before).filter(({ outcome }) => outcome === 'completed').length >= 10, {
    timeout_ms: OPEN_TIMEOUT_MS,
    what: 'requests to be answered again',
  })
}

/** At rest everything agrees: clients, sandbox, journals, ledger, and what Redis believes. */
async function expectAudit({ fleet, control, crowd }: Cluster, lines: Evidence['lines'] = {}): Promise<void> {
  await fleet.rest(control)
  expect(audit({ sightings: crowd.sightings, served: await fleet.sandbox.served(), books: await fleet.books(), lines })).toEqual([])
  await fleet.expectAudit('control')
}

/** How many refusals of this code clients have seen. */
function refusals({ sightings }: Crowd, code: string): number {
  return sightings.filter((seen) => seen.code === code).length
}

it.skipIf(noCluster !== null)(
  'Redis restarted under load, with what it had on disk and without: buckets are filled from the ledger, and nothing is lost',
  async () => {
    const redis = await startRedis({ appendonly: true })
    const cluster = await newCluster(redis.url)
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
    const cluster = await newCluster(`redis://127.0.0.1:${proxy.port}`)
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
  const cluster = await newCluster(redis.url)
  for (let time = 0; time < 2; time += 1) await underLoad(cluster, async () => void (await redis.client.flushall()))
  await expectAudit(cluster)
})

it.skipIf(noCluster !== null)('Redis without memory: what is new is refused, what runs ends and is charged', async () => {
  const redis = await startRedis()
  const cluster = await newCluster(redis.url)
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
    const cluster = await newCluster(redis.url)
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
