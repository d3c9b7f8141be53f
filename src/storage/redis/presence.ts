import type { Clock } from '../../base/clock.ts'
import type { RedisLink } from './link.ts'
import { textsOf } from './replies.ts'

/** A node that has said nothing for so long does not count as alive. */
const ALIVE_MS = 10_000

/** Which nodes live, as they say themselves. */
export interface Presence {
  /** This node lives; to be said every few seconds. @returns the names of all that do, in order @throws LimitsUnavailable */
  announce(node: string): Promise<readonly string[]>
  /** This node has stopped. @throws LimitsUnavailable */
  leave(node: string): Promise<void>
  /** @throws LimitsUnavailable */
  alive(): Promise<readonly string[]>
}

/** A table of nodes, each with the time until which it counts as alive: the server's, or the given clock's in tests. */
export function createRedisPresence(link: RedisLink, clock?: Clock): Presence {
  const key = `${link.prefix}:{nodes}:alive`
  const say = async (node: string, alive_ms: number): Promise<readonly string[]> =>
    textsOf(await link.run('announce', [key], [node, alive_ms], clock?.now_ms()))
  return {
    announce: (node) => say(node, ALIVE_MS),
    leave: async (node) => void (await say(node, 0)),
    alive: () => say('', ALIVE_MS),
  }
}
