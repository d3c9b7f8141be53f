/** The processes of a benchmark: what is measured (Weir, nginx) and what is not (client, upstream). */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LoadOrder, LoadReport } from './client.ts'
import { withChildren } from './procfs.ts'
import type { Seed } from './seed.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** A gateway with a million keys reads them before it listens. */
const START_LIMIT_MS = 180_000
const STOP_LIMIT_MS = 10_000
const ORDER_LIMIT_MS = 300_000
const POLL_MS = 20

/** Something that answers requests and whose CPU is counted. */
export interface Subject {
  readonly name: string
  readonly port: number
  /** The path of the request that is answered by `answer` of the upstream, and the model to name in it. */
  pathOf(answer: string): string
  readonly pids: readonly number[]
  /** Ends it, and waits until it has ended. */
  stop(): Promise<void>
}

/** Client and upstream share the first core and the measured process has the second, so that neither takes the other's. */
function pinned(core: number, command: readonly string[]): readonly string[] {
  const can = process.platform === 'linux' && availableParallelism() > 1 && spawnSync('taskset', ['--version']).status === 0
  return can ? ['taskset', '-c', String(core), ...command] : command
}

const running = new Set<ChildProcess>()

/** Ends every process of the benchmark. Politely first: a killed nginx leaves its worker behind. */
export async function stopAll(): Promise<void> {
  await Promise.all([...running].map((child) => stopped(child, 'SIGTERM')))
}

function start(command: readonly string[], options: Parameters<typeof spawn>[2]): ChildProcess {
  const [file = '', ...args] = command
  const child = spawn(file, args, options)
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}

/** A process of the benchmark's own that takes one order at a time over IPC and answers each with one message. */
export interface Crew {
  readonly pid: number
  /** @throws Error when the process ends or does not answer in time */
  ask(order: object): Promise<unknown>
  stop(): Promise<void>
}

