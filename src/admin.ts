import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import type { RandomBytes } from './base/ids.ts'
import type { Settings } from './config/model.ts'
import { createControlApi, createHealthApi, type ControlDeps } from './control/api.ts'

const ADMIN_FILE = 'admin.json'
const HEADERS_TIMEOUT_MS = 15_000
const REQUEST_TIMEOUT_MS = 60_000
const MAX_CONNECTIONS = 100
const SECRET_FILE = 'end-user.key'

/** The running control plane's HTTP side. */
export interface Admin {
  readonly url: string
  close(): Promise<void>
}

/** Production was started without an admin token. */
export class AdminTokenMissing extends Error {
  override name = 'AdminTokenMissing'
  constructor() {
    super(
      'WEIR_ADMIN_TOKEN is not set: in production mode the admin port does not open without a token. Set one of at least 16 characters.',
    )
  }
}

/**
 * The admin token: `WEIR_ADMIN_TOKEN`, or one made for this run in demo mode.
 *
 * @throws AdminTokenMissing in production mode without a token of at least 16 characters
 */
export function adminToken(env: Readonly<Record<string, string | undefined>>, settings: Settings, random: RandomBytes): string {
  const token = env['WEIR_ADMIN_TOKEN'] ?? ''
  if (token.length >= 16) return token
  if (settings.mode === 'production' || token !== '') throw new AdminTokenMissing()
  return Buffer.from(random(32)).toString('base64url')
}

export interface AdminDeps {
  readonly metrics: ControlDeps['metrics']
  /** Null where this process has no control plane: then there are metrics and health alone. */
  readonly control: ControlDeps | null
}

/** Starts the admin port and leaves its address and token for the command line, readable by this user only. */
export async function startAdmin({ control, metrics }: AdminDeps, settings: Settings): Promise<Admin> {
  const app = control === null ? createHealthApi(metrics) : createControlApi(control)
  const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server
  server.headersTimeout = HEADERS_TIMEOUT_MS
  server.requestTimeout = REQUEST_TIMEOUT_MS
  server.maxConnections = MAX_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(settings.admin_port, settings.admin_host, resolve)
  })
  const { port } = server.address() as AddressInfo
  const url = `http://${settings.admin_host.includes(':') ? `[${settings.admin_host}]` : settings.admin_host}:${port}`
  const file = join(settings.data_dir, ADMIN_FILE)
  mkdirSync(settings.data_dir, { recursive: true, mode: 0o700 })
  // Removed first: the mode of an existing file would stay what it was.
  rmSync(file, { force: true })
  if (control !== null) writeFileSync(file, `${JSON.stringify({ url, token: control.token, pid: process.pid })}\n`, { mode: 0o600 })
  return {
    url,
    async close() {
      rmSync(file, { force: true })
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The secret of the keyed hash that stands for end users in events: made once per data directory, so that the same user stays the same. */
export function endUserSecret(data_dir: string, random: RandomBytes): Buffer {
  mkdirSync(data_dir, { recursive: true, mode: 0o700 })
  const file = join(data_dir, SECRET_FILE)
  try {
    writeFileSync(file, Buffer.from(random(32)).toString('hex'), { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
  return Buffer.from(readFileSync(file, 'utf8').trim(), 'hex')
}
