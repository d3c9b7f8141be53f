import type { Cluster, Redis } from 'ioredis'
import { LimitsUnavailable } from '../cluster-ports.ts'
import { parseAddresses, type RedisAddress } from './address.ts'
import { failureOf, isUnknownScript } from './failures.ts'
import { loadScripts, type ScriptName, type Scripts } from './scripts.ts'
import { connectCluster, connectSingle, readRun, type Server, type Servers, type Watcher } from './servers.ts'
import { subscribe } from './subscription.ts'

const COMMAND_TIMEOUT_MS = 2000
/** Commands that wait for an answer at one time. */
const MAX_IN_FLIGHT = 20_000

export interface RedisOptions {
  /** One address, or several of one cluster with commas between them (see `address.ts`). */
  readonly url: string
  /** How long a command may take, 2 s by default. */
  readonly command_timeout_ms?: number
  /** All keys begin with it; `weir` by default. Letters, digits, `-`, `_` and `.`. */
  readonly prefix?: string
  /** Told of what happens to connections: servers that cannot be reached, or must not be used. */
  readonly onError: (error: Error) => void
}

/** What a script is asked with. */
export type Word = string | number

/** Connections to one Redis or one Redis Cluster. Nothing is queued while a server is away, and nothing is sent twice. */
export interface RedisLink {
  readonly prefix: string
  /** Whether keys with different hash tags may be on different servers, so that no script can have both. */
  readonly is_cluster: boolean
  /**
   * Runs a script on the master that has `keys[0]`. `now_ms` is the time that it goes by, the server's own without it.
   * @throws LimitsUnavailable, or an error that says what is wrong with the script's data
   */
  run(script: ScriptName, keys: readonly [string, ...string[]], words: readonly Word[], now_ms?: number): Promise<unknown>
  /** Sends a command to the master that has `key`. @throws LimitsUnavailable */
  ask<Reply>(key: string, command: (client: Redis | Cluster) => Promise<Reply>): Promise<Reply>
  /**
   * Sends commands to every master.
   * @returns why that failed at the master that has a key, or null where it did not
   * @throws the failure if it failed at all of them: LimitsUnavailable `away` if none can be reached
   */
  eachMaster(work: (redis: Redis) => Promise<void>): Promise<(key: string) => unknown>
  /** `run_id` of the server that each key is on, asked of every master once; null where that gave no answer. @throws as `eachMaster` */
  serverRuns(): Promise<(key: string) => string | null>
  /** Hears what is published to a channel, on a connection of its own, also after that was lost. @returns what ends it */
  subscribe(channel: string, onMessage: (message: string) => void): () => void
  /** Resolves once it can be used. @throws LimitsUnavailable `away` after `timeout_ms`; Error at once where a server must not be used */
  ready(timeout_ms: number): Promise<void>
  /** Ends every connection. What waits for an answer is told that none will come. */
  close(): void
}

/** Begins to connect, and keeps at it until `close`. @throws RangeError for an address that is none, or a prefix that cannot be one */
export function openRedis(options: RedisOptions): RedisLink {
  return new Link(options)
}

class Link implements RedisLink {
  readonly prefix: string
  readonly #options: RedisOptions
  readonly #addresses: readonly [RedisAddress, ...RedisAddress[]]
  readonly #scripts: Scripts = loadScripts()
  readonly #waiting = new Set<() => void>()
  readonly #subscriptions = new Set<() => void>()
  #servers: Servers
  #in_flight = 0
  #last_error = 'it has not answered yet'
  #closed = false

  constructor(options: RedisOptions) {
    this.prefix = options.prefix ?? 'weir'
    if (!/^[\w.-]{1,64}$/.test(this.prefix)) throw new RangeError('a prefix of keys in Redis is letters, digits, -, _ and .')
    this.#options = options
    this.#addresses = parseAddresses(options.url)
    this.#servers =
      this.#addresses.length > 1 ? connectCluster(this.#addresses, this.#watcher) : connectSingle(this.#addresses[0], this.#watcher)
  }

  get is_cluster(): boolean {
    const [first, second] = this.#servers.masters()
    return second !== undefined || first?.redis !== this.#servers.client
  }

