import { randomBytes } from 'node:crypto'
import type { Clock } from './base/clock.ts'
import type { MasterKeys } from './base/envelope.ts'
import { randomUnit, type RandomBytes } from './base/ids.ts'
import type { ConfigIssue, Configuration, Role } from './config/model.ts'
import type { ControlDeps, ReloadOutcome } from './control/deps.ts'
import { createDemo } from './control/demo.ts'
import { KeyTable } from './gateway/keys.ts'
import { adminToken, startAdmin } from './admin.ts'
import { Room } from './gateway/room.ts'
import type { Logger } from './observe/log.ts'
import { createMetrics, type Metrics } from './observe/metrics.ts'
import { startSandbox } from './sandbox/server.ts'
import { ClusterMode } from './start/cluster.ts'
import { ConfigurationInForce, readConfiguration } from './start/configuration.ts'
import { type DataPlane, startDataPlane } from './start/data-plane.ts'
import { EmbeddedMode } from './start/embedded.ts'
import type { Mode } from './start/mode.ts'
import { Undo } from './start/undo.ts'
import { openProviderKeys } from './provider-keys.ts'
import { readMasterKeys } from './start/master-key.ts'
import { BreakerBoard } from './upstream/breaker.ts'
import type { CapacityLeft } from './upstream/capacity.ts'
import { LatencyBoard } from './upstream/latency.ts'
import { readVersion } from './version.ts'

export interface WeirOptions {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  readonly logger: Logger
  /** What this process does; every role of the settings unless some are left to other processes of this machine. */
  readonly roles?: readonly Role[]
  /** Its place on this machine, in cluster mode; 0 unless there are more processes. */
  readonly slot?: number
  /** Where the sandbox of a demo is, if another process has started it. */
  readonly sandbox_url?: string
  /** What `/metrics` answers, if other processes have a part in it. Given this process's own. */
  readonly metricsOf?: (own: Metrics) => Pick<Metrics, 'render' | 'content_type'>
  readonly randomBytes?: RandomBytes
}

/** What runs in one process. */
export interface Weir {
  /** Where the gateway listens; null without that role. */
  readonly url: string | null
  /** Where the admin API and the metrics are; null in a process that leaves both to another of its machine. */
  readonly admin_url: string | null
  readonly configuration: Configuration
  readonly metrics: Metrics
  /** The demo tenant's key, at the very first start in demo mode only: it cannot be shown again. */
  readonly demo_key: string | null
  readonly sandbox_url: string | null
  /** Requests that a dead process had left open, closed at this start. */
  readonly swept: number
  /** Reads the configuration again; a bad one keeps the old. */
  reload(): Promise<ReloadOutcome>
  /** Finishes what is open, posts, and closes storage. Safe to call twice. */
  drain(): Promise<void>
}

/** The configuration that was refused at start, with every mistake. */
export class ConfigurationRefused extends Error {
  override name = 'ConfigurationRefused'
  readonly issues: readonly ConfigIssue[]
  constructor(issues: readonly ConfigIssue[]) {
    super(`${issues.length} mistake${issues.length === 1 ? '' : 's'} in the configuration`)
    this.issues = issues
  }
}

/** @throws ConfigurationRefused */
export function configurationOrThrow(options: Pick<WeirOptions, 'config_dir' | 'env'>): Configuration {
  const result = readConfiguration(options)
  if (!result.ok) throw new ConfigurationRefused(result.issues)
  return result.configuration
}

/**
 * Starts one process: configuration, storage, the sweep of what a dead process left, the planes of its roles.
 *
 * @throws ConfigurationRefused, DataDirectoryInUse, PriceVersionConflict, or the error of a port or server that cannot be had
 */
export async function startWeir(options: WeirOptions): Promise<Weir> {
  const configuration = configurationOrThrow(options)
  const roles = new Set(options.roles ?? configuration.settings.roles)
  const mode = await openMode(configuration, roles, options)
  try {
    return await new Starter(options, roles, configuration, mode).start()
  } catch (error) {
    await mode.storage.close().catch((cause: unknown) => options.logger.error({ err: cause }, 'closing storage after a failed start'))
    throw error
  }
}

