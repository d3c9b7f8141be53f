import { Redis } from 'ioredis'
import type { RedisAddress } from './address.ts'
import { plainError } from './failures.ts'
import { clientOptions, type Server } from './servers.ts'

const RETRY_MS = 500
/** A connection on which nothing is asked would not be known to be dead. */
const PING_MS = 5000

interface SubscriptionOptions {
  readonly channel: string
  readonly onMessage: (message: string) => void
  readonly onError: (error: Error) => void
  readonly command_timeout_ms: number
  readonly credentials: RedisAddress
  /** Any of these will do: nodes of a cluster tell each other what is published. */
  readonly servers: () => readonly Server[]
}

/** Listens to a channel until it is ended: whenever its connection is lost, it makes another one. @returns what ends it */
export function subscribe(options: SubscriptionOptions): () => void {
  const subscription = new Subscription(options)
  subscription.connect()
  return () => subscription.end()
}

class Subscription {
  readonly #options: SubscriptionOptions
  #redis: Redis | null = null
  #timer: NodeJS.Timeout | null = null
  #attempts = 0
  #ended = false

  constructor(options: SubscriptionOptions) {
    this.#options = options
  }

  connect(): void {
    const { servers, channel, credentials, command_timeout_ms, onMessage, onError } = this.#options
    const alive = servers().filter(({ redis }) => redis.status === 'ready')
    const server = alive[this.#attempts % Math.max(1, alive.length)]
    this.#attempts += 1
    if (server === undefined) return this.#later()
    const { host = '', port = 0 } = server.redis.options
    const redis = new Redis({ ...clientOptions(credentials, command_timeout_ms), host, port, lazyConnect: true, retryStrategy: null })
    this.#redis = redis
    redis.on('error', (error: Error) => onError(plainError(error)))
    redis.on('message', (_channel: string, message: string) => onMessage(message))
    redis.once('end', () => this.#later())
    this.#listen(redis, channel).catch((error: unknown) => {
      onError(plainError(error))
      redis.disconnect()
    })
  }

  end(): void {
    this.#ended = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#redis?.disconnect()
  }

  async #listen(redis: Redis, channel: string): Promise<void> {
    await redis.connect()
    await redis.subscribe(channel)
    const ping = setInterval(() => {
      if (redis.status === 'end') return clearInterval(ping)
      redis.ping().catch((error: unknown) => {
        this.#options.onError(plainError(error))
        redis.disconnect()
      })
    }, PING_MS)
    redis.once('end', () => clearInterval(ping))
  }

  #later(): void {
    if (this.#ended) return
    this.#timer = setTimeout(() => this.connect(), RETRY_MS)
  }
}
