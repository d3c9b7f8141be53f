import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import * as z from 'zod'
import { configDirectory, loadConfiguration, type LoadResult } from '../config/load.ts'
import { createControlApi, type ControlDeps } from '../control/api.ts'
import { windowAround } from '../money/window.ts'
import { createLogger } from '../observe/log.ts'
import { namedKeys, withProviderKeys } from '../provider-keys.ts'
import { DataDirectoryInUse } from '../storage/journal/lock.ts'
import { rebuildLimits } from '../storage/memory/rebuild.ts'
import { NO_NODES } from '../storage/nodes.ts'
import { readMasterKeys } from '../start/master-key.ts'
import { openEmbedded } from '../storage/open.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'
import { CommandFailed, Unreachable, type CliContext } from './io.ts'

/** Speaks the admin API: to the running server, or to the same API on storage opened by this process. */
export interface AdminClient {
  /** True when a running server answers; false when this process opened the storage itself. */
  readonly live: boolean
  /** @throws Refused with the server's words; Unreachable when it went away */
  request(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: object): Promise<unknown>
  close(): Promise<void>
}

/** The admin API said no. */
export class Refused extends CommandFailed {
  override name = 'Refused'
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const REQUEST_TIMEOUT_MS = 120_000
const OFFLINE_TOKEN_BYTES = 32
/** When the configuration cannot be read, storage is opened with these. */
const FALLBACK_JOURNAL = { commit_timeout_ms: 5000, keep_days: 7 }

const AdminFile = z.object({ url: z.url(), token: z.string().min(1) })
const ErrorBody = z.object({ error: z.object({ message: z.string() }) })
const ReloadBody = z.object({ issues: z.array(z.object({ file: z.string(), path: z.string(), message: z.string() })) })

/** The configuration as a command sees it. */
export function readConfiguration({ env }: CliContext, config_dir?: string): LoadResult {
  return loadConfiguration({ config_dir: config_dir ?? configDirectory(env), env, providers: [...PROVIDERS.values()] })
}

/**
 * Reaches the server at `WEIR_ADMIN_URL`, or the running one through `admin.json` in the data directory, or else takes the data
 * directory's lock and serves the same API in this process. What a cluster shares is never opened by a command.
 *
 * @throws Unreachable, with the reason, when neither works
 */
export async function openClient(context: CliContext): Promise<AdminClient> {
  const remote = remoteAdmin(context.env)
  if (remote !== null) return liveClient(remote)
  const loaded = readConfiguration(context)
  const data_dir = loaded.ok ? loaded.configuration.settings.data_dir : resolve(context.env['WEIR_DATA_DIR'] ?? './data')
  const file = readAdminFile(data_dir)
  if (file !== null && (await answers(file.url))) return liveClient(file)
  const in_cluster = loaded.ok ? loaded.configuration.settings.cluster !== null : hasClusterUrls(context.env)
  if (in_cluster) throw new Unreachable(NO_CONTROL)
  return await openStorage(context, loaded, data_dir, file?.url ?? null)
}

const NO_CONTROL =
  'no process of this cluster that has the role "control" answers here. Set WEIR_ADMIN_URL to the admin address of one that has, and ' +
  'WEIR_ADMIN_TOKEN to its token, or run this command where it runs.'

function hasClusterUrls(env: CliContext['env']): boolean {
  return (env['WEIR_REDIS_URL'] ?? '') !== '' && (env['WEIR_DATABASE_URL'] ?? '') !== ''
}

/** The server that was named outright. @throws Unreachable if its address or token is missing or makes no sense */
function remoteAdmin(env: CliContext['env']): z.infer<typeof AdminFile> | null {
  const url = env['WEIR_ADMIN_URL'] ?? ''
  if (url === '') return null
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
    throw new Unreachable('WEIR_ADMIN_URL is no address: write http://host:port, as the server prints it at its start.')
  }
  const token = env['WEIR_ADMIN_TOKEN'] ?? ''
  if (token === '') throw new Unreachable('WEIR_ADMIN_URL is set, but WEIR_ADMIN_TOKEN is not: the server there wants its token.')
  return { url: url.replace(/\/+$/, ''), token }
}

function readAdminFile(data_dir: string): z.infer<typeof AdminFile> | null {
  const path = join(data_dir, 'admin.json')
  try {
    return AdminFile.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    if (code === 'EACCES') throw new Unreachable(`${path} may not be read: run this command as the user that runs the server.`)
    throw new Unreachable(`${path} is damaged. If no server is running, delete it; else restart the server.`)
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(5000) })
    await response.body?.cancel()
    return response.ok
  } catch (error) {
    // Left behind by a server that was killed; whether one runs is for the lock to say.
    if (error instanceof Error) return false
    throw error
  }
}

