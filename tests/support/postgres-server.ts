import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { freePort } from './ports.ts'
import { waitFor } from './wait.ts'

const START_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 60_000
/** Who runs the server where the tests are run by root, which it refuses. */
const USERS = ['postgres', 'nobody']
const DATABASE = 'weir'
const SUPERUSER = 'weir'

/** A PostgreSQL of its own, with an empty data directory. It ends at the latest with this process, however that dies. */
export interface PostgresServer {
  readonly port: number
  /** Of a database of that name, made if missing; without one, of the database that is there from the start. */
  url(database?: string): Promise<string>
  /** Ends it as an operator does: connections are cut, everything is written. */
  stop(): Promise<void>
  /** Kills every process of it at once. What it had not written is lost, as when the power fails. */
  kill(): Promise<void>
  /** Starts it again on the same port and data. */
  start(): Promise<void>
  /** Runs SQL as the superuser, on a connection of its own. */
  sql(text: string, database?: string): Promise<readonly Record<string, unknown>[]>
}

export interface PostgresSettings {
  /** Whether a commit is on the disk before it is answered; off by default, since tests have many. */
  readonly fsync?: boolean
  /** Processors it may run on, as `taskset` names them; any by default. */
  readonly cpus?: string
  readonly settings?: Readonly<Record<string, string>>
}

/** Where the server's programs are: `$WEIR_POSTGRES_BIN`, a distribution's folders (the newest version of at least 15), or the path. */
function findPrograms(): string | null {
  const given = process.env['WEIR_POSTGRES_BIN']
  if (given !== undefined) return existsSync(join(given, 'initdb')) ? given : null
  const versions = '/usr/lib/postgresql'
  const found = existsSync(versions) ? readdirSync(versions).map(Number) : []
  const newest = Math.max(...found.filter((version) => version >= 15))
  if (Number.isFinite(newest)) return join(versions, String(newest), 'bin')
  const on_path = (process.env['PATH'] ?? '').split(':').find((folder) => existsSync(join(folder, 'initdb')))
  return on_path ?? null
}

function findUser(): { readonly uid: number; readonly gid: number } | null {
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n')
  for (const name of USERS) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  return null
}

interface Installation {
  readonly bin: string
  /** As whom to run it; null for whoever runs the tests. */
  readonly user: { readonly uid: number; readonly gid: number } | null
}

function findInstallation(): Installation | string {
  const bin = findPrograms()
  if (bin === null) return 'no PostgreSQL of version 15 or later is installed'
  if (process.getuid?.() !== 0) return { bin, user: null }
  const user = findUser()
  return user === null ? `there is none of the users ${USERS.join(', ')} to run PostgreSQL as` : { bin, user }
}

const installation = findInstallation()

/** Why there can be no server here; null where there can. */
export const noPostgres: string | null = typeof installation === 'string' ? installation : null

/** Starts a server; it must be ended. @throws Error where {@link noPostgres} is not null */
export async function launchPostgres(settings: PostgresSettings = {}): Promise<LaunchedPostgres> {
  if (typeof installation === 'string') throw new Error(installation)
  const data = mkdtempSync(join(tmpdir(), 'weir-postgres-'))
  const server = new Server(installation, data, await freePort(), settings)
  try {
    server.initialise()
    await server.start()
  } catch (error) {
    await server.end()
    throw error
  }
  return server
}

/** A server, and what ends it for good. */
export interface LaunchedPostgres extends PostgresServer {
  /** Process id of the server itself, whose children serve one connection each. */
  pid(): number
  /** Kills it and deletes its data. */
  end(): Promise<void>
}

class Server implements LaunchedPostgres {
  readonly port: number
  readonly #installation: Installation
  readonly #data: string
  readonly #settings: PostgresSettings
  readonly #databases = new Set<string>()
  #child: ChildProcess | null = null
  #exited: Promise<void> = Promise.resolve()
  #output = ''

  constructor(found: Installation, data: string, port: number, settings: PostgresSettings) {
    this.port = port
    this.#installation = found
    this.#data = data
    this.#settings = settings
  }

