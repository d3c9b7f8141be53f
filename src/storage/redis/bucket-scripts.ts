import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { LimitsUnavailable } from '../cluster-ports.ts'
import { type BucketKeys, Keys } from './keys.ts'
import type { RedisLink, Word } from './link.ts'
import { listOf, type Reply, textOf, textsOf } from './replies.ts'
import type { ScriptName } from './scripts.ts'

type KeyList = readonly [string, ...string[]]

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
   * Runs a script that closes one hold with the keys of its counters. Where those are not known here, the first run brings their names.
   * @throws LimitsUnavailable
   */
  async runOnHold(
    bucket: number,
    script: ScriptName,
    keysOf: (keys: BucketKeys) => KeyList,
    known: readonly string[],
    words: readonly Word[],
  ): Promise<Reply> {
    const keys = this.keys.of(bucket)
    const attempt = (names: readonly string[]): Promise<Reply> =>
      this.runOpen(bucket, script, [...keysOf(keys), ...names.map((name) => keys.counter(name))], words)
    const reply = await attempt(known)
    if (reply[0] !== 'keys') return reply
    const again = await attempt(textsOf(reply.slice(1)))
    assert(again[0] !== 'keys', 'a hold has other counters than it says')
    return again
  }

  /** Runs a script of a bucket's life. @returns whether the bucket was in the state that it needs */
  async runLife(script: ScriptName, keys: KeyList, words: readonly Word[]): Promise<boolean> {
    const answer = textOf(listOf(await this.run(script, keys, words))[0])
    return answer !== 'refused' && answer !== 'done'
  }
}
