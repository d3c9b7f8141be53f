import { beforeAll, describe } from 'vitest'
import { REDIS_PROGRAM, startRedis, startRedisCluster } from '../support/redis.ts'
import { freshPrefix, limitsOn, linkTo } from '../support/redis-limits.ts'
import { type NewProcess, sharedLimitsConformance } from './shared-limits.ts'

/** Processes that share a prefix of their own. */
function storageAt(url: string): NewProcess {
  const prefix = freshPrefix()
  return async (options) => limitsOn(await linkTo(url, { prefix }), options)
}

describe.skipIf(REDIS_PROGRAM === null)('one Redis', () => {
  let url = ''
  beforeAll(async () => {
    url = (await startRedis()).url
  })
  sharedLimitsConformance('redis', () => storageAt(url))
})

describe.skipIf(REDIS_PROGRAM === null)('a Redis Cluster', () => {
  let url = ''
  beforeAll(async () => {
    url = (await startRedisCluster()).url
  })
  sharedLimitsConformance('redis cluster', () => storageAt(url))
})
