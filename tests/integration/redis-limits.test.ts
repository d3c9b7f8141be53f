import { Redis } from 'ioredis'
import { describe, expect, it } from 'vitest'
import { bucketOf, LimitsUnavailable } from '../../src/storage/cluster-ports.ts'
import type { RedisLimits } from '../../src/storage/redis/limits.ts'
import { slotOf } from '../../src/storage/redis/keys.ts'
import { openRedis } from '../../src/storage/redis/link.ts'
import { grant, holdRequest, reasonOf, rule, settleRequest } from '../conformance/limits-requests.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { freePort } from '../support/ports.ts'
import { REDIS_PROGRAM, type RedisServer, type RedisServerOptions, startRedis, startRedisCluster } from '../support/redis.ts'
import { EVERY_BUCKET, limitsOn, linkTo, openBuckets } from '../support/redis-limits.ts'
import { waitFor } from '../support/wait.ts'

const ACME = bucketOf('acme')
const WAIT_MS = 20_000
/** The others of a cluster must agree on it. */
const ELECTION_MS = 50_000

/** A server with acme's bucket open and a wallet in it, and limits on it. */
async function opened(options: RedisServerOptions = {}): Promise<{ readonly server: RedisServer; readonly limits: RedisLimits }> {
  const server = await startRedis(options)
  const limits = limitsOn(await linkTo(server.url))
  await openBuckets(limits, [ACME])
  await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
  return { server, limits }
}

async function kindOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'answered'
  } catch (error) {
    if (error instanceof LimitsUnavailable) return error.kind
    throw error
  }
}

/** How often clients have run a command, not counting what scripts ran. */
async function calls(server: RedisServer, command: string): Promise<number> {
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await server.client.info('commandstats'))?.[1] ?? 0)
}

