import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import { startWeir, type Weir } from '../../src/weir.ts'
import { atEnd } from './cleanup.ts'
import { type GatewayOptions, HELLO, writeConfiguration } from './gateway.ts'
import { spawnNode, type SpawnedProcess } from './processes.ts'

type WholeOptions = Pick<GatewayOptions, 'models' | 'endpoints' | 'upstream' | 'settings' | 'timeouts' | 'sandbox'> & {
  readonly env?: Readonly<Record<string, string>>
}

/** What a client of a whole Weir can do. The key is the demo tenant's. */
interface Client {
  readonly url: string
  readonly admin_url: string
  readonly key: string
  readonly sandbox: Sandbox
  readonly config_dir: string
  readonly data_dir: string
  chat(body: object): Promise<Response>
  get(path: string): Promise<Response>
  /** `GET` below `/admin/v1`. */
  admin(path: string): Promise<unknown>
  /** `GET /metrics` of the admin port. */
  metrics(): Promise<string>
}

export interface WholeInProcess extends Client {
  readonly weir: Weir
  /** Starts again on the same directories; drained when the test ends. */
  again(): Promise<Weir>
}

export interface WholeProcess extends Client {
  readonly process: SpawnedProcess
}

/** Starts everything as `main.ts` does, in this process; drained when the test ends. */
export async function startWhole(options: WholeOptions = {}): Promise<WholeInProcess> {
  const { sandbox, config_dir, data_dir } = await prepare(options)
  const again = async (): Promise<Weir> => {
    const logger = createLogger({ level: 'error', destination: { write: () => {} } })
    const env = { WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', WEIR_DATA_DIR: data_dir, ...options.env }
    const weir = await startWeir({ config_dir, env, clock: systemClock(), logger })
    atEnd(() => weir.drain())
    return weir
  }
  const weir = await again()
  return { ...client(weir.url ?? '', weir.admin_url ?? '', weir.demo_key ?? '', { sandbox, config_dir, data_dir }), weir, again }
}

/** Starts `main.ts` as a process of its own. */
export async function spawnWhole(options: WholeOptions = {}): Promise<WholeProcess> {
  const { sandbox, config_dir, data_dir } = await prepare(options)
  const env = { WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', WEIR_DATA_DIR: data_dir, WEIR_CONFIG_DIR: config_dir }
  const process = spawnNode('src/main.ts', [], env)
  const pattern = /listening on (http:\/\/\S+)[^]*metrics on (http:\/\/\S+)[^]*^(sk-weir-\S+)$/m
  const [, url = '', admin_url = '', key = ''] = await process.waitForOutput(pattern, 60_000)
  return { ...client(url, admin_url, key, { sandbox, config_dir, data_dir }), process }
}

async function prepare(options: WholeOptions): Promise<{ sandbox: Sandbox; config_dir: string; data_dir: string }> {
  const sandbox = await startSandbox({ port: 0, ...(options.sandbox === undefined ? {} : { defaults: options.sandbox }) })
  atEnd(() => sandbox.close())
  return { sandbox, ...writeConfiguration(options.upstream ?? sandbox.url, options) }
}

function client(url: string, admin_url: string, key: string, rest: Pick<Client, 'sandbox' | 'config_dir' | 'data_dir'>): Client {
  const authorization = `Bearer ${key}`
  return {
    url,
    admin_url,
    key,
    ...rest,
    chat: (body) =>
      fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'solo', messages: HELLO, ...body }),
      }),
    get: (path) => fetch(url + path, { headers: { authorization } }),
    admin: async (path) => {
      const { token } = JSON.parse(readFileSync(join(rest.data_dir, 'admin.json'), 'utf8')) as { token: string }
      return (await fetch(`${admin_url}/admin/v1${path}`, { headers: { authorization: `Bearer ${token}` } })).json()
    },
    metrics: async () => (await fetch(`${admin_url}/metrics`)).text(),
  }
}