async function openMode({ settings }: Configuration, roles: ReadonlySet<Role>, { clock, logger, slot = 0 }: WeirOptions): Promise<Mode> {
  const { cluster } = settings
  if (cluster === null) return await EmbeddedMode.open(settings, clock, logger)
  return await ClusterMode.open({ settings, cluster, roles, slot, version: readVersion(), clock, logger })
}

/** One start, step by step, and the way back down. */
class Starter {
  readonly #options: WeirOptions
  readonly #roles: ReadonlySet<Role>
  readonly #mode: Mode
  readonly #metrics: Metrics
  readonly #breakers = new BreakerBoard()
  readonly #latencies = new LatencyBoard()
  readonly #keys = new KeyTable()
  readonly #configuration: ConfigurationInForce
  readonly #room: Room
  readonly #master_keys: MasterKeys | null
  readonly #undo = new Undo()

  constructor(options: WeirOptions, roles: ReadonlySet<Role>, configuration: Configuration, mode: Mode) {
    const { limits, log } = mode.storage
    this.#options = options
    this.#master_keys = readMasterKeys(options.env)
    this.#roles = roles
    this.#mode = mode
    this.#metrics = createMetrics({
      openHolds: () => limits.openHolds(),
      unposted: () => log.health().unposted,
      journalOk: () => log.health().ok,
      breakerState: (endpoint) => this.#breakers.stateOf(endpoint).phase,
      queuedRequests: () => this.#room.waiting,
      providerKeys: () => this.#room.keyStates(this.#configuration.snapshot.endpoints.values()),
      endpointRoom: (endpoint) => this.#roomOf(endpoint),
      ...mode.metrics,
    })
    const random = (): number => randomUnit(this.#randomBytes)
    this.#room = new Room(() => mode.share(), random, options.clock, this.#metrics)
    const learned = { breakers: this.#breakers, latencies: this.#latencies, room: this.#room }
    const deps = { ...options, ...learned, metrics: this.#metrics, storage: mode.storage }
    this.#configuration = new ConfigurationInForce(configuration, deps)
  }

  /** @throws whatever kept it from starting; everything but storage has ended again by then */
  async start(): Promise<Weir> {
    try {
      return await this.#start()
    } catch (error) {
      await this.#undo.run(this.#options.logger)
      throw error
    }
  }

  async #start(): Promise<Weir> {
    const { logger } = this.#options
    await this.#configuration.publishPrices()
    const calendar = (): Configuration['prices']['calendar'] => this.#configuration.current.prices.calendar
    const swept = await this.#mode.prepare(this.#keys, calendar)
    if (swept > 0) logger.warn({ swept }, 'closed requests that a dead process had left open')
    const demo_key = await this.#makeDemo()
    const sandbox_url = await this.#sandboxUrl()
    this.#keys.whenProviderKeysChange(() => this.#readProviderKeys())
    await this.#readProviderKeys()
    this.#configuration.begin(sandbox_url)
    // The first start's own key, and what was written while everything was read.
    if (this.#roles.has('gateway')) await this.#keys.follow(this.#mode.storage.records)
    this.#mode.work(this.#keys, calendar, this.#undo)
    const data_plane = this.#roles.has('gateway') ? await this.#startDataPlane() : null
    const watch = this.#configuration.watch()
    this.#undo.add(() => watch.close())
    const admin_url = await this.#startAdmin(watch.reload)
    let draining: Promise<void> | null = null
    return {
      url: data_plane?.url ?? null,
      admin_url,
      configuration: this.#configuration.current,
      metrics: this.#metrics,
      demo_key,
      sandbox_url,
      swept,
      reload: watch.reload,
      drain: () => (draining ??= this.#drain(data_plane, watch.close)),
    }
  }

  async #readProviderKeys(): Promise<void> {
    const records = await this.#mode.storage.records.providerKeys()
    const { keys, troubles } = openProviderKeys(records, this.#master_keys, this.#options)
    for (const { key, reason } of troubles) this.#options.logger.error({ provider_key: key, reason }, 'a provider key cannot be used')
    this.#configuration.useProviderKeys(keys)
  }

  #roomOf(id: string): CapacityLeft | null {
    const endpoint = this.#configuration.snapshot.endpoints.get(id)
    return endpoint === undefined ? null : this.#room.left(endpoint)
  }

  async #makeDemo(): Promise<string | null> {
    const { mode } = this.#configuration.current.settings
    if (mode !== 'demo' || !this.#roles.has('control')) return null
    const { clock } = this.#options
    const { records, ledger, credits, turns } = this.#mode.storage
    const has_keys = (await records.keys('demo')).length > 0
    const demo = await createDemo({ records, ledger, credits, turns, clock, random: this.#randomBytes, has_keys })
    return demo?.secret ?? null
  }

  async #sandboxUrl(): Promise<string | null> {
    if (this.#configuration.current.settings.mode !== 'demo') return null
    if (this.#options.sandbox_url !== undefined) return this.#options.sandbox_url
    const sandbox = await startSandbox({ port: 0 })
    this.#undo.add(() => sandbox.close())
    return sandbox.url
  }

  async #startDataPlane(): Promise<DataPlane> {
    const { clock, logger } = this.#options
    const deps = {
      mode: this.#mode,
      configuration: this.#configuration,
      keys: this.#keys,
      breakers: this.#breakers,
      latencies: this.#latencies,
      room: this.#room,
      clock,
      randomBytes: this.#randomBytes,
      metrics: this.#metrics,
      logger,
      end_user_secret: await this.#mode.endUserSecret(this.#randomBytes),
    }
    return await startDataPlane(deps, this.#undo)
  }

  /** The admin API where this process has that role, metrics and health everywhere, unless another process of its machine answers. */
  async #startAdmin(reload: ControlDeps['reload']): Promise<string | null> {
    const { settings } = this.#configuration.current
    if ((this.#options.slot ?? 0) > 0) return null
    const { metricsOf } = this.#options
    const metrics = metricsOf === undefined ? this.#metrics : metricsOf(this.#metrics)
    const admin = await startAdmin({ metrics, control: this.#roles.has('control') ? this.#controlDeps(reload, metrics) : null }, settings)
    this.#undo.add(() => admin.close())
    return admin.url
  }

  get #randomBytes(): RandomBytes {
    return this.#options.randomBytes ?? randomBytes
  }

  #controlDeps(reload: ControlDeps['reload'], metrics: ControlDeps['metrics']): ControlDeps {
    const { env, clock, logger } = this.#options
    const { records, ledger, limits, credits, turns, changes, archive, rebuilder, cut } = this.#mode.storage
    return {
      credits,
      turns,
      archive,
      rebuilder,
      cut,
      records,
      ledger,
      limits,
      changes,
      nodes: this.#mode.nodes,
      clock,
      random: this.#randomBytes,
      metrics,
      logger,
      token: adminToken(env, this.#configuration.current.settings, this.#randomBytes),
      configuration: () => this.#configuration.current,
      knowsModel: (name) => {
        const { catalogue, routes } = this.#configuration.current
        return catalogue.models.has(name) || catalogue.aliases.has(name) || routes.has(name)
      },
      modelOf: (name) => {
        const { aliases, models } = this.#configuration.current.catalogue
        return aliases.get(name) ?? (models.has(name) ? name : null)
      },
      kindOf: (model) => this.#configuration.current.catalogue.models.get(model)?.kind ?? null,
      master_keys: this.#master_keys,
      ...(this.#roles.has('gateway') ? { keyStates: () => this.#room.keyStates(this.#configuration.snapshot.endpoints.values()) } : {}),
      reload,
      ...(this.#roles.has('gateway') ? { caughtUp: () => this.#keys.follow(records) } : {}),
    }
  }

  async #drain(data_plane: DataPlane | null, stopWatching: () => void): Promise<void> {
    stopWatching()
    await data_plane?.drain()
    await this.#undo.run(this.#options.logger)
    await this.#mode.storage.close()
  }
}