describe.skipIf(REDIS_PROGRAM === null)('limits in Redis: commands', () => {
  it('a short request is two commands, and a hundred renewals of a bucket are one', async () => {
    const { server, limits } = await opened()
    const rules = [rule('budget', 1000n), rule('concurrency', 200n), rule('requests_per_minute', 1000n)]
    const one = async (id: string) => {
      await limits.hold(holdRequest(id, { rules, amount_nano: 1n }))
      await limits.settle({ ...settleRequest(id, 1n), event: { ref: 'n 1', body: '{}' } })
    }
    await one('first')
    await server.client.config('RESETSTAT')
    await one('second')
    const seen = (await server.client.info('commandstats')).split('\r\n').filter((line) => /calls=/.test(line) && !/config|info/.test(line))
    expect(await calls(server, 'evalsha')).toBe(2)
    expect(seen.filter((line) => /cmdstat_(eval|multi|exec|script)/.test(line))).toHaveLength(1)
    const ids = Array.from({ length: 100 }, (_, index) => `r${index}`)
    for (const id of ids) await limits.hold(holdRequest(id, { rules, amount_nano: 1n }))
    await server.client.config('RESETSTAT')
    const renewed = await limits.extend(ids.map((id) => ({ id, tenant: 'acme', tokens: 100, amount_nano: 2n, lease_ms: 30_000 })))
    expect([renewed.filter(({ state }) => state === 'extended').length, await calls(server, 'evalsha')]).toEqual([100, 1])
  })

  it('the runs of all servers are asked of each of them once', async () => {
    const { server, limits } = await opened()
    await server.client.config('RESETSTAT')
    const runOf = await limits.serverRuns()
    expect([await calls(server, 'info'), new Set(EVERY_BUCKET.map(runOf)).size]).toEqual([1, 1])
  })

  it('buckets that could not be extended are told of', async () => {
    const { server, limits } = await opened()
    const errors: Error[] = []
    const other = limitsOn(await linkTo(server.url), { onError: (error) => errors.push(error) })
    await limits.hold(holdRequest('a'))
    const renewal = (tenant: string) => ({ id: 'a', tenant, tokens: 100, amount_nano: 100n, lease_ms: 30_000 })
    expect(await other.extend([renewal('bolt'), renewal('acme')])).toMatchObject([{ id: 'a', state: 'extended' }])
    expect(errors).toMatchObject([{ name: 'LimitsUnavailable', kind: 'closed' }])
  })

  it('a server that has forgotten its scripts is given them again', async () => {
    const { server, limits } = await opened()
    await server.client.script('FLUSH')
    expect(reasonOf(await limits.hold(holdRequest('a')))).toBe('held')
  })

  it('grants that are used up or expired are not on the list that an admission reads', async () => {
    const { server, limits } = await opened()
    let seq = 1
    const credit = async (id: string, delta: bigint, overrides: Parameters<typeof grant>[1] = {}) => {
      seq += 1
      await limits.credit({ grant: grant(id, { priority: 1, ...overrides }), delta, seq })
    }
    const walk_bytes = async () => (await server.client.hget(`weir:{b${ACME}}:a:acme`, 'w'))?.length ?? 0
    await limits.hold(holdRequest('warm'))
    await limits.settle(settleRequest('warm', 1n))
    const before = await walk_bytes()
    for (let index = 0; index < 50; index += 1) await credit(`old${index}`, 10n)
    for (let index = 0; index < 50; index += 1) await credit(`expired${index}`, 10n, { expires_at: 1_000_000 })
    expect(await walk_bytes()).toBeGreaterThan(before * 50)
    const parts = Array.from({ length: 50 }, (_, index) => ({ grant: `old${index}`, unit: 'nano_cny' as const, amount: 10n }))
    await limits.hold(holdRequest('a', { amount_nano: 500n }))
    await limits.settle(settleRequest('a', 500n, parts))
    expect(await walk_bytes()).toBe(before)
    expect((await limits.balance('acme')).available_nano).toBe(999n)
  })

  it('a long stream keeps the counters of its rates and windows alive', async () => {
    const server = await startRedis()
    const clock = testClock()
    const limits = limitsOn(await linkTo(server.url), { clock })
    await openBuckets(limits, [ACME])
    const window = { name: '5h', start_ms: 0, end_ms: 1, next_end_ms: 2 } as const
    const rules = [rule('requests_per_minute', 60n), rule('tokens_window', 1000n, window), rule('budget', 5n)]
    await limits.hold(holdRequest('a', { rules, amount_nano: 0n }))
    const keys = ['r-k', 'T5k', 'B-k'].map((name) => `weir:{b${ACME}}:c:${name}:key-1`)
    for (const key of keys.slice(0, 2)) await server.client.pexpire(key, 5000)
    const renewal = { id: 'a', tenant: 'acme', tokens: 100, amount_nano: 0n, lease_ms: 30_000 }
    await limits.extend([renewal])
    expect(await server.client.pttl(keys[0] ?? '')).toBeLessThanOrEqual(5000)
    clock.advance(600_000)
    await limits.extend([renewal])
    const ttls = await Promise.all(keys.map((key) => server.client.pttl(key)))
    expect(ttls[0]).toBeGreaterThan(1_000_000)
    expect(ttls[1]).toBeGreaterThan(1_000_000)
    expect(ttls[2]).toBe(-1)
  })

  it('what nobody uses is forgotten: rates once they are full, concurrency at nothing, windows after their end', async () => {
    const { server, limits } = await opened()
    const end_ms = Date.now() + 3_600_000
    const day = { name: 'day', start_ms: 0, end_ms, next_end_ms: end_ms + 86_400_000 } as const
    const rules = [rule('requests_per_minute', 60n), rule('concurrency', 5n), rule('budget', 1000n), rule('tokens_window', 1000n, day)]
    await limits.hold(holdRequest('a', { rules }))
    const key = (name: string) => `weir:{b${ACME}}:c:${name}`
    expect(await server.client.pttl(key('c-k:key-1'))).toBe(-1)
    await limits.settle(settleRequest('a', 1n))
    const minute_ms = 60_000
    const ttls = await Promise.all(['r-k', 'c-k', 'B-k', 'Tdk'].map((name) => server.client.pttl(key(`${name}:key-1`))))
    expect(ttls[0]).toBeGreaterThan(15 * minute_ms)
    expect(ttls[0]).toBeLessThan(32 * minute_ms)
    expect(ttls.slice(1, 3)).toEqual([-2, -1])
    expect(ttls[3]).toBeGreaterThan(60 * minute_ms)
    expect(ttls[3]).toBeLessThan(2 * 60 * minute_ms)
    expect(await server.client.pttl(`weir:{b${ACME}}:h:a`)).toBeLessThanOrEqual(15 * minute_ms)
    expect(await server.client.zcard(`weir:{b${ACME}}:leases`)).toBe(0)
  })
})

