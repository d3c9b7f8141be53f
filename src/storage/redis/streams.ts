import { assert } from '../../base/assert.ts'
import type { StreamEntry, UsageStreams } from '../cluster-ports.ts'
import { UnknownVersion } from './failures.ts'
import { Keys } from './keys.ts'
import type { RedisLink } from './link.ts'
import { numberOf } from './replies.ts'

const LARGEST_PART = 2n ** 64n - 1n

/** {@link UsageStreams}: one stream per bucket, whatever the bucket's state. */
export function createUsageStreams(link: RedisLink): UsageStreams {
  const keys = new Keys(link.prefix)
  return {
    async read(buckets, limit, until = '+') {
      const read = async (bucket: number): Promise<readonly [number, readonly StreamEntry[]]> => {
        const { usage } = keys.of(bucket)
        const entries = await link.ask(usage, (client) => client.xrange(usage, '-', until, 'COUNT', limit))
        return [bucket, entries.map(entryOf)]
      }
      return new Map(await Promise.all(buckets.map(read)))
    },
    async acknowledge(bucket, last_id) {
      const { usage } = keys.of(bucket)
      await link.ask(usage, (client) => client.xtrim(usage, 'MINID', '=', after(last_id)))
    },
    lengths: (buckets) =>
      Promise.all(
        buckets.map((bucket) => {
          const { usage } = keys.of(bucket)
          return link.ask(usage, (client) => client.xlen(usage))
        }),
      ),
  }
}

/** @throws UnknownVersion */
function entryOf([id, words]: readonly [string, readonly string[]]): StreamEntry {
  const field = (name: string): string | undefined => words[words.findIndex((word, index) => index % 2 === 0 && word === name) + 1]
  const version = field('v')
  if (version !== '1') throw new UnknownVersion(`usage entry ${id} has version ${version}, which this release does not read`)
  const body = field('event')
  assert(body !== undefined, `usage entry ${id} has no event`)
  return { id, body, epoch: numberOf(field('epoch')) }
}

/** The smallest id after an entry's. */
function after(id: string): string {
  const [ms = '', sequence = ''] = /^(\d+)-(\d+)$/.exec(id)?.slice(1) ?? []
  assert(ms !== '', 'an acknowledged id is not the id of an entry')
  return BigInt(sequence) === LARGEST_PART ? `${BigInt(ms) + 1n}-0` : `${ms}-${BigInt(sequence) + 1n}`
}
