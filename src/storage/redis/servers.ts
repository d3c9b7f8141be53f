import { Cluster, Redis, type RedisOptions as ClientOptions } from 'ioredis'
import type { RedisAddress } from './address.ts'
import { plainError } from './failures.ts'
import { slotOf } from './keys.ts'

const CONNECT_TIMEOUT_MS = 2000
const MAX_BACKOFF_MS = 1000
/** A server that has said nothing for so long after the time of a command is taken for dead, and connected to anew. */
const SILENCE_MS = 1000
/** So often the nodes of a cluster are asked who has which slots. */
const CLUSTER_REFRESH_MS = 1000
const OLDEST_MAJOR_VERSION = 7

/** What one server says of itself, read anew on every connection to it. */
interface ServerFacts {
  /** Another one each time that it starts. */
  readonly run_id: string
  readonly is_cluster: boolean
  /** Why it must not be used, or null. */
  readonly problem: string | null
}

/** One master. */
export interface Server {
  readonly redis: Redis
  /** Null until they have been read on the connection that is open now. */
  readonly facts: ServerFacts | null
}
interface WatchedServer extends Server {
  /** Reads its facts again, if it is connected. */
  readonly check: () => void
}

/** Connections to a Redis or to the nodes of a cluster. */
export interface Servers {
  readonly client: Redis | Cluster
  /** The server that has a key, as far as is known. */
  serverOf(key: string): Server | undefined
  masters(): readonly Server[]
  close(): void
}

export interface Watcher {
  readonly command_timeout_ms: number
  readonly onError: (error: Error) => void
  /** Something has become usable, or has stopped to be. */
  readonly onChange: () => void
}

/** What every connection is made with. Nothing waits for a server, and nothing is sent twice. */
export function clientOptions({ username, password, tls }: RedisAddress, command_timeout_ms: number) {
  return {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls ? { tls: {} } : {}),
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: command_timeout_ms,
    socketTimeout: command_timeout_ms + SILENCE_MS,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // A master that has become a replica: connect anew, perhaps to the one that took its place.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
  } satisfies ClientOptions
}

function backoff(attempts: number): number {
  return Math.min(50 * 2 ** (attempts - 1), MAX_BACKOFF_MS)
}

export function connectSingle(address: RedisAddress, watcher: Watcher): Servers {
  const { host, port, db } = address
  const redis = new Redis({
    ...clientOptions(address, watcher.command_timeout_ms),
    host,
    port,
    db,
    enableOfflineQueue: false,
    retryStrategy: backoff,
  })
  redis.on('error', (error: Error) => watcher.onError(plainError(error)))
  const server = watch(redis, watcher)
  return { client: redis, serverOf: () => server, masters: () => [server], close: () => redis.disconnect() }
}

export function connectCluster(addresses: readonly [RedisAddress, ...RedisAddress[]], watcher: Watcher): Servers {
  const cluster = new Cluster(
    addresses.map(({ host, port }) => ({ host, port })),
    {
      redisOptions: clientOptions(addresses[0], watcher.command_timeout_ms),
      enableOfflineQueue: false,
      // It asks any node, also one that is just being connected to. Here each node is asked what it is, once it is there.
      enableReadyCheck: false,
      scaleReads: 'master',
      clusterRetryStrategy: backoff,
      clusterNodeRetryStrategy: backoff,
      slotsRefreshInterval: CLUSTER_REFRESH_MS,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
    },
  )
  const servers = new Map<string, WatchedServer>()
  const meet = (redis: Redis): void => {
    const name = nameOf(redis)
    if (redis.options.readOnly === true || servers.get(name)?.redis === redis) return
    servers.set(name, watch(redis, watcher))
    if (redis.status === 'wait') redis.connect().catch((error: unknown) => watcher.onError(plainError(error)))
  }
  cluster.on('error', (error: Error) => watcher.onError(plainError(error)))
  cluster.on('node error', (error: Error, node: string) => watcher.onError(new Error(`${node}: ${plainError(error).message}`)))
  cluster.on('+node', meet)
  cluster.on('-node', (redis: Redis) => {
    if (servers.get(nameOf(redis))?.redis === redis) servers.delete(nameOf(redis))
  })
  // A replica that has become a master is no new node, and may have been looked at while it was a replica.
  cluster.on('refresh', () => {
    for (const redis of cluster.nodes('master')) meet(redis)
    for (const server of servers.values()) if (server.facts !== null && server.facts.problem !== null) server.check()
  })
  return {
    client: cluster,
    serverOf: (key) => servers.get(cluster.slots[slotOf(key)]?.[0] ?? ''),
    masters: () => cluster.nodes('master').map((redis): Server => servers.get(nameOf(redis)) ?? { redis, facts: null }),
    close: () => cluster.disconnect(),
  }
}

function nameOf({ options }: Redis): string {
  return `${options.host}:${options.port}`
}

function watch(redis: Redis, watcher: Watcher): WatchedServer {
  let connection = 0
  const check = (): void => {
    if (redis.status !== 'ready') return
    const asked = connection
    readFacts(redis).then(
      (facts) => {
        if (asked !== connection) return
        server.facts = facts
        watcher.onChange()
      },
      (error: unknown) => {
        watcher.onError(plainError(error))
        if (asked === connection) redis.disconnect(true)
      },
    )
  }
  const server: { redis: Redis; facts: ServerFacts | null; check: () => void } = { redis, facts: null, check }
  redis.on('ready', check)
  redis.on('close', () => {
    connection += 1
    server.facts = null
    watcher.onChange()
  })
  check()
  return server
}

/** The run id of a server. @throws what the client throws */
export async function readRun(redis: Redis): Promise<string> {
  return factOf(await redis.info('server'), 'run_id')
}

function factOf(info: string, name: string): string {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? ''
}

async function readFacts(redis: Redis): Promise<ServerFacts> {
  const info = await redis.info('server', 'memory', 'cluster', 'replication')
  const fact = (name: string): string => factOf(info, name)
  const problem = problemOf(fact('maxmemory_policy'), fact('redis_version'), fact('role'))
  return { run_id: fact('run_id'), is_cluster: fact('cluster_enabled') === '1', problem }
}

function problemOf(policy: string, version: string, role: string): string | null {
  if (policy !== 'noeviction') {
    return `the maxmemory-policy of Redis is ${policy || 'not known'}, so that it would forget holds and balances: set it to noeviction`
  }
  if (Number(version.split('.')[0]) < OLDEST_MAJOR_VERSION) return `Redis is version ${version}: version 7 or Valkey is needed`
  return role === 'master' ? null : 'this Redis is a replica: connect to its master'
}
