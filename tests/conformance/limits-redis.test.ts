import { beforeAll, describe } from 'vitest'
import { propertyRuns, propertySeed } from '../support/seed.ts'
import { REDIS_PROGRAM, startRedis, startRedisCluster } from '../support/redis.ts'
import { emptyLimits } from '../support/redis-limits.ts'
import { limitsModel } from './limits-model.ts'
import { limitsOrphanConformance } from './limits-orphan.ts'
import { limitStatesConformance } from './limits-states.ts'
import { limitsConformance } from './limits.ts'

/** Every step of the model is some hundred commands, so there are fewer runs than in memory. */
const MODEL_RUNS = Math.ceil(propertyRuns(300) / 6)
const CLUSTER_MODEL_RUNS = Math.ceil(propertyRuns(300) / 30)

describe.skipIf(REDIS_PROGRAM === null)('one Redis', () => {
  let url = ''
  beforeAll(async () => {
    url = (await startRedis()).url
  })
  limitsConformance('redis', (clock) => emptyLimits(url, clock))
  limitStatesConformance('redis', (clock) => emptyLimits(url, clock))
  limitsOrphanConformance('redis', (clock) => emptyLimits(url, clock))
  limitsModel('redis', (clock) => emptyLimits(url, clock), { runs: MODEL_RUNS, seed: propertySeed() })
})

describe.skipIf(REDIS_PROGRAM === null)('a Redis Cluster', () => {
  let url = ''
  beforeAll(async () => {
    url = (await startRedisCluster()).url
  })
  limitsConformance('redis cluster', (clock) => emptyLimits(url, clock))
  limitStatesConformance('redis cluster', (clock) => emptyLimits(url, clock))
  limitsOrphanConformance('redis cluster', (clock) => emptyLimits(url, clock))
  limitsModel('redis cluster', (clock) => emptyLimits(url, clock), { runs: CLUSTER_MODEL_RUNS, seed: propertySeed() })
})
