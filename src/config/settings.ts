import { resolve } from 'node:path'
import { ENVIRONMENT } from './document.ts'
import type { IssueList, SourceFile } from './document.ts'
import type { ClusterSettings, Role, Settings } from './model.ts'
import { parseShape } from './parse.ts'
import { isHttpUrl, ROLES, SETTINGS } from './schema.ts'

type Environment = Readonly<Record<string, string | undefined>>

/**
 * `weir.yaml` and the environment, which wins. Demo mode differs in three defaults: it listens on loopback, has no drain delay, and the one
 * demo tenant may use the whole node.
 * @returns null after a mistake of the file's shape
 */
export function buildSettings(source: SourceFile, value: unknown, env: Environment, issues: IssueList): Settings | null {
  const before = issues.issues.length
  const file = parseShape(SETTINGS, value, source, [], issues)
  // After a misspelled key the value compared with would be a default that nobody chose.
  const complete = issues.issues.length === before
  const from_env = readSettings(env, issues)
  if (file === null) return null
  const demo = from_env.mode === 'demo'
  const settings: Settings = {
    mode: from_env.mode,
    host: file.host ?? (demo ? '127.0.0.1' : '0.0.0.0'),
    port: from_env.port ?? file.port,
    admin_host: file.admin_host,
    admin_port: from_env.admin_port ?? file.admin_port,
    data_dir: resolve(from_env.data_dir ?? file.data_dir),
    limits: { ...file.limits, tenant_share_percent: file.limits.tenant_share_percent ?? (demo ? 100 : 25) },
    drain: { ...file.drain, delay_ms: file.drain.delay_ms ?? (demo ? 0 : 5000) },
    journal: file.journal,
    roles: from_env.roles ?? file.roles,
    workers: from_env.workers ?? file.workers,
    cluster: from_env.urls === null ? null : { ...from_env.urls, ...file.cluster },
    log: file.log,
    cors: file.cors,
    operator:
      file.operator === undefined
        ? null
        : { ...file.operator, registration: file.operator.registration ?? null, contact: file.operator.contact ?? null },
    proxy: from_env.proxy,
  }
  if (complete) crossCheck(settings, source, issues)
  return settings
}

function crossCheck(settings: Settings, source: SourceFile, issues: IssueList): void {
  const { limits } = settings
  if (limits.upstream_connections_per_origin <= limits.max_open_requests) {
    const message = `is ${limits.upstream_connections_per_origin}, not above max_open_requests (${limits.max_open_requests})`
    issues.add(
      source,
      ['limits', 'upstream_connections_per_origin'],
      message,
      'more than max_open_requests: a request that waits for a connection has no timeout',
    )
  }
  if (limits.headers_timeout_ms > limits.request_timeout_ms) {
    const message = `is ${limits.headers_timeout_ms}, above request_timeout_ms (${limits.request_timeout_ms})`
    issues.add(source, ['limits', 'headers_timeout_ms'], message, 'at most request_timeout_ms')
  }
  if (limits.max_event_bytes > limits.max_answer_bytes) {
    issues.add(source, ['limits', 'max_event_bytes'], 'is above max_answer_bytes', 'at most max_answer_bytes')
  }
  if (settings.cluster === null && settings.workers > 1) {
    const expected = '1, or WEIR_REDIS_URL and WEIR_DATABASE_URL: processes share nothing without them'
    issues.add(source, ['workers'], `is ${settings.workers} in embedded mode`, expected)
  }
  if (settings.cluster === null && settings.roles.length < ROLES.length) {
    const expected = 'every role, or WEIR_REDIS_URL and WEIR_DATABASE_URL: processes share nothing without them'
    issues.add(source, ['roles'], 'leaves some out in embedded mode', expected)
  }
  if (settings.port !== 0 && settings.port === settings.admin_port) {
    issues.add(source, ['admin_port'], `is ${settings.admin_port}, the same as port`, 'another port')
  }
}

interface FromEnvironment {
  readonly mode: Settings['mode']
  readonly port: number | null
  readonly admin_port: number | null
  readonly data_dir: string | null
  readonly roles: readonly Role[] | null
  readonly workers: number | null
  readonly urls: Pick<ClusterSettings, 'redis_url' | 'database_url'> | null
  readonly proxy: Settings['proxy']
}