  initialise(): void {
    const { bin, user } = this.#installation
    if (user !== null) chownSync(this.#data, user.uid, user.gid)
    const options = ['--no-sync', '-A', 'trust', '-U', SUPERUSER, '-E', 'UTF8', '--locale=C.UTF-8']
    execFileSync(join(bin, 'initdb'), ['-D', this.#data, ...options], { ...this.#as(), stdio: ['ignore', 'ignore', 'pipe'], cwd: '/' })
  }

  async start(): Promise<void> {
    if (this.#child !== null) throw new Error('the server is running')
    await this.#launch()
    await waitFor(() => this.sql('SELECT 1', 'postgres'), { timeout_ms: START_TIMEOUT_MS, what: 'PostgreSQL to start' }).catch(
      (error: unknown) => {
        throw new Error(`${String(error)}\n${this.#output}`, { cause: error })
      },
    )
  }

  async url(database = DATABASE): Promise<string> {
    if (!this.#databases.has(database)) {
      const there = await this.sql(`SELECT 1 FROM pg_database WHERE datname = '${database}'`, 'postgres')
      if (there.length === 0) await this.sql(`CREATE DATABASE ${database}`, 'postgres')
      this.#databases.add(database)
    }
    return this.#url(database)
  }

  async stop(): Promise<void> {
    process.kill(this.pid(), 'SIGINT')
    await this.#ended('SIGINT')
  }

  async kill(): Promise<void> {
    for (const pid of withChildren(this.pid())) killNow(pid)
    await this.#ended('SIGKILL')
  }

  async sql(text: string, database = DATABASE): Promise<readonly Record<string, unknown>[]> {
    const client = new Client({ connectionString: this.#url(database), connectionTimeoutMillis: 5000 })
    // Cut by a stop while nothing is asked: the next question says so.
    client.on('error', () => undefined)
    await client.connect()
    try {
      const answer: unknown = await client.query(text)
      const last = Array.isArray(answer) ? (answer.at(-1) as unknown) : answer
      return (last as { rows: Record<string, unknown>[] }).rows
    } finally {
      await client.end()
    }
  }

  async end(): Promise<void> {
    if (this.#child !== null) await this.kill()
    await this.#exited
    rmSync(this.#data, { recursive: true, force: true, maxRetries: 5 })
  }

  /**
   * A shell stands between, and leads a group of processes of its own: it ends the server when this process dies without a word, because
   * then its input ends.
   */
  async #launch(): Promise<void> {
    const { fsync = false, settings = {}, cpus } = this.#settings
    const quick = fsync ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }
    const fixed = { listen_addresses: '127.0.0.1', unix_socket_directories: '', max_connections: '200', shared_buffers: '64MB' }
    const options = Object.entries({ ...fixed, ...quick, ...settings }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const server = [join(this.#installation.bin, 'postgres'), '-D', this.#data, '-p', String(this.port), ...options]
    const command = cpus === undefined ? server : ['taskset', '-c', cpus, ...server]
    const script =
      'exec 3<&0; "$@" 3<&- </dev/null & server=$!; { read -r _ <&3; kill -QUIT $server; } & watch=$!; ' +
      'wait $server; code=$?; kill -KILL $watch; exit $code'
    const child = spawn('/bin/sh', ['-c', script, 'sh', ...command], {
      ...this.#as(),
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    this.#output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8')
      stream.on('data', (piece: string) => void (this.#output = (this.#output + piece).slice(-20_000)))
    }
    this.#exited = new Promise((resolve) => {
      child.once('close', () => {
        this.#child = null
        resolve()
      })
    })
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
  }

  /** It is in its file. The shell that stands between reaps it: a dead one that nobody reaps looks as if it lived. */
  pid(): number {
    const [pid] = readFileSync(join(this.#data, 'postmaster.pid'), 'utf8').split('\n')
    return Number(pid)
  }

  async #ended(after: string): Promise<void> {
    await waitFor(() => this.#child === null, { timeout_ms: STOP_TIMEOUT_MS, what: `PostgreSQL to end after ${after}` })
  }

  #url(database: string): string {
    return `postgres://${SUPERUSER}@127.0.0.1:${this.port}/${database}`
  }

  #as(): { readonly uid?: number; readonly gid?: number; readonly env: NodeJS.ProcessEnv } {
    const env = { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8' }
    const { user } = this.#installation
    return user === null ? { env } : { ...user, env }
  }
}

/** A process and its children, which each have a session of their own, so that no one signal reaches all. */
function withChildren(pid: number): readonly number[] {
  if (!existsSync('/proc/self')) return [pid]
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((other) => parentOf(other) === pid)
  return [pid, ...children]
}

function parentOf(pid: number): number | null {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1])
  } catch (error) {
    if (hasEnded(error)) return null
    throw error
  }
}

function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!hasEnded(error)) throw error
  }
}

/** A process that has ended by itself since it was looked for. */
function hasEnded(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ['ENOENT', 'ESRCH'].includes(String(error.code))
}
