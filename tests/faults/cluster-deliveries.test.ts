import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { bucketOf, type ChargedEvent, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { atEnd } from '../support/cleanup.ts'
import { noCluster } from '../support/cluster.ts'
import { startPostgres } from '../support/postgres.ts'
import type { Random } from '../support/random.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { expectAudit, newCluster, underLoad } from '../support/two-gateways.ts'

const SABOTAGE_MS = 8000
const MOST_SEEN = 5000
const MOST_AT_ONCE = 30

/** An entry of a stream, and what it says. */
interface Delivery {
  readonly key: string
  readonly fields: readonly string[]
  readonly event: ChargedEvent
  readonly tenant: string
}

/** Delivers usage that is on its way once more, and again, and in another order. */
class Saboteur {
  readonly #redis: RedisServer
  readonly #ledger: SharedLedger
  readonly #random: Random
  readonly #seen: Delivery[] = []
  #source = 0
  readonly done = { again: 0, posted: 0, first: 0 }

  constructor(redis: RedisServer, ledger: SharedLedger, random: Random) {
    this.#redis = redis
    this.#ledger = ledger
    this.#random = random
  }

  async round(): Promise<void> {
    await this.#look()
    if (this.#seen.length === 0) return
    const some = Array.from({ length: this.#random.whole(1, MOST_AT_ONCE) }, () => this.#random.pick(this.#seen))
    if (this.#random.next() < 0.5) await this.#addAgain(some)
    else await this.#post(some)
  }

  async #look(): Promise<void> {
    const { client } = this.#redis
    for (const key of await client.keys('*:{b*}:usage')) {
      for (const [, fields] of await client.xrange(key, '-', '+', 'COUNT', 50)) {
        const words = new Map(fields.flatMap((word, index) => (index % 2 === 0 ? [[word, fields[index + 1] ?? '']] : [])))
        const [body, epoch] = [words.get('event') ?? '', Number(words.get('epoch'))]
        if (this.#seen.length >= MOST_SEEN) this.#seen.shift()
        const { tenant } = JSON.parse(body) as { tenant: string }
        this.#seen.push({ key, fields, event: { body, charged: epoch }, tenant })
      }
    }
  }

  /** As if a script's answer had been lost and it had run twice. */
  async #addAgain(some: readonly Delivery[]): Promise<void> {
    for (const { key, fields } of some) await this.#redis.client.xadd(key, '*', ...fields)
    this.done.again += some.length
  }

  /** As a poster that was thought dead, or that is faster than all others. */
  async #post(some: readonly Delivery[]): Promise<void> {
    const by_bucket = Map.groupBy(some, ({ tenant }) => bucketOf(tenant))
    this.#source += 1
    const batches = [...by_bucket].map(([bucket, list]) => ({
      bucket,
      source: `again-${this.#source}`,
      events: list.map(({ event }) => event),
    }))
    const results = await this.#ledger.postBatches(batches)
    this.done.posted += some.length
    this.done.first += results.flatMap(({ states }) => states).filter((state) => state === 'posted').length
  }
}

it.skipIf(noCluster !== null)(
  'usage that is delivered twice, late, in any order and by several posters at once is billed once, and Redis comes to what the ledger says',
  async () => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const cluster = await newCluster({ redis_url: redis.url, postgres })
    const books = await openPostgres({ url: await postgres.url(), clock: systemClock() })
    atEnd(() => books.close())
    const saboteur = new Saboteur(redis, books.ledger, cluster.random)
    await underLoad(cluster, async () => {
      const end = performance.now() + SABOTAGE_MS
      while (performance.now() < end) {
        await saboteur.round()
        await sleep(5)
      }
    })
    await expectAudit(cluster)
    const { again, posted, first } = saboteur.done
    console.info(`added again: ${again}; posted: ${posted}, of which ${first} before anybody else`)
    expect(Math.min(again, posted)).toBeGreaterThan(100)
    expect(first).toBeGreaterThan(0)
  },
)
