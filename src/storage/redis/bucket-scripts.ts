import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { bucketOf, LimitsUnavailable } from '../cluster-ports.ts'
import { type BucketKeys, counterNames, Keys } from './keys.ts'
import type { RedisLink, Word } from './link.ts'
import { listOf, type Reply, textOf } from './replies.ts'
import type { ScriptName } from './scripts.ts'

type KeyList = readonly [string, ...string[]]

/** Which hold is meant, and the names of its counters (empty: not known here). */
export interface HeldAt {
  readonly id: string
  readonly tenant: string
  readonly counters: string
}

/** Runs scripts on buckets, by a clock of its own where a test gives one. */
export class BucketScripts {
  readonly link: RedisLink
  readonly keys: Keys
  readonly #clock: Clock | undefined

  constructor(link: RedisLink, clock: Clock | undefined) {
    this.link = link
    this.keys = new Keys(link.prefix)
    this.#clock = clock
  }

  /** Runs a script of any bucket. @throws LimitsUnavailable */
  run(script: ScriptName, keys: KeyList, words: readonly Word[]): Promise<unknown> {
    return this.link.run(script, keys, words, this.#clock?.now_ms())
  }

  /** Runs a script that only an open bucket answers. @throws LimitsUnavailable, `closed` where the bucket is not open */
  async runOpen(bucket: number, script: ScriptName, keys: KeyList, words: readonly Word[]): Promise<Reply> {
    const reply = listOf(await this.run(script, keys, words))
    if (reply[0] === 'closed') throw new LimitsUnavailable('closed', `bucket ${bucket} is closed until its state is what the ledger says`)
    return reply
  }

  /**
   * Runs a script on one hold, whose words begin with its id, its tenant and its counters. Where those are not known here, the first run
   * brings them.
   * @throws LimitsUnavailable
   */
  async runOnHold(script: ScriptName, hold: HeldAt, keysOf: (keys: BucketKeys) => KeyList, words: readonly Word[]): Promise<Reply> {
    const bucket = bucketOf(hold.tenant)
    const keys = this.keys.of(bucket)
    const attempt = (counters: string): Promise<Reply> => {
      const all = [...keysOf(keys), ...counterNames(counters).map(keys.counter)] as const
      return this.runOpen(bucket, script, all, [hold.id, hold.tenant, counters, ...words])
    }
    const reply = await attempt(hold.counters)
    if (reply[0] !== 'keys') return reply
    const again = await attempt(textOf(reply[1]))
    assert(again[0] !== 'keys', 'a hold has other counters than it says')
    return again
  }

  /** Runs a script of a bucket's life. @returns whether the bucket was in the state that it needs */
  async runLife(script: ScriptName, keys: KeyList, words: readonly Word[]): Promise<boolean> {
    const answer = textOf(listOf(await this.run(script, keys, words))[0])
    return answer !== 'refused' && answer !== 'done'
  }
}