describe.skipIf(REDIS_PROGRAM === null)('limits in Redis: failures', () => {
  it('when memory is full nothing new is admitted, and all that is open can end', async () => {
    const { server, limits } = await opened()
    const other = limitsOn(await linkTo(server.url))
    const rules = [rule('budget', 1000n)]
    for (const id of ['a', 'b', 'c', 'd']) await limits.hold(holdRequest(id, { rules, lease_ms: id === 'd' ? 1 : 30_000 }))
    const used = Number(/used_memory:(\d+)/.exec(await server.client.info('memory'))?.[1])
    await server.client.config('SET', 'maxmemory', String(used - 100_000))
    expect(await kindOf(limits.hold(holdRequest('e')))).toBe('full')
    expect(await limits.extend([{ id: 'a', tenant: 'acme', tokens: 200, amount_nano: 120n, lease_ms: 30_000 }])).toMatchObject([
      { state: 'extended' },
    ])
    const outcome = await limits.settleEvent({ ...settleRequest('a', 110n), event: { ref: 'n 1', body: '{}' } })
    expect(outcome).toEqual({ state: 'settled', epoch: 1, appended: true, ref: 'n 1', replaced: false })
    await limits.release('b', 'acme')
    expect(await other.settle(settleRequest('c', 1n))).toBe('settled')
    expect(await waitFor(async () => (await limits.sweepBucket(ACME, 5))[0], { timeout_ms: WAIT_MS, what: 'the sweep' })).toMatchObject({
      receipt: { id: 'd' },
    })
    await limits.block('key', 'key-1', true)
    expect(await limits.credit({ grant: grant('wallet'), delta: 1n, seq: 2 })).toBe('applied')
    const [entry] = (await limits.read([ACME], 1)).get(ACME) ?? []
    await limits.acknowledge(ACME, entry?.id ?? '')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 790n, open_holds: 1 })
    await server.client.config('SET', 'maxmemory', '0')
    await limits.block('key', 'key-1', false)
    expect(reasonOf(await limits.hold(holdRequest('e')))).toBe('held')
  })

  it('a hold that got no answer is given back once the server answers again, unless it is asked for again', async () => {
    const { server, limits } = await opened()
    const rules = [rule('concurrency', 5n), rule('budget', 1000n)]
    server.pause()
    const asked = ['lost', 'again'].map((id) => kindOf(limits.hold(holdRequest(id, { rules }))))
    expect(await Promise.all(asked)).toEqual(['unknown', 'unknown'])
    server.resume()
    const again = await waitFor(() => limits.hold(holdRequest('again', { rules })), { timeout_ms: WAIT_MS, what: 'the second admission' })
    expect(again).toMatchObject({ ok: true })
    const gone = async () => (await limits.balance('acme')).open_holds === 1 && (await limits.openHolds()) === 1
    await waitFor(gone, { timeout_ms: WAIT_MS, what: 'the lost hold to be given back' })
    expect((await limits.cut(ACME, ['acme'], [])).holds).toEqual(new Set(['again']))
    expect((await limits.states(rules)).map(({ held }) => held)).toEqual([1n, 100n])
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 900n })
  })

  it('a release that failed is tried again', async () => {
    const { server, limits } = await opened()
    await limits.hold(holdRequest('a'))
    await limits.hold(holdRequest('b'))
    server.pause()
    expect(await kindOf(limits.release('a', 'acme'))).toBe('unknown')
    expect(limits.isMine('a')).toBe(false)
    server.resume()
    await waitFor(async () => (await limits.openHolds()) === 1, { timeout_ms: WAIT_MS, what: 'the release to be made' })
    await server.client.hset(`weir:{b${ACME}}:meta`, 'state', 'filling')
    expect(await kindOf(limits.release('b', 'acme'))).toBe('closed')
    await server.client.hset(`weir:{b${ACME}}:meta`, 'state', 'open')
    await waitFor(async () => (await limits.openHolds()) === 0, { timeout_ms: WAIT_MS, what: 'the second release to be made' })
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 1000n, held_nano: 0n, open_holds: 0 })
  })

  it('a server that is away is known at once, nothing is kept to be sent later, and it is found again', async () => {
    const { server, limits } = await opened({ appendonly: true })
    await limits.hold(holdRequest('a'))
    server.pause()
    const caught = kindOf(limits.hold(holdRequest('caught')))
    await server.kill()
    // It was sent, so nobody knows.
    expect(await caught).toBe('unknown')
    await waitFor(async () => (await kindOf(limits.hold(holdRequest('b')))) === 'away', { timeout_ms: WAIT_MS, what: 'the end to be seen' })
    for (const call of [limits.settle(settleRequest('a', 60n)), limits.balance('acme'), limits.openHolds(), limits.state([ACME])]) {
      expect(await kindOf(call)).toBe('away')
    }
    await server.start()
    await waitFor(async () => (await kindOf(limits.state([ACME]))) === 'answered', { timeout_ms: WAIT_MS, what: 'the connection' })
    const [state] = await limits.state([ACME])
    expect([state?.state, state?.run_id === (await limits.serverRuns())(ACME)]).toEqual(['open', false])
    // It has its data again, perhaps not the last of it: the bucket is closed until it was filled.
    expect(await kindOf(limits.hold(holdRequest('b')))).toBe('closed')
    await openBuckets(limits, [ACME], 2)
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 0n, open_holds: 0 })
  })

  it('a server that was flushed, or lost everything, has no bucket open', async () => {
    const { server, limits } = await opened()
    await server.client.flushall()
    expect([await kindOf(limits.hold(holdRequest('a'))), await limits.state([ACME])]).toEqual([
      'closed',
      [{ state: 'absent', epoch: null, run_id: null, reported: [], marks: [] }],
    ])
    await openBuckets(limits, [ACME], 2)
    await server.stop()
    await server.start()
    await waitFor(async () => (await kindOf(limits.balance('acme'))) === 'closed', { timeout_ms: WAIT_MS, what: 'the restart to be seen' })
  })

  it('a replica that has become a master keeps its buckets closed, and is not used before', async () => {
    const { server, limits } = await opened()
    const replica = await startRedis({ replica_of: server })
    const errors: string[] = []
    const early = openRedis({ url: replica.url, onError: ({ message }) => errors.push(message) })
    atEnd(() => early.close())
    await expect(early.ready(WAIT_MS)).rejects.toThrow(/replica/)
    await limits.hold(holdRequest('a'))
    await waitFor(async () => (await replica.client.zcard(`weir:{b${ACME}}:leases`)) === 1, { timeout_ms: WAIT_MS, what: 'the replica' })
    await server.kill()
    await replica.promote()
    const later = limitsOn(await linkTo(replica.url))
    expect(await kindOf(later.hold(holdRequest('b')))).toBe('closed')
    expect(await later.state([ACME])).toMatchObject([{ state: 'open', epoch: 1 }])
  })

  it('data of a later release is left as it is', async () => {
    const { server, limits } = await opened()
    const prefix = `weir:{b${ACME}}:`
    await limits.hold(holdRequest('a'))
    const hold = await server.client.getBuffer(`${prefix}h:a`)
    // MessagePack begins with the version, a number below 128 in one byte.
    await server.client.set(`${prefix}h:a`, Buffer.concat([Buffer.from([2]), hold?.subarray(1) ?? Buffer.alloc(0)]))
    const unread = { name: 'UnknownVersion', message: 'a hold has version 2, which this release does not read' }
    await expect(limits.settle(settleRequest('a', 1n))).rejects.toMatchObject(unread)
    await expect(limits.hold(holdRequest('a'))).rejects.toMatchObject(unread)
    await expect(limits.release('a', 'acme')).rejects.toMatchObject(unread)
    await expect(limits.extend([{ id: 'a', tenant: 'acme', tokens: 1, amount_nano: 1n, lease_ms: 1 }])).rejects.toMatchObject(unread)
    await server.client.xadd(`${prefix}usage`, '*', 'v', '2', 'event', '{}', 'epoch', '1')
    await expect(limits.read([ACME], 1)).rejects.toMatchObject({ name: 'UnknownVersion', message: /usage entry .* version 2/ })
    await server.client.hset(`${prefix}meta`, 'v', '2')
    const bucket = { name: 'UnknownVersion', message: 'a bucket has version 2, which this release does not read' }
    await expect(limits.balance('acme')).rejects.toMatchObject(bucket)
    await expect(limits.state([ACME])).rejects.toMatchObject(bucket)
    expect((await limits.beginEpoch([ACME], 9)).get(ACME)).toMatchObject(bucket)
    expect(await server.client.hget(`${prefix}a:acme`, 'n')).toBe('1')
  })

  it('a wipe that was cut short is finished by beginning it again, and what was reported since stays', async () => {
    const { server, limits } = await opened()
    await limits.hold(holdRequest('a'))
    await server.client.hset(`weir:{b${ACME}}:meta`, 'state', 'wiping', 'epoch', '2')
    expect(await limits.state([ACME])).toMatchObject([{ state: 'absent', epoch: 2 }])
    expect([await limits.report(ACME, 2, 'n1'), await limits.openBucket(ACME, 2)]).toEqual([false, false])
    await limits.beginEpoch([ACME], 2)
    expect(await limits.report(ACME, 2, 'n1')).toBe(true)
    await limits.beginEpoch([ACME], 2)
    await openBuckets(limits, [ACME], 2)
    expect((await limits.cut(ACME, ['acme'], [])).holds).toEqual(new Set(['a']))
  })
})

