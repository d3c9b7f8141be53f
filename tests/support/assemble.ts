import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { hashKey, newKeySecret } from '../../src/base/ids.ts'
import { loadConfiguration } from '../../src/config/load.ts'
import type { Configuration } from '../../src/config/model.ts'
import { drainServer } from '../../src/drain.ts'
import { createGatewayServer } from '../../src/gateway/ingress.ts'
import { KeyTable } from '../../src/gateway/keys.ts'
import { OpenCalls } from '../../src/gateway/open-calls.ts'
import type { Plane } from '../../src/gateway/plane.ts'
import { Room } from '../../src/gateway/room.ts'
import { RecentRefusals } from '../../src/gateway/refusals.ts'
import { buildSnapshot } from '../../src/gateway/snapshot.ts'
import { StreamTicker } from '../../src/gateway/ticker.ts'
import { nanoFromCny } from '../../src/money/amount.ts'
import { walletOf } from '../../src/money/grant.ts'
import { createLogger } from '../../src/observe/log.ts'
import { createMetrics } from '../../src/observe/metrics.ts'
import { createDomainClassifier } from '../../src/routing/domain.ts'
import { ALONE } from '../../src/storage/nodes.ts'
import { openEmbedded, type EmbeddedStorage } from '../../src/storage/open.ts'
import { type KeyRecord, type LimitSetting, type ProjectRecord, TENANT_DEFAULTS, type TenantRecord } from '../../src/storage/records.ts'
import { BreakerBoard } from '../../src/upstream/breaker.ts'
import { LatencyBoard } from '../../src/upstream/latency.ts'
import { createTransport } from '../../src/upstream/pool.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { RetryBudget } from '../../src/upstream/retry-budget.ts'
import { REPO_ROOT } from './root.ts'

/** A data plane on real storage and a real socket, with everything inside within a test's reach. Needs no test runner. */
export interface Assembled {
  readonly url: string
  readonly plane: Plane
  readonly storage: EmbeddedStorage
  /** Lines of the log, oldest first. */
  readonly log_lines: readonly string[]
  account(options?: AccountOptions): Promise<Account>
  revoke(key: KeyRecord): Promise<void>
  /** Puts the configuration directory's present contents in force. @throws Error naming every mistake */
  reload(): void
  drain(): Promise<void>
  close(): Promise<void>
}

export interface AccountOptions {
  readonly tenant?: Partial<TenantRecord>
  readonly project?: Partial<Pick<ProjectRecord, 'zones'>>
  readonly key?: Partial<KeyRecord>
  /** Limits of the tenant's key. */
  readonly limits?: readonly LimitSetting[]
  /** Money in the wallet; '1000' by default. */
  readonly wallet_cny?: string
}

/** A tenant with one project, one key and a wallet. */
export interface Account {
  readonly tenant: string
  readonly secret: string
  readonly key: KeyRecord
}

export interface AssembleOptions {
  readonly config_dir: string
  readonly data_dir: string
}

