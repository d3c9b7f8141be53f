import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { pooledRandom } from '../../src/base/ids.ts'
import { createRedisChanges, type RedisChanges } from '../../src/storage/redis/changes.ts'
import { atEnd } from '../support/cleanup.ts'
import { REDIS_PROGRAM, startRedis, startRedisCluster } from '../support/redis.ts'
import { freshPrefix, linkTo } from '../support/redis-limits.ts'
import { waitFor } from '../support/wait.ts'

const WAIT_MS = 20_000
const random = pooledRandom(randomBytes)

interface Heard {
  readonly changes: RedisChanges
  readonly seqs: number[]
  readonly errors: Error[]
}

async function listen(url: string, prefix: string): Promise<Heard> {
  const errors: Error[] = []
  const changes = createRedisChanges(await linkTo(url, { prefix }), random, (error) => errors.push(error))
  atEnd(() => changes.close())
  const seqs: number[] = []
  changes.subscribe((seq) => seqs.push(seq))
  return { changes, seqs, errors }
}

/**
 * Publishes until the other has heard something: a subscription takes a moment, and what is published before it is heard by nobody.
 * Afterwards nothing of it is on its way any more.
 */
async function meet(from: Heard, to: Heard): Promise<void> {
  await waitFor(
    async () => {
      await from.changes.publish(1)
      return to.seqs.length > 0
    },
    { timeout_ms: WAIT_MS, what: 'a first change to be heard' },
  )
  await from.changes.publish(2)
  await waitFor(() => to.seqs.includes(2), { timeout_ms: WAIT_MS, what: 'the last change of a meeting' })
  for (const { seqs } of [from, to]) seqs.length = 0
}

describe.skipIf(REDIS_PROGRAM === null)('changes in Redis', () => {
  it.each([
    ['one Redis', async () => (await startRedis()).url],
    ['a Redis Cluster', async () => (await startRedisCluster()).url],
  ])('%s: are heard by every process, by the publisher before its call returns and once', async (_, start) => {
    const [url, prefix] = [await start(), freshPrefix()]
    const [one, other] = [await listen(url, prefix), await listen(url, prefix)]
    const stranger = await listen(url, freshPrefix())
    await meet(one, other)
    await meet(other, one)
    await one.changes.publish(7)
    expect(one.seqs).toEqual([7])
    await other.changes.publish(8)
    await waitFor(() => one.seqs.length === 2 && other.seqs.length === 2, { timeout_ms: WAIT_MS, what: 'both changes' })
    // Its own the other hears at once, perhaps before what was published earlier.
    expect([one.seqs, other.seqs.toSorted((a, b) => a - b), stranger.seqs]).toEqual([[7, 8], [7, 8], []])
  })

  it('the version only grows, and nobody has to listen to know it', async () => {
    const server = await startRedis()
    const [one, other] = [await listen(server.url, 'p'), await listen(server.url, 'p')]
    expect(await one.changes.version()).toBe(0)
    await one.changes.setVersion(9_000_000_000_000)
    await other.changes.setVersion(3)
    await other.changes.publish(5)
    expect([await one.changes.version(), await other.changes.version()]).toEqual([9_000_000_000_000, 9_000_000_000_000])
    await other.changes.publish(9_000_000_000_001)
    expect(await one.changes.version()).toBe(9_000_000_000_001)
  })

  it('a listener that throws keeps no other from hearing, and the publisher is told', async () => {
    const server = await startRedis()
    const [one, other] = [await listen(server.url, 'p'), await listen(server.url, 'p')]
    await meet(other, one)
    const forget = one.changes.subscribe(() => {
      throw new Error('no')
    })
    one.changes.subscribe((seq) => one.seqs.push(seq * 10))
    await expect(one.changes.publish(4)).rejects.toBeInstanceOf(AggregateError)
    expect([one.seqs, await other.changes.version()]).toEqual([[4, 40], 4])
    await other.changes.publish(5)
    await waitFor(() => one.seqs.length === 4, { timeout_ms: WAIT_MS, what: 'the change of the other' })
    expect(one.errors.map(({ message }) => message)).toEqual(['no'])
    forget()
    await one.changes.publish(6)
    expect(one.seqs.slice(4)).toEqual([6, 60])
  })

  it('a subscription that was lost is made again, and own listeners hear while Redis is away', async () => {
    const server = await startRedis()
    const [one, other] = [await listen(server.url, 'p'), await listen(server.url, 'p')]
    await meet(one, other)
    await server.kill()
    await expect(one.changes.publish(2)).rejects.toMatchObject({ name: 'LimitsUnavailable' })
    expect(one.seqs).toEqual([2])
    await server.start()
    await waitFor(
      async () => {
        await one.changes.publish(3)
        return other.seqs.includes(3)
      },
      { timeout_ms: WAIT_MS, what: 'a change after the restart' },
    )
  })
})