  async run(name: ScriptName, keys: readonly [string, ...string[]], words: readonly Word[], now_ms?: number): Promise<unknown> {
    const { text, sha } = this.#scripts[name]
    const { run_id } = this.#usable(this.#servers.serverOf(keys[0]))
    const { client } = this.#servers
    const sent = [...keys, now_ms ?? '', run_id, ...words]
    return await this.#answer(async () => {
      try {
        return await client.evalsha(sha, keys.length, ...sent)
      } catch (error) {
        if (!isUnknownScript(error)) throw error
        return await client.eval(text, keys.length, ...sent)
      }
    })
  }

  async ask<Reply>(key: string, command: (client: Redis | Cluster) => Promise<Reply>): Promise<Reply> {
    this.#usable(this.#servers.serverOf(key))
    return await this.#answer(() => command(this.#servers.client))
  }

  async eachMaster(work: (redis: Redis) => Promise<void>): Promise<(key: string) => unknown> {
    const masters = this.#servers.masters()
    const outcomes = new Map<Redis, unknown>()
    const ask = async (master: Server): Promise<void> => {
      try {
        this.#usable(master)
        await this.#answer(() => work(master.redis))
        outcomes.set(master.redis, null)
      } catch (error) {
        outcomes.set(master.redis, error)
      }
    }
    await Promise.all(masters.map(ask))
    if (![...outcomes.values()].includes(null)) throw [...outcomes.values()][0] ?? this.#away()
    return (key) => {
      const server = this.#servers.serverOf(key)
      // One that has become a master meanwhile was not asked.
      return server === undefined || !outcomes.has(server.redis) ? this.#away() : outcomes.get(server.redis)
    }
  }

  async serverRuns(): Promise<(key: string) => string | null> {
    const runs = new Map<Redis, string>()
    await this.eachMaster(async (redis) => {
      runs.set(redis, await readRun(redis))
    })
    return (key) => {
      const server = this.#servers.serverOf(key)
      return server === undefined ? null : (runs.get(server.redis) ?? null)
    }
  }

  subscribe(channel: string, onMessage: (message: string) => void): () => void {
    const options = { channel, onMessage, onError: this.#report, command_timeout_ms: this.#timeout_ms, credentials: this.#addresses[0] }
    const end = subscribe({ ...options, servers: () => this.#servers.masters() })
    this.#subscriptions.add(end)
    return () => {
      this.#subscriptions.delete(end)
      end()
    }
  }

  async ready(timeout_ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), timeout_ms)
    })
    try {
      for (;;) {
        const problem = this.#problem()
        if (problem !== null) throw new Error(problem)
        if (this.#isUsable()) return
        if (this.#closed || (await Promise.race([late, this.#change()])) === 'late') throw this.#away()
      }
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.#closed = true
    for (const end of this.#subscriptions) end()
    this.#servers.close()
    this.#changed()
  }

  get #timeout_ms(): number {
    return this.#options.command_timeout_ms ?? COMMAND_TIMEOUT_MS
  }

  get #watcher(): Watcher {
    return { command_timeout_ms: this.#timeout_ms, onError: this.#report, onChange: this.#changed }
  }

  readonly #report = (error: Error): void => {
    this.#last_error = error.message
    this.#options.onError(error)
  }

  /** A server that turns out to be a node of a cluster is asked for the others. */
  readonly #changed = (): void => {
    const [first] = this.#servers.masters()
    if (!this.is_cluster && first?.facts?.is_cluster === true && !this.#closed) {
      this.#servers.close()
      this.#servers = connectCluster(this.#addresses, this.#watcher)
    }
    const problem = this.#problem()
    if (problem !== null) this.#report(new Error(problem))
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  #problem(): string | null {
    return this.#servers.masters().find(({ facts }) => facts !== null && facts.problem !== null)?.facts?.problem ?? null
  }

  #isUsable(): boolean {
    const masters = this.#servers.masters()
    const { client } = this.#servers
    return (
      client.status === 'ready' && masters.length > 0 && masters.every(({ redis, facts }) => redis.status === 'ready' && facts !== null)
    )
  }

  /** @throws LimitsUnavailable `away`: nothing has been sent */
  #usable(server: Server | undefined): { readonly run_id: string } {
    if (this.#closed) throw new LimitsUnavailable('away', 'Redis is away: the connection was closed')
    if (server === undefined || server.facts === null || server.redis.status !== 'ready') throw this.#away()
    if (server.facts.problem !== null) throw new LimitsUnavailable('away', `Redis must not be used: ${server.facts.problem}`)
    if (this.#in_flight >= MAX_IN_FLIGHT)
      throw new LimitsUnavailable('away', `Redis is away: ${MAX_IN_FLIGHT} commands wait for it already`)
    return server.facts
  }

  #away(): LimitsUnavailable {
    return new LimitsUnavailable('away', `Redis is away: ${this.#last_error}`)
  }

  async #answer<Reply>(command: () => Promise<Reply>): Promise<Reply> {
    this.#in_flight += 1
    try {
      return await command()
    } catch (error) {
      throw failureOf(error)
    } finally {
      this.#in_flight -= 1
    }
  }
}