/** Puts a gateway together as a start does, without the admin port. */
export async function assemble({ config_dir, data_dir }: AssembleOptions): Promise<Assembled> {
  const clock = systemClock()
  const log_lines: string[] = []
  const logger = createLogger({ level: 'info', destination: { write: (line) => void log_lines.push(line) } })
  let configuration = load(config_dir)
  const { settings } = configuration
  const storage = await openEmbedded({
    data_dir,
    clock,
    commit_timeout_ms: settings.journal.commit_timeout_ms,
    keep_days: settings.journal.keep_days,
  })
  const { limits, log, ledger, records } = storage
  let snapshot = buildSnapshot(configuration)
  const metrics = createMetrics({
    openHolds: () => limits.openHolds(),
    queuedRequests: () => room.waiting,
    providerKeys: () => room.keyStates(snapshot.endpoints.values()),
    endpointRoom: (id) => {
      const endpoint = snapshot.endpoints.get(id)
      return endpoint === undefined ? null : room.left(endpoint)
    },
  })
  const room = new Room(() => ALONE, Math.random, clock, metrics)
  const adopt = (next: Configuration): void => {
    configuration = next
    snapshot = buildSnapshot(next)
    room.adopt(snapshot.endpoints.values())
    metrics.setKnown([...next.catalogue.models.keys()], [...snapshot.endpoints.keys()])
  }
  adopt(configuration)
  const keys = new KeyTable()
  await keys.load(records)
  const state = { draining: false }
  const plane: Plane = {
    snapshot: () => snapshot,
    unready: () => null,
    keys,
    limits,
    log,
    closing: storage.closing,
    ledger,
    records,
    transport: createTransport({ connections_per_origin: settings.limits.upstream_connections_per_origin, proxy: settings.proxy }),
    breakers: new BreakerBoard(),
    latencies: new LatencyBoard(),
    retries: new RetryBudget(),
    classifier: createDomainClassifier(readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin'))),
    room,
    providers: PROVIDERS,
    clock,
    randomBytes,
    metrics,
    logger,
    open: new OpenCalls(),
    refusals: new RecentRefusals(),
    ticker: new StreamTicker(limits, log, clock, logger),
    end_user_secret: randomBytes(32),
    state,
  }
  plane.ticker.start()
  const server = createGatewayServer(plane, settings)
  const url = await listen(server)
  let closing: Promise<void> | null = null
  const end = async (drain: boolean): Promise<void> => {
    state.draining = true
    await drainServer(server, drain ? settings.drain : { delay_ms: 0, timeout_ms: 0 }, plane.open)
    plane.ticker.stop()
    await plane.transport.close()
    await storage.close()
  }
  return {
    url,
    plane,
    storage,
    log_lines,
    account: (options = {}) => createAccount(storage, keys, options),
    revoke: (key) => revokeKey(storage, keys, key),
    reload: () => adopt(load(config_dir)),
    drain: () => (closing ??= end(true)),
    close: () => (closing ??= end(false)),
  }
}

function load(config_dir: string): Configuration {
  const result = loadConfiguration({ config_dir, env: { WEIR_PORT: '0' }, providers: [...PROVIDERS.values()] })
  if (!result.ok) throw new Error(JSON.stringify(result.issues, null, 2))
  return result.configuration
}

function listen(server: Server): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
  })
}

let accounts = 0

async function createAccount(storage: EmbeddedStorage, keys: KeyTable, options: AccountOptions): Promise<Account> {
  const { records, credits, ledger } = storage
  accounts += 1
  const id = options.tenant?.id ?? `tenant-${accounts}`
  const created_at = Date.now()
  const secret = newKeySecret()
  const tenant: TenantRecord = {
    id,
    name: id,
    audience: 'internal',
    status: 'active',
    locale: 'en',
    time_zone: 'Asia/Shanghai',
    zones: ['private', 'domestic'],
    on_client_abort: 'cancel',
    on_limits_away: 'closed',
    credit_line_nano: 0n,
    limits: [],
    ...TENANT_DEFAULTS,
    created_at,
    ...options.tenant,
  }
  const key: KeyRecord = {
    id: `key-${accounts}`,
    tenant: id,
    project: `project-${accounts}`,
    name: 'test',
    hash: hashKey(secret),
    last4: secret.slice(-4),
    scopes: [],
    models: null,
    zones: null,
    limits: options.limits ?? [],
    expires_at: null,
    revoked_at: null,
    created_at,
    ...options.key,
  }
  await records.put({ kind: 'tenant', record: tenant })
  const project: ProjectRecord = { id: key.project, tenant: id, name: 'default', limits: [], zones: null, created_at, ...options.project }
  await records.put({ kind: 'project', record: project })
  await records.put({ kind: 'key', record: key })
  const amount = nanoFromCny(options.wallet_cny ?? '1000')
  const grant = {
    id: walletOf(id),
    tenant: id,
    unit: 'nano_cny',
    priority: 100,
    expires_at: null,
    created_at,
    models: null,
    weights: null,
  } as const
  await records.put({ kind: 'grant', record: { ...grant, kind: 'wallet', amount } })
  if (amount > 0n) {
    const account = { owner: id, unit: 'nano_cny' } as const
    const entries = [
      { account: { ...account, code: 'cash_clearing' as const, ref: '' }, amount },
      { account: { ...account, code: 'wallet_liability' as const, ref: grant.id }, amount: -amount },
    ]
    const transaction = { id: `top-up-${id}`, at: created_at, kind: 'top_up', note: 'test', entries } as const
    await ledger.transact(transaction)
    await credits.deliver(transaction)
  } else await credits.changeTerms({ ...grant, kind: 'wallet', amount })
  await keys.follow(records)
  return { tenant: id, secret, key }
}

async function revokeKey({ records, limits }: EmbeddedStorage, keys: KeyTable, key: KeyRecord): Promise<void> {
  await records.put({ kind: 'key', record: { ...key, revoked_at: Date.now() } })
  await limits.block('key', key.id, true)
  await keys.follow(records)
}