/** Starts `file` of this folder on a core: 0 is that of client and upstream, 1 that of what is measured. */
export function startCrew(file: string, core: 0 | 1, args: readonly string[] = [], node_options: readonly string[] = []): Crew {
  const command = [process.execPath, ...node_options, join(import.meta.dirname, file), ...args]
  const child = start(pinned(core, command), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  return {
    pid: child.pid ?? 0,
    ask(order) {
      const answer = nextMessage(child)
      child.send(order)
      return answer
    },
    stop: () => stopped(child, 'SIGTERM'),
  }
}

/** Starts the upstream and gives its port. */
export async function startUpstream(): Promise<number> {
  const child = start(pinned(0, [process.execPath, join(import.meta.dirname, 'upstream.ts')]), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const said = await nextMessage(child)
  if (typeof said === 'object' && said !== null && 'port' in said && typeof said.port === 'number') return said.port
  throw new Error('the upstream did not say its port')
}

/** The load client. */
export interface Client {
  /** @throws Error when a request failed: a figure over failures would mean nothing */
  run(order: LoadOrder): Promise<LoadReport>
}

export function startClient(): Client {
  const crew = startCrew('client.ts', 0)
  return {
    async run(order) {
      const report = (await crew.ask(order)) as LoadReport
      if (report.failures > 0) throw new Error(`${report.failures} requests failed, the first with: ${report.failure}`)
      return report
    },
  }
}

function nextMessage(child: ChildProcess): Promise<unknown> {
  return new Promise((done, failed) => {
    const timer = setTimeout(
      () => failed(new Error(`no answer from a process of the benchmark within ${ORDER_LIMIT_MS} ms`)),
      ORDER_LIMIT_MS,
    )
    const ended = (): void => failed(new Error('a process of the benchmark ended'))
    child.once('message', (message) => {
      clearTimeout(timer)
      child.off('exit', ended)
      done(message)
    })
    child.once('exit', ended)
  })
}

/** nginx as a bare reverse proxy. Null, with the reason, where there is none. */
export async function startNginx(dir: string, upstream_port: number): Promise<Subject | string> {
  const binary = ['nginx', '/usr/sbin/nginx'].find((file) => spawnSync(file, ['-v']).status === 0)
  if (binary === undefined) return 'nginx is not installed (Debian: apt-get install nginx-light)'
  const port = await freePort()
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'nginx.conf')
  writeFileSync(file, nginxConfiguration(dir, port, upstream_port))
  const child = start(pinned(1, [binary, '-p', dir, '-c', file, '-e', 'stderr']), { stdio: ['ignore', 'ignore', 'inherit'] })
  await listening(port, child, 'nginx')
  return {
    name: 'nginx',
    port,
    pathOf: (answer) => `/${answer}/v1/chat/completions`,
    pids: withChildren(child.pid ?? 0),
    stop: () => stopped(child, 'SIGTERM'),
  }
}

function nginxConfiguration(dir: string, port: number, upstream_port: number): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`)
  return `${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off; worker_processes 1; pid ${dir}/nginx.pid; error_log stderr crit;
events { worker_connections 16384; }
http {
  access_log off; ${temporary.join(' ')} keepalive_requests 100000000; client_body_buffer_size 128k;
  upstream bench { server 127.0.0.1:${upstream_port}; keepalive 256; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s; proxy_buffering off;
    location / { proxy_pass http://bench; }
    location /whole/ { proxy_pass http://bench; proxy_buffering on; }
  }
}
`
}

/** A gateway that was started for the benchmark. */
export interface WeirSubject extends Subject {
  /** From the start of the process to the listening port. */
  readonly start_ms: number
}

/** How a gateway is started, where it is not one that is measured alone on its core. */
export interface WeirOptions {
  readonly node_options?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** The core that it may use; null for any. */
  readonly core?: 0 | 1 | null
  /** It serves no requests: only its admin port is waited for. */
  readonly admin_only?: boolean
}

/** Weir with everything on: production mode, journal, ledger, metrics, and its log at the level it ships with, into /dev/null. */
export async function startWeirProcess(name: string, seeded: Seed, entry: string, how: WeirOptions = {}): Promise<WeirSubject> {
  const { node_options = [], env = {}, core = 1, admin_only = false } = how
  const [port, admin_port] = [await freePort(), await freePort()]
  const options = (process.env['BENCH_NODE_OPTIONS'] ?? '').split(' ').filter((option) => option !== '')
  const plain = [process.execPath, ...options, ...node_options, entry]
  const command = core === null ? plain : pinned(core, plain)
  const ports = { WEIR_PORT: String(port), WEIR_ADMIN_PORT: String(admin_port) }
  const started_at = performance.now()
  const child = start(command, {
    cwd: ROOT,
    env: { ...environmentOf(seeded), ...ports, ...env },
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit'],
  })
  await listening(admin_only ? admin_port : port, child, name)
  const start_ms = performance.now() - started_at
  return { name, port, start_ms, pathOf: () => '/v1/chat/completions', pids: [child.pid ?? 0], stop: () => stopped(child, 'SIGTERM') }
}

function environmentOf({ config_dir, data_dir }: Seed): Record<string, string> {
  return {
    ...{ PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', WEIR_ADMIN_TOKEN: 'a-token-for-the-benchmark' },
    ...{ WEIR_CONFIG_DIR: config_dir, WEIR_DATA_DIR: data_dir },
  }
}

/** Runs a command of Weir to its end. @throws Error, with what it said, unless it succeeds */
export async function runWeir(seeded: Seed, cli: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
  const child = start([process.execPath, cli, ...args], {
    cwd: ROOT,
    env: { ...environmentOf(seeded), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (piece: Buffer) => void (said += piece.toString()))
  const code = await new Promise((done) => child.once('close', done))
  if (code !== 0) throw new Error(`weir ${args.join(' ')} ended with ${String(code)}: ${said}`)
}

/** A redis-server that keeps nothing. Null, with the reason, where there is none. */
export async function startRedisServer(
  dir: string,
): Promise<{ readonly port: number; readonly pid: number; stop(): Promise<void> } | string> {
  const program = ['redis-server', 'valkey-server'].find((name) => spawnSync(name, ['--version']).status === 0)
  if (program === undefined) return 'no redis-server is installed (Debian: apt-get install redis-server)'
  mkdirSync(dir, { recursive: true })
  const port = await freePort()
  const options = { port: String(port), bind: '127.0.0.1', dir, save: '', appendonly: 'no' }
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const child = start(pinned(0, [program, ...words]), { stdio: ['ignore', 'ignore', 'inherit'] })
  await listening(port, child, program)
  return { port, pid: child.pid ?? 0, stop: () => stopped(child, 'SIGTERM') }
}

async function stopped(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const exited = new Promise<void>((done) => child.once('exit', () => done()))
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
  child.kill(signal)
  await exited
  clearTimeout(timer)
}

async function listening(port: number, child: ChildProcess, what: string): Promise<void> {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  for (let waited_ms = 0; waited_ms < START_LIMIT_MS; waited_ms += POLL_MS) {
    if (child.exitCode !== null) throw new Error(`${what} ended with ${child.exitCode} before it listened`)
    // State 0A is LISTEN (proc(5)): asking the kernel sends the process no connection that it would have to serve.
    if (new RegExp(`:${hex} \\S+ 0A`).test(readFileSync('/proc/net/tcp', 'latin1'))) return
    await sleep(POLL_MS)
  }
  throw new Error(`${what} did not listen within ${START_LIMIT_MS} ms`)
}

/** A port of the loopback interface that is free now. */
export function freePort(): Promise<number> {
  return new Promise((done, failed) => {
    const server = createServer()
    server.once('error', failed)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => (address !== null && typeof address === 'object' ? done(address.port) : failed(new Error('no free port'))))
    })
  })
}
