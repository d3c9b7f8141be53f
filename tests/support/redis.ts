import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { atEnd } from './cleanup.ts'
import { freePort } from './ports.ts'
import { tempDir } from './temp.ts'
import { waitFor } from './wait.ts'

const START_TIMEOUT_MS = 20_000
const OUTPUT_LIMIT_CHARS = 100_000
const SLOTS = 16_384
const MASTERS = 3

/** The server's program, or null where there is none: `describe.skipIf(REDIS_PROGRAM === null)`. A null is printed, so that a skip is seen. */
export const REDIS_PROGRAM = findProgram(['redis-server', 'valkey-server'])

export interface RedisServerOptions {
  /** Keeps its data over a restart: every write is fsynced. */
  readonly appendonly?: boolean
  /** As Redis writes it, e.g. `20mb`. */
  readonly maxmemory?: string
  readonly maxmemory_policy?: string
  readonly replica_of?: RedisServer
  /** Other settings, as the server's configuration file has them. */
  readonly settings?: Readonly<Record<string, string>>
}

/** A redis-server of one test, on the loopback interface, with its data in a temporary folder. Whatever happens, it ends with the test. */
export interface RedisServer {
  readonly port: number
  readonly url: string
  /** A connection of the test's own, which fails at once while the server is away. */
  readonly client: Redis
  /** Ends it as an operator does, and waits for that. */
  stop(): Promise<void>
  /** Ends it with SIGKILL. */
  kill(): Promise<void>
  /** Starts it again, on the same port and with what its folder has. */
  start(): Promise<void>
  /** It stays connected and answers nothing until `resume`. */
  pause(): void
  resume(): void
  /** Makes a replica a master of its own. */
  promote(): Promise<void>
  output(): string
}

export interface RedisCluster {
  /** The masters, then their replicas in the same order. */
  readonly nodes: readonly RedisServer[]
  /** The address of one node; the others are found by it. */
  readonly url: string
}

/** Starts a server and waits until it answers. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const server = new Server(await freePort(), tempDir(), options)
  await server.start()
  return server
}

/** Starts three masters that share the slots, each with so many replicas, and waits until each node says that all is well. */
export async function startRedisCluster(replicas = 0): Promise<RedisCluster> {
  const nodes: RedisServer[] = []
  const bus_ports: number[] = []
  for (let index = 0; index < MASTERS * (1 + replicas); index += 1) {
    const bus_port = await freePort()
    bus_ports.push(bus_port)
    const settings = { 'cluster-enabled': 'yes', 'cluster-port': String(bus_port), 'cluster-node-timeout': '2000' }
    nodes.push(await startRedis({ settings: { ...settings, 'cluster-replica-validity-factor': '0' } }))
  }
  const [first, ...others] = nodes
  if (first === undefined) throw new Error('a cluster without nodes')
  for (const { client } of others) await client.call('CLUSTER', 'MEET', '127.0.0.1', String(first.port), String(bus_ports[0]))
  const masters = nodes.slice(0, MASTERS)
  for (const [index, { client }] of masters.entries()) {
    const [from, to] = [Math.ceil((SLOTS * index) / MASTERS), Math.ceil((SLOTS * (index + 1)) / MASTERS) - 1]
    await client.cluster('ADDSLOTSRANGE', from, to)
  }
  const wait = { timeout_ms: START_TIMEOUT_MS, what: 'the cluster' }
  await waitFor(async () => (await Promise.all(nodes.map((node) => isWell(node, nodes.length)))).every(Boolean), wait)
  for (const [index, { client }] of nodes.slice(MASTERS).entries()) {
    const master = masters[index % MASTERS]
    await client.cluster('REPLICATE', (await master?.client.cluster('MYID')) ?? '')
    await waitFor(async () => /master_link_status:up/.test(await client.info('replication')), wait)
  }
  // Until the others know whose replica it is, they would not elect it.
  const knowAll = async ({ client }: RedisServer): Promise<boolean> =>
    String(await client.cluster('NODES')).split(/ (?:myself,)?slave /).length === MASTERS * replicas + 1
  await waitFor(async () => (await Promise.all(nodes.map(knowAll))).every(Boolean), wait)
  return { nodes, url: first.url }
}

