import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { encodeEvent } from '../../src/money/event-json.ts'
import { windowAround } from '../../src/money/window.ts'
import { type BucketState, bucketOf, LedgerUnavailable, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { givingEntries } from '../../src/storage/accounts.ts'
import { AwayLimits } from '../../src/storage/cluster/away.ts'
import { Outbox } from '../../src/storage/cluster/credits.ts'
import { EpochFollower } from '../../src/storage/cluster/epochs.ts'
import { Forwarder } from '../../src/storage/cluster/forward.ts'
import { ChargeNotes } from '../../src/storage/cluster/notes.ts'
import { StreamPoster } from '../../src/storage/cluster/post.ts'
import { Journal } from '../../src/storage/journal/client.ts'
import type { PostgresBooks } from '../../src/storage/postgres/open.ts'
import { TENANT_DEFAULTS, type TenantRecord } from '../../src/storage/records.ts'
import { Keys, slotOf } from '../../src/storage/redis/keys.ts'
import type { RedisLimits } from '../../src/storage/redis/limits.ts'
import { recover, type RecoverDeps } from '../../src/worker/recover.ts'
import { holdRequest, reasonOf } from '../conformance/limits-requests.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { noCluster } from '../support/cluster.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { type RedisServer, startRedis, startRedisCluster } from '../support/redis.ts'
import { EVERY_BUCKET, limitsOn, linkTo } from '../support/redis-limits.ts'
import { numbered, openBooks } from '../support/shared-ledger.ts'
import { closingEvent } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const WAIT_MS = 30_000
const KEYS = new Keys('weir')
/** Four tenants in four buckets. */
const [ACME, BOLT, ZETA, OMEGA] = [bucketOf('acme'), bucketOf('bolt'), bucketOf('zeta'), bucketOf('omega')]

interface Rig {
  readonly limits: RedisLimits
  readonly ledger: SharedLedger
  readonly books: PostgresBooks & { readonly schema: string }
  readonly postgres: PostgresServer
  readonly poster: StreamPoster
  readonly deps: RecoverDeps
}

/** What a worker has, on servers of its own, and nothing else that runs. */
async function rigOn(redis_url: string): Promise<Rig> {
  const postgres = await startPostgres()
  const limits = limitsOn(await linkTo(redis_url))
  const books = await openBooks(postgres)
  const { ledger } = books
  const poster = new StreamPoster({ streams: limits, ledger })
  return { limits, ledger, books, postgres, poster, deps: depsOf(limits, books, systemClock()) }
}

function depsOf(limits: RedisLimits, { ledger, records }: PostgresBooks, clock: Clock): RecoverDeps {
  const poster = new StreamPoster({ streams: limits, ledger })
  return {
    limits,
    ledger,
    records,
    drain: (buckets) => poster.drainEach(buckets),
    idle_node: null,
    clock,
    unique: randomUUID,
    windowAt: windowAround,
    sleep: (ms) => sleep(ms),
    on_progress: () => undefined,
  }
}

function tenant(id: string, status: TenantRecord['status']): TenantRecord {
  const rest = { on_client_abort: 'cancel', on_limits_away: 'closed', zones: ['domestic'], limits: [] } as const
  const settings = { locale: 'en', time_zone: 'Asia/Shanghai', audience: 'internal', credit_line_nano: 0n, created_at: 1 } as const
  return { id, name: id, status, ...rest, ...settings, ...TENANT_DEFAULTS }
}

async function stateOf(limits: RedisLimits, bucket: number): Promise<BucketState | undefined> {
  return (await limits.state([bucket]))[0]
}

async function append(redis: RedisServer, bucket: number, body: string, version = '1'): Promise<void> {
  await redis.client.xadd(KEYS.of(bucket).usage, '*', 'v', version, 'event', body, 'epoch', '1')
}

describe.skipIf(noCluster !== null)('filling buckets from the ledger', () => {
  it('one that cannot be filled is filled alone later; all others are open, and stay as they are', async () => {
    const { limits, ledger, postgres, books, deps } = await rigOn((await startRedis()).url)
    const other = (await openBooks(postgres, { schema: books.schema })).ledger
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    let holding: Promise<unknown> = Promise.resolve()
    const drain = async (buckets: readonly number[]) => {
      // Somebody holds the bucket's lock for longer than a lock is waited for.
      const { promise: locked, resolve } = Promise.withResolvers<void>()
      holding = other.withBucket(ACME, async () => {
        resolve()
        await released
      })
      await locked
      return await deps.drain(buckets)
    }
    await expect(recover({ ...deps, drain })).rejects.toBeInstanceOf(LedgerUnavailable)
    const epochs = await ledger.epochs()
    expect(epochs.filter(({ state }) => state === 'closed')).toMatchObject([{ bucket: ACME }])
    const states = await limits.state(EVERY_BUCKET)
    expect(EVERY_BUCKET.filter((bucket) => states[bucket]?.state !== 'open')).toEqual([ACME])
    expect(reasonOf(await limits.hold(holdRequest('a', { tenant: 'bolt', amount_nano: 0n })))).toBe('held')

    release()
    await holding
    expect(await recover(deps)).toBe(1)
    expect(await recover(deps)).toBe(0)
    const after = new Map((await ledger.epochs()).map((epoch) => [epoch.bucket, epoch]))
    for (const epoch of epochs) {
      expect(after.get(epoch.bucket)).toEqual(epoch.bucket === ACME ? { bucket: ACME, epoch: epoch.epoch + 1, state: 'open' } : epoch)
    }
    expect(await limits.openHolds()).toBe(1)
  })

  it('does not wait for the node that fills them while it starts, but for every other gateway', async () => {
    const { ledger, deps } = await rigOn((await startRedis()).url)
    await ledger.beat({ node: 'starting', roles: ['gateway', 'worker'], version: '1', last_seq: 0, unposted: 0, stopped: false })
    let waits = 0
    const counting: RecoverDeps = {
      ...deps,
      sleep: async (ms) => {
        waits += 1
        await deps.sleep(ms)
      },
    }
    expect([await recover({ ...counting, idle_node: 'starting' }), waits]).toEqual([256, 0])
    await ledger.beginEpoch([ACME])
    let reported = false
    const report: RecoverDeps = {
      ...deps,
      sleep: async (ms) => {
        const { epoch } = (await ledger.epochs())[ACME] ?? { epoch: 0 }
        reported = await deps.limits.report(ACME, epoch, 'starting')
        await deps.sleep(ms)
      },
    }
    expect([await recover({ ...report, idle_node: 'another' }), reported]).toEqual([1, true])
  })

  it('a tenant that is made active, or suspended, while its bucket is being filled, is what it became', async () => {
    const { limits, books, deps } = await rigOn((await startRedis()).url)
    const { records } = books
    const put = async (id: string, status: TenantRecord['status']): Promise<void> => {
      await records.put({ kind: 'tenant', record: tenant(id, status) })
      await limits.block('tenant', id, status === 'suspended')
    }
    await put('acme', 'suspended')
    await put('bolt', 'active')
    await put('zeta', 'suspended')
    const load: typeof records.load = async (found) => {
      const loaded = await records.load(found)
      await put('acme', 'active')
      await put('bolt', 'suspended')
      return loaded
    }
    await recover({ ...deps, records: { load, tenant: (id) => records.tenant(id) } })
    const reasons = await Promise.all(['acme', 'bolt', 'zeta'].map((id) => limits.hold(holdRequest(id, { tenant: id, amount_nano: 0n }))))
    expect(reasons.map(reasonOf)).toEqual(['held', 'tenant_suspended', 'tenant_suspended'])
  })

  it('a ledger that was restored from an older copy of itself has every bucket filled from it, so that what is paid to it counts', async () => {
    const [redis, postgres, clock] = [await startRedis(), await startPostgres(), testClock()]
    const limits = limitsOn(await linkTo(redis.url))
    /** Pays to whichever ledger there is, and has limits told. */
    const pay = async ({ ledger }: PostgresBooks, id: string, amount: bigint): Promise<bigint> => {
      const wallet = { tenant: 'acme', id: 'wallet', kind: 'wallet', unit: 'nano_cny' } as const
      await ledger.transact({ id, at: clock.now_ms(), kind: 'top_up', note: 'test', entries: givingEntries(wallet, amount) })
      await new Outbox({ limits, ledger, clock, on_trouble: (error) => console.warn(error) }).deliverTo('acme')
      return (await limits.balance('acme')).available_nano
    }
    const before = await openBooks(postgres)
    expect(await recover(depsOf(limits, before, clock))).toBe(256)
    expect(await pay(before, 't1', 100n)).toBe(100n)
    await before.close()
    await postgres.sql('CREATE DATABASE older TEMPLATE weir', 'postgres')

    const later = await openBooks(postgres, { schema: before.schema })
    for (let times = 0; times < 3; times += 1) {
      clock.advance(6000)
      expect(await recover(depsOf(limits, later, clock))).toBe(0)
    }
    expect(await pay(later, 't2', 50n)).toBe(150n)

    const restored = await openBooks(postgres, { url: await postgres.url('older'), schema: before.schema })
    expect(await recover(depsOf(limits, restored, clock))).toBe(256)
    expect((await limits.balance('acme')).available_nano).toBe(100n)
    expect(await pay(restored, 't3', 7n)).toBe(107n)
    expect(await recover(depsOf(limits, restored, clock))).toBe(0)
  })

  it('what a later release has written is left alone, and keeps no other bucket from being posted or filled', async () => {
    const redis = await startRedis()
    const { limits, ledger, poster, deps } = await rigOn(redis.url)
    const body = (name: string, seq: number): string => encodeEvent(numbered(`e-${name}`, seq, { tenant: name }))
    await append(redis, ACME, body('acme', 1), '2')
    await append(redis, BOLT, body('bolt', 2).replace('"v":1', '"v":2'))
    for (const [name, seq] of [
      ['zeta', 3],
      ['omega', 4],
    ] as const)
      await append(redis, bucketOf(name), body(name, seq))
    const buckets = [ACME, BOLT, ZETA, OMEGA]
    await expect(poster.round(buckets)).rejects.toThrow(/version 2/)
    expect([await limits.lengths(buckets), await ledger.event('e-zeta')]).toMatchObject([[1, 1, 0, 0], { id: 'e-zeta' }])
    await append(redis, OMEGA, body('omega', 5).replaceAll('e-omega', 'e-more'))
    expect(new Map(await poster.drainEach(buckets))).toEqual(
      new Map<number, unknown>([
        [ACME, expect.objectContaining({ name: 'UnknownVersion' })],
        [BOLT, expect.objectContaining({ name: 'EncodingError' })],
      ]),
    )
    expect(await limits.lengths(buckets)).toEqual([1, 1, 0, 0])

    await expect(recover(deps)).rejects.toThrow(/version 2/)
    const states = await limits.state(EVERY_BUCKET)
    expect(EVERY_BUCKET.filter((bucket) => states[bucket]?.state !== 'open')).toEqual([ACME, BOLT].toSorted((a, b) => a - b))
    expect(await limits.lengths([ACME, BOLT])).toEqual([1, 1])
  })
})

describe.skipIf(noCluster !== null)('a gateway whose buckets are being filled', () => {
  it('registers what it has open, whatever keeps events of a bucket from being posted, and looks at no other buckets before', async () => {
    const { limits, ledger, postgres, books, deps } = await rigOn((await startRedis()).url)
    await recover(deps)
    const clock = systemClock()
    const troubles: Error[] = []
    const on_trouble = (error: Error): void => void troubles.push(error)
    const rest = { clock, random: randomBytes, commit_timeout_ms: 5000, keep_days: 7, posting: 'elsewhere' } as const
    const journal = await Journal.start({ data_dir: tempDir(), ...rest, on_trouble })
    atEnd(() => journal.shutdown())
    const local = new AwayLimits({ shared: limits, clock, liveNodes: () => 1 })
    const forwarder = new Forwarder({ journal, notes: new ChargeNotes(journal, on_trouble), limits: local, ledger, clock })
    const follower = new EpochFollower({ limits, ledger, forwarder, node: journal.node, on_trouble })
    for (const name of ['bolt', 'zeta', 'omega']) await journal.close(closingEvent(`e-${name}`, { tenant: name }))
    await limits.hold(holdRequest('running', { amount_nano: 0n }))

    const epoch = await ledger.beginEpoch([ACME, BOLT, ZETA])
    const other = (await openBooks(postgres, { schema: books.schema })).ledger
    await other.withBucket(ZETA, async () => {
      await limits.beginEpoch([ACME, BOLT, ZETA], epoch)
      expect(await follower.look()).toBe(true)
      const states = await limits.state([ACME, BOLT, ZETA])
      expect(states.map(({ state, reported }) => [state, reported])).toEqual(states.map(() => ['filling', [journal.node]]))
      expect(await limits.openHolds()).toBe(1)
    })
    await waitFor(() => ledger.event('e-zeta'), { timeout_ms: WAIT_MS, what: 'the bucket that was locked' })
    expect([(await ledger.event('e-bolt'))?.id, await ledger.event('e-omega')]).toEqual(['e-bolt', null])
    expect(troubles).toEqual([])
  })
})

describe.skipIf(noCluster !== null)('a Redis Cluster of which one master is away', () => {
  it('has the buckets of the others posted and filled, and its own once it is back', async () => {
    const { nodes, url } = await startRedisCluster()
    for (const { client } of nodes) await client.config('SET', 'cluster-require-full-coverage', 'no')
    const { limits, ledger, poster, deps } = await rigOn(url)
    const [gone, flushed, kept] = nodes
    if (gone === undefined || flushed === undefined || kept === undefined) throw new Error('a cluster of three')
    const masterOf = (bucket: number): RedisServer | undefined => nodes[Math.floor((slotOf(KEYS.of(bucket).meta) * nodes.length) / 16_384)]
    const [of_gone = [], of_flushed = [], of_kept = []] = nodes.map((node) => EVERY_BUCKET.filter((bucket) => masterOf(bucket) === node))
    expect(await recover(deps)).toBe(256)

    await gone.kill()
    await waitFor(
      () =>
        limits.state(of_gone.slice(0, 1)).then(
          () => false,
          () => true,
        ),
      { timeout_ms: WAIT_MS, what: 'the end to be seen' },
    )
    // The others must have taken note of it, too.
    await waitFor(() => limits.state([...of_flushed, ...of_kept]), { timeout_ms: WAIT_MS, what: 'the others' })
    await flushed.client.flushall()
    await expect(recover(deps)).rejects.toMatchObject({ name: 'LimitsUnavailable' })
    const epochOf = async (bucket = 0): Promise<unknown> =>
      (({ state, epoch }) => [state, epoch])((await stateOf(limits, bucket)) ?? { state: '', epoch: 0 })
    expect([await epochOf(of_flushed[0]), await epochOf(of_kept[0])]).toEqual([
      ['open', 2],
      ['open', 1],
    ])
    const named = ['acme', 'bolt', 'zeta', 'omega', 'a', 'b', 'c', 'd'].find((name) => of_kept.includes(bucketOf(name))) ?? ''
    await append(kept, bucketOf(named), encodeEvent(numbered('e-1', 1, { tenant: named })))
    await expect(poster.round(EVERY_BUCKET)).rejects.toMatchObject({ name: 'LimitsUnavailable' })
    expect(await ledger.event('e-1')).toMatchObject({ tenant: named })

    await gone.start()
    await waitFor(
      () =>
        recover(deps).then(
          (filled) => filled > 0,
          () => false,
        ),
      { timeout_ms: WAIT_MS, what: 'its buckets to be filled' },
    )
    const states = await limits.state(EVERY_BUCKET)
    expect([states.filter(({ state }) => state !== 'open'), await epochOf(of_kept[0])]).toEqual([[], ['open', 1]])
  })
})
