import type { RandomBytes } from '../../base/ids.ts'
import type { Changes } from '../ports.ts'
import type { RedisLink } from './link.ts'
import { numberOf } from './replies.ts'

/** {@link Changes} of many processes, and the version by which those that heard nothing find out. */
export interface RedisChanges extends Changes {
  /** The highest version that was ever published or set; 0 before the first. @throws LimitsUnavailable */
  version(): Promise<number>
  /** Raises the version, telling nobody; a lower one changes nothing. @throws LimitsUnavailable */
  setVersion(seq: number): Promise<void>
  close(): void
}

/**
 * Changes over pub/sub, on a connection of its own. `publish` runs the listeners of this process first, in the order they subscribed, then
 * raises the stored version and tells the others; it rejects with an AggregateError if a listener threw, or with LimitsUnavailable if the
 * others could not be told: they will find the version lower than the records say, which is what it is a hint of.
 *
 * @param random makes the name by which this process knows its own messages
 */
export function createRedisChanges(link: RedisLink, random: RandomBytes, onError: (error: Error) => void): RedisChanges {
  const origin = Buffer.from(random(12)).toString('base64url')
  const channel = `${link.prefix}:changes`
  const key = `${link.prefix}:{changes}:version`
  const listeners = new Set<(seq: number) => void>()
  const tell = (seq: number): readonly unknown[] => {
    const errors: unknown[] = []
    for (const listener of listeners) {
      try {
        listener(seq)
      } catch (error) {
        errors.push(error)
      }
    }
    return errors
  }
  const close = link.subscribe(channel, (message) => {
    const [from, seq] = message.split(' ')
    if (from === origin || seq === undefined || !/^\d{1,15}$/.test(seq)) return
    for (const error of tell(Number(seq))) onError(error instanceof Error ? error : new Error(String(error)))
  })
  return {
    async publish(seq) {
      const errors = tell(seq)
      await link.run('publish', [key], [seq, channel, `${origin} ${seq}`])
      if (errors.length > 0) throw new AggregateError(errors, `${errors.length} listeners of change ${seq} failed`)
    },
    subscribe(listener) {
      const entry = (seq: number): void => listener(seq)
      listeners.add(entry)
      return () => listeners.delete(entry)
    },
    version: async () => numberOf((await link.ask(key, (client) => client.get(key))) ?? 0),
    async setVersion(seq) {
      await link.run('publish', [key], [seq, '', ''])
    },
    close,
  }
}
