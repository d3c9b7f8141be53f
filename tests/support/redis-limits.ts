import { bucketOf, BUCKETS } from '../../src/storage/cluster-ports.ts'
import { createRedisLimits, type RedisLimits, type RedisLimitsOptions } from '../../src/storage/redis/limits.ts'
import { openRedis, type RedisLink, type RedisOptions } from '../../src/storage/redis/link.ts'
import { atEnd } from './cleanup.ts'
import type { TestClock } from './clock.ts'

const READY_TIMEOUT_MS = 20_000
/** Tenants of the conformance suites and of the reference model. */
const TENANTS = ['acme', 'bolt', 'other']

export const EVERY_BUCKET: readonly number[] = Array.from({ length: BUCKETS }, (_, bucket) => bucket)

/** A link that can be used, closed when the test ends. */
export async function linkTo(url: string, options: Partial<RedisOptions> = {}): Promise<RedisLink> {
  const link = openRedis({ onError: () => undefined, ...options, url })
  atEnd(() => link.close())
  await link.ready(READY_TIMEOUT_MS)
  return link
}

let prefixes = 0

/** A prefix that no other test of this file has. */
export function freshPrefix(): string {
  prefixes += 1
  return `t${prefixes}`
}

/** Whose scopes of the suites are: those of the reference model begin with their tenant's name, all others are acme's. */
export function tenantOf(_scope: string, id: string): Promise<string> {
  return Promise.resolve(TENANTS.find((tenant) => id.startsWith(`${tenant}-`)) ?? 'acme')
}

export function limitsOn(link: RedisLink, options: Partial<RedisLimitsOptions> = {}): RedisLimits {
  const limits = createRedisLimits(link, { tenantOf, onError: () => undefined, ...options })
  atEnd(() => limits.close())
  return limits
}

/** Opens buckets as a recovery does, with nothing in them: no node has anything to report, and no ledger anything to say. */
export async function openBuckets(limits: RedisLimits, buckets: readonly number[], epoch = 1): Promise<void> {
  await limits.beginEpoch(buckets, epoch)
  const opened = await Promise.all(
    buckets.map(async (bucket) => (await limits.fill(bucket, epoch, [], [])) && (await limits.openBucket(bucket, epoch))),
  )
  if (opened.includes(false)) throw new Error('a bucket could not be opened')
}

/** Empty limits of the suites' tenants, under a prefix of their own, that tell the time by `clock`. */
export async function emptyLimits(url: string, clock: TestClock): Promise<RedisLimits> {
  const limits = limitsOn(await linkTo(url, { prefix: freshPrefix() }), { clock })
  await openBuckets(limits, [...new Set(TENANTS.map(bucketOf))])
  return limits
}