async function isWell({ client }: RedisServer, known: number): Promise<boolean> {
  const info = await client.cluster('INFO')
  return /cluster_state:ok/.test(info) && new RegExp(`cluster_known_nodes:${known}\\r`).test(info)
}

class Server implements RedisServer {
  readonly port: number
  readonly url: string
  readonly client: Redis
  readonly #folder: string
  readonly #options: RedisServerOptions
  #process: ChildProcess | null = null
  #output = ''
  #client_error = ''

  constructor(port: number, folder: string, options: RedisServerOptions) {
    this.port = port
    this.url = `redis://127.0.0.1:${port}`
    this.#folder = folder
    this.#options = options
    this.client = new Redis(this.url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      retryStrategy: () => 50,
    })
    // While the server is away this connection is tried again and again; what it is asked meanwhile fails.
    this.client.on('error', (error: Error) => void (this.#client_error = error.message))
    atEnd(async () => {
      this.client.disconnect()
      await this.#end('SIGKILL')
    })
  }

  async start(): Promise<void> {
    if (this.#process !== null) throw new Error('this server runs already')
    const file = join(this.#folder, 'redis.conf')
    writeFileSync(file, this.#configuration())
    const started = spawn(REDIS_PROGRAM ?? 'redis-server', [file], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process = started
    for (const stream of [started.stdout, started.stderr]) stream.on('data', (piece: Buffer) => this.#note(piece.toString()))
    started.once('error', (error) => this.#note(`${error.message}\n`))
    if (this.client.status === 'wait') this.client.connect().catch((error: unknown) => void (this.#client_error = String(error)))
    const what = `redis-server on port ${this.port}`
    const seen = await waitFor(async () => (started.exitCode === null ? await this.#answers(started) : 'exited'), {
      timeout_ms: START_TIMEOUT_MS,
      what,
    }).catch((error: unknown) => error)
    if (seen !== true) throw new Error(`${what} did not start: ${String(seen)}; ${this.#client_error}\n${this.#output}`)
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM')
  }

  kill(): Promise<void> {
    return this.#end('SIGKILL')
  }

  pause(): void {
    this.#process?.kill('SIGSTOP')
  }

  resume(): void {
    this.#process?.kill('SIGCONT')
  }

  async promote(): Promise<void> {
    await this.client.replicaof('NO', 'ONE')
  }

  output(): string {
    return this.#output
  }

  async #answers(started: ChildProcess): Promise<boolean> {
    if (this.client.status !== 'ready') return false
    const info = await this.client.info('server', 'replication')
    // Another server may have been quicker at this port.
    const is_it = new RegExp(`process_id:${started.pid}\\r`).test(info)
    return is_it && (this.#options.replica_of === undefined || /master_link_status:up/.test(info))
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const ending = this.#process
    if (ending === null) return
    this.#process = null
    if (ending.exitCode !== null || ending.signalCode !== null) return
    const exited = new Promise((resolve) => ending.once('exit', resolve))
    ending.kill(signal)
    ending.kill('SIGCONT')
    await exited
  }

  #configuration(): string {
    const { appendonly = false, maxmemory, maxmemory_policy, replica_of, settings = {} } = this.#options
    const all = {
      port: String(this.port),
      bind: '127.0.0.1',
      dir: this.#folder,
      save: '""',
      appendonly: appendonly ? 'yes' : 'no',
      appendfsync: 'always',
      'repl-diskless-sync-delay': '0',
      ...(maxmemory === undefined ? {} : { maxmemory }),
      ...(maxmemory_policy === undefined ? {} : { 'maxmemory-policy': maxmemory_policy }),
      ...(replica_of === undefined ? {} : { replicaof: `127.0.0.1 ${replica_of.port}` }),
      ...settings,
    }
    return Object.entries(all)
      .map(([name, value]) => `${name} ${value}\n`)
      .join('')
  }

  #note(text: string): void {
    this.#output = (this.#output + text).slice(-OUTPUT_LIMIT_CHARS)
  }
}

function findProgram(names: readonly string[]): string | null {
  const found = names.find((name) => spawnSync(name, ['--version']).status === 0)
  if (found !== undefined) return found
  console.warn(`none of ${names.join(', ')} is installed: tests that need Redis are skipped`)
  return null
}