describe.skipIf(REDIS_PROGRAM === null)('limits in Redis: servers', () => {
  it('a server that may forget keys is refused, also when it turns out to later', async () => {
    const server = await startRedis({ maxmemory: '50mb', maxmemory_policy: 'allkeys-lru' })
    const link = openRedis({ url: server.url, onError: () => undefined })
    atEnd(() => link.close())
    await expect(link.ready(WAIT_MS)).rejects.toThrow(/maxmemory-policy of Redis is allkeys-lru.*noeviction/)
    expect(await kindOf(limitsOn(link).state([ACME]))).toBe('away')
    await server.client.config('SET', 'maxmemory-policy', 'noeviction')
    await server.client.call('CLIENT', 'KILL', 'TYPE', 'normal')
    await waitFor(async () => (await kindOf(limitsOn(link).state([ACME]))) === 'answered', {
      timeout_ms: WAIT_MS,
      what: 'the better setting',
    })
  })

  it('a server that is not there is waited for only so long', async () => {
    const link = openRedis({ url: `redis://127.0.0.1:${await freePort()}`, onError: () => undefined })
    atEnd(() => link.close())
    await expect(link.ready(200)).rejects.toMatchObject({ kind: 'away', message: /ECONNREFUSED/ })
  })

  it('users and passwords are given, and never shown', async () => {
    const server = await startRedis({ settings: { user: 'weir on >s3cret/word ~* &* +@all' } })
    await server.client.acl('SETUSER', 'default', 'off')
    const errors: Error[] = []
    const wrong = openRedis({ url: server.url.replace('//', '//weir:wr0ng-word@'), onError: (error) => errors.push(error) })
    atEnd(() => wrong.close())
    const refused = await wrong.ready(1000).catch((error: unknown) => error as Error)
    expect(refused).toMatchObject({ kind: 'away', message: /WRONGPASS/ })
    expect(errors.length).toBeGreaterThan(0)
    for (const error of [refused, ...errors]) {
      expect(`${JSON.stringify(error, Object.getOwnPropertyNames(error))} ${String((error as Error).cause)}`).not.toMatch(/wr0ng/)
    }
    const limits = limitsOn(await linkTo(server.url.replace('//', '//weir:s3cret%2Fword@')))
    await openBuckets(limits, [ACME])
    expect((await limits.balance('acme')).available_nano).toBe(0n)
  })

  it('one node of a cluster is enough to find the others; when one dies, the buckets of the others go on', async () => {
    const cluster = await startRedisCluster()
    const limits = limitsOn(await linkTo(cluster.url))
    // The cluster says itself that the slots of a dead node are gone, unless it is told to go on with the rest.
    for (const { client } of cluster.nodes) await client.config('SET', 'cluster-require-full-coverage', 'no')
    await openBuckets(limits, EVERY_BUCKET)
    const runs = new Map<string, number[]>()
    const runOf = await limits.serverRuns()
    for (const bucket of EVERY_BUCKET) {
      const run = runOf(bucket) ?? 'none'
      runs.set(run, [...(runs.get(run) ?? []), bucket])
    }
    expect(runs.size).toBe(3)
    for (const key of ['weir:{b255}:meta', 'weir:{changes}:version', '水{x}']) {
      expect(slotOf(key)).toBe(Number(await cluster.nodes[0]?.client.cluster('KEYSLOT', key)))
    }
    const dead = cluster.nodes[1]
    const dead_run = /run_id:(\w+)/.exec((await dead?.client.info('server')) ?? '')?.[1] ?? ''
    await dead?.kill()
    for (const [run, buckets] of runs) {
      const expected = run === dead_run ? 'away' : 'answered'
      const call = () => kindOf(limits.cut(buckets[0] ?? 0, [], []))
      await waitFor(async () => (await call()) === expected, { timeout_ms: WAIT_MS, what: `${expected} from bucket ${buckets[0]}` })
    }
    await dead?.start()
    const [bucket = 0] = runs.get(dead_run) ?? []
    await waitFor(async () => (await kindOf(limits.cut(bucket, [], []))) === 'closed', { timeout_ms: WAIT_MS, what: 'the node to be back' })
  })

  it('when a master of a cluster dies its replica takes its place, with its buckets closed', async () => {
    const cluster = await startRedisCluster(1)
    const limits = limitsOn(await linkTo(cluster.url))
    await openBuckets(limits, [ACME])
    await limits.hold(holdRequest('a', { amount_nano: 0n }))
    const run = (await limits.serverRuns())(ACME)
    const runs = await Promise.all(cluster.nodes.map(async ({ client }) => /run_id:(\w+)/.exec(await client.info('server'))?.[1]))
    const owner = runs.indexOf(run ?? '')
    // What is not replicated yet is lost with it.
    await cluster.nodes[owner]?.client.wait(1, WAIT_MS)
    await cluster.nodes[owner]?.kill()
    const ask = () => kindOf(limits.hold(holdRequest('b', { amount_nano: 0n })))
    await waitFor(async () => (await ask()) === 'closed', { timeout_ms: ELECTION_MS, what: 'the replica to be asked' })
    expect((await limits.serverRuns())(ACME)).toBe(runs[owner + 3])
    expect(await limits.state([ACME])).toMatchObject([{ state: 'open', epoch: 1, run_id: run }])
    await openBuckets(limits, [ACME], 2)
    expect(await ask()).toBe('answered')
  })

  it('a slot that moves to another node is followed', async () => {
    const cluster = await startRedisCluster()
    const limits = limitsOn(await linkTo(cluster.url))
    await openBuckets(limits, [ACME])
    await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
    const [first] = cluster.nodes
    const slot = Number(await first?.client.cluster('KEYSLOT', `weir:{b${ACME}}:meta`))
    const ids = await Promise.all(cluster.nodes.map(({ client }) => client.cluster('MYID')))
    const owner = Math.floor((slot * 3) / 16_384)
    const [from, to] = [cluster.nodes[owner], cluster.nodes[(owner + 1) % 3]]
    const [from_id, to_id] = [ids[owner] ?? '', ids[(owner + 1) % 3] ?? '']
    await to?.client.cluster('SETSLOT', slot, 'IMPORTING', from_id)
    await from?.client.cluster('SETSLOT', slot, 'MIGRATING', to_id)
    const keys = (await from?.client.cluster('GETKEYSINSLOT', slot, 1000)) ?? []
    await from?.client.call('MIGRATE', '127.0.0.1', String(to?.port), '', '0', '5000', 'KEYS', ...keys.map(String))
    for (const { client } of cluster.nodes) await client.cluster('SETSLOT', slot, 'NODE', to_id)
    // The bucket is on another server now, which has all of it.
    const seen = await kindOf(limits.hold(holdRequest('a')))
    expect(['answered', 'closed']).toContain(seen)
    expect((await limits.serverRuns())(ACME)).toBe(/run_id:(\w+)/.exec((await to?.client.info('server')) ?? '')?.[1])
    await openBuckets(limits, [ACME], 2)
    await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
    expect(reasonOf(await limits.hold(holdRequest('b')))).toBe('held')
  })

  it('closing a link ends its connections', async () => {
    const server = await startRedis()
    const link = await linkTo(server.url)
    link.close()
    expect(await kindOf(link.run('count', ['weir:{b0}:leases'], []))).toBe('away')
    const watcher = new Redis(server.url)
    atEnd(() => watcher.disconnect())
    const clients = async () =>
      String(await watcher.client('LIST'))
        .trim()
        .split('\n').length
    await waitFor(async () => (await clients()) === 2, { timeout_ms: WAIT_MS, what: 'the connection to end' })
  })
})