function readSettings(env: Environment, issues: IssueList): FromEnvironment {
  return {
    mode: env['NODE_ENV'] === 'production' ? 'production' : 'demo',
    port: readPort(env, 'WEIR_PORT', issues),
    admin_port: readPort(env, 'WEIR_ADMIN_PORT', issues),
    data_dir: given(env, ['WEIR_DATA_DIR']),
    roles: readRoles(env, issues),
    workers: readWorkers(env, issues),
    urls: readClusterUrls(env, issues),
    proxy: {
      https: readProxy(env, ['HTTPS_PROXY', 'https_proxy'], issues),
      http: readProxy(env, ['HTTP_PROXY', 'http_proxy'], issues),
      no_proxy: given(env, ['NO_PROXY', 'no_proxy']),
    },
  }
}

/** Both or neither: one alone would be a gateway that has lost half of what it knows. */
function readClusterUrls(env: Environment, issues: IssueList): FromEnvironment['urls'] {
  const [redis_url, database_url] = [given(env, ['WEIR_REDIS_URL']), given(env, ['WEIR_DATABASE_URL'])]
  if (redis_url === null && database_url === null) return null
  if (redis_url === null || database_url === null) {
    const [set, missing] = redis_url === null ? ['WEIR_DATABASE_URL', 'WEIR_REDIS_URL'] : ['WEIR_REDIS_URL', 'WEIR_DATABASE_URL']
    issues.add(ENVIRONMENT, [set], `is set, but ${missing} is not`, 'both for cluster mode, or neither for embedded mode')
    return null
  }
  // The values carry passwords: they are not repeated.
  if (!redis_url.split(',').every((url) => isUrlOf(url, REDIS_PROTOCOLS))) {
    issues.add(ENVIRONMENT, ['WEIR_REDIS_URL'], 'has a value that cannot be used', 'a redis:// or rediss:// URL, or several with commas')
  }
  if (!isUrlOf(database_url, DATABASE_PROTOCOLS)) {
    issues.add(ENVIRONMENT, ['WEIR_DATABASE_URL'], 'has a value that cannot be used', 'a postgres:// URL')
  }
  return { redis_url, database_url }
}

const REDIS_PROTOCOLS: ReadonlySet<string> = new Set(['redis:', 'rediss:'])
const DATABASE_PROTOCOLS: ReadonlySet<string> = new Set(['postgres:', 'postgresql:'])

function isUrlOf(text: string, protocols: ReadonlySet<string>): boolean {
  return URL.canParse(text.trim()) && protocols.has(new URL(text.trim()).protocol)
}

function readRoles(env: Environment, issues: IssueList): readonly Role[] | null {
  const value = given(env, ['WEIR_ROLES'])
  if (value === null) return null
  const named = value.split(',').map((role) => role.trim())
  const roles = ROLES.filter((role) => named.includes(role))
  if (roles.length === new Set(named).size && roles.length > 0) return roles
  issues.add(ENVIRONMENT, ['WEIR_ROLES'], `is ${JSON.stringify(value.slice(0, 60))}`, `one or more of ${ROLES.join(', ')}`)
  return null
}

function readWorkers(env: Environment, issues: IssueList): number | null {
  const value = given(env, ['WEIR_WORKERS'])
  if (value === null) return null
  if (/^\d{1,3}$/.test(value) && Number(value) >= 1 && Number(value) <= 256) return Number(value)
  issues.add(ENVIRONMENT, ['WEIR_WORKERS'], `is ${JSON.stringify(value.slice(0, 60))}`, 'a number of processes from 1 to 256')
  return null
}

/** The first of these variables that has a value. An empty one counts as not set. */
function given(env: Environment, names: readonly string[]): string | null {
  for (const name of names) {
    const value = env[name]
    if (value !== undefined && value !== '') return value
  }
  return null
}

function readPort(env: Environment, name: string, issues: IssueList): number | null {
  const value = given(env, [name])
  if (value === null) return null
  if (/^\d{1,5}$/.test(value) && Number(value) <= 65_535) return Number(value)
  issues.add(ENVIRONMENT, [name], `is ${JSON.stringify(value.slice(0, 60))}`, 'a TCP port from 0 (any free one) to 65535')
  return null
}

function readProxy(env: Environment, names: readonly string[], issues: IssueList): string | null {
  const value = given(env, names)
  if (value === null) return null
  // A bare host:port is what curl accepts as well.
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`
  if (isHttpUrl(url, true)) return url
  issues.add(ENVIRONMENT, [names[0] ?? ''], 'has a value that cannot be used', 'an http:// or https:// URL of a proxy')
  return null
}