function liveClient({ url, token }: z.infer<typeof AdminFile>): AdminClient {
  const send = async (path: string, init: RequestInit): Promise<Response> => {
    try {
      return await fetch(url + path, { ...init, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) })
    } catch (cause) {
      throw new Unreachable(`the server at ${url} stopped answering.`, { cause })
    }
  }
  return { live: true, request: requester(send, token), close: () => Promise.resolve() }
}

/** @throws CommandFailed naming a master key file that cannot be used */
function masterKeysOf({ env }: CliContext): ReturnType<typeof readMasterKeys> {
  try {
    return readMasterKeys(env)
  } catch (cause) {
    throw new CommandFailed(cause instanceof Error ? cause.message : String(cause), { cause })
  }
}

async function openStorage(context: CliContext, loaded: LoadResult, data_dir: string, stale_url: string | null): Promise<AdminClient> {
  const { clock } = context
  const journal = loaded.ok ? loaded.configuration.settings.journal : FALLBACK_JOURNAL
  const master_keys = masterKeysOf(context)
  const storage = await openEmbedded({ data_dir, clock, commit_timeout_ms: journal.commit_timeout_ms, keep_days: journal.keep_days }).catch(
    (error: unknown) => {
      throw explainStorage(error, data_dir, stale_url)
    },
  )
  try {
    await storage.ledger.post()
    await rebuildLimits(storage.limits, storage.records, storage.ledger, { clock, windowAt: windowAround })
  } catch (error) {
    await storage.close()
    throw error
  }
  const provider_keys = await storage.records.providerKeys()
  const token = randomBytes(OFFLINE_TOKEN_BYTES).toString('base64url')
  const deps: ControlDeps = {
    ...storage,
    nodes: NO_NODES,
    clock,
    random: randomBytes,
    metrics: { render: () => Promise.resolve(''), content_type: 'text/plain' },
    logger: createLogger({ level: 'error', destination: { write: context.err } }),
    token,
    offline: true,
    master_keys,
    configuration: () => (loaded.ok ? withProviderKeys(loaded.configuration, namedKeys(provider_keys)) : null),
    knowsModel: (name) => {
      if (!loaded.ok) return true
      const { catalogue, routes } = loaded.configuration
      return catalogue.models.has(name) || catalogue.aliases.has(name) || routes.has(name)
    },
    modelOf: (name) => {
      // Without a readable catalogue names are taken as they are.
      if (!loaded.ok) return name
      const { aliases, models } = loaded.configuration.catalogue
      return aliases.get(name) ?? (models.has(name) ? name : null)
    },
    kindOf: (model) => (loaded.ok ? (loaded.configuration.catalogue.models.get(model)?.kind ?? null) : 'chat'),
    reload: () => Promise.reject(new Unreachable('no server is running, so there is nothing to reload.')),
  }
  const app = createControlApi(deps)
  return { live: false, request: requester(async (path, init) => await app.request(path, init), token), close: () => storage.close() }
}

function explainStorage(error: unknown, data_dir: string, stale_url: string | null): Error {
  if (!(error instanceof Error)) return new Unreachable(`the data directory ${data_dir} could not be opened.`)
  if (!(error instanceof DataDirectoryInUse))
    return new Unreachable(`the data directory ${data_dir} could not be opened: ${error.message}`, { cause: error })
  const why = stale_url === null ? 'left no admin.json there' : `does not answer at ${stale_url}`
  return new Unreachable(
    `another Weir process has the data directory ${data_dir}, but it ${why}. It may be starting or draining: try again, or look at its log.`,
  )
}

type Send = (path: string, init: RequestInit) => Promise<Response>

function requester(send: Send, token: string): AdminClient['request'] {
  return async (method, path, body) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const response = await send(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    const answer: unknown = await response.json()
    if (!response.ok) throw new Refused(response.status, wordsOf(answer, response.status))
    return answer
  }
}

function wordsOf(answer: unknown, status: number): string {
  const refusal = ErrorBody.safeParse(answer)
  if (refusal.success) return refusal.data.error.message
  const reload = ReloadBody.safeParse(answer)
  if (!reload.success) return `the admin API answered ${status}`
  const mistakes = reload.data.issues.map(({ file, path, message }) => `${file}: ${path} ${message}`)
  return `the new configuration was refused, the old one stays in force:\n${mistakes.join('\n')}`
}
