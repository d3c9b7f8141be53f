import { randomBytes } from 'node:crypto'
import type { Clock } from './base/clock.ts'
import type { RandomBytes } from './base/ids.ts'
import type { ConfigIssue, Configuration } from './config/model.ts'
import type { ControlDeps, ReloadOutcome } from './control/deps.ts'
import { createDemo } from './control/demo.ts'
import { KeyTable } from './gateway/keys.ts'
import { adminToken, endUserSecret, startAdmin } from './admin.ts'
import type { Logger } from './observe/log.ts'
import { createMetrics, type Metrics } from './observe/metrics.ts'
import { startSandbox } from './sandbox/server.ts'
import { ConfigurationInForce, readConfiguration } from './start/configuration.ts'
import { type DataPlane, startDataPlane } from './start/data-plane.ts'
import { EmbeddedMode } from './start/embedded.ts'
import type { Mode } from './start/mode.ts'
import { Undo } from './start/undo.ts'
import { BreakerBoard } from './upstream/breaker.ts'

export interface WeirOptions {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  readonly logger: Logger
  readonly random?: () => number
  readonly randomBytes?: RandomBytes
}

/** A running gateway with its roles in one process. */
export interface Weir {
  readonly url: string
  readonly admin_url: string
  readonly configuration: Configuration
  /** The demo tenant's key, at the very first start in demo mode only: it cannot be shown again. */
  readonly demo_key: string | null
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

/**
 * Starts everything: configuration, storage, the sweep of what a dead process left, both planes.
 *
 * @throws ConfigurationRefused, DataDirectoryInUse, PriceVersionConflict, or the error of a port that cannot be had
 */
export async function startWeir(options: WeirOptions): Promise<Weir> {
  const result = readConfiguration(options)
  if (!result.ok) throw new ConfigurationRefused(result.issues)
  const { clock, logger } = options
  const mode = await EmbeddedMode.open(result.configuration.settings, clock, logger)
  try {
    return await new Starter(options, result.configuration, mode).start()
  } catch (error) {
    await mode.storage.close().catch((cause: unknown) => logger.error({ err: cause }, 'closing storage after a failed start'))
    throw error
  }
}

/** One start, step by step, and the way back down. */
class Starter {
  readonly #options: WeirOptions
  readonly #mode: Mode
  readonly #metrics: Metrics
  readonly #breakers = new BreakerBoard()
  readonly #keys = new KeyTable()
  readonly #configuration: ConfigurationInForce
  readonly #undo = new Undo()

  constructor(options: WeirOptions, configuration: Configuration, mode: Mode) {
    const { limits, log } = mode.storage
    this.#options = options
    this.#mode = mode
    this.#metrics = createMetrics({
      openHolds: () => limits.openHolds(),
      unposted: () => log.health().unposted,
      journalOk: () => log.health().ok,
      breakerState: (endpoint) => this.#breakers.stateOf(endpoint).phase,
      ...mode.metrics,
    })
    const deps = { ...options, metrics: this.#metrics, breakers: this.#breakers, storage: mode.storage }
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
    const { clock, logger } = this.#options
    const { settings } = this.#configuration.current
    const { records, ledger, credits, turns } = this.#mode.storage
    await this.#configuration.publishPrices()
    const calendar = (): Configuration['prices']['calendar'] => this.#configuration.current.prices.calendar
    const swept = await this.#mode.prepare(this.#keys, calendar)
    if (swept > 0) logger.warn({ swept }, 'closed requests that a dead process had left open')
    const demo =
      settings.mode === 'demo'
        ? await createDemo({ records, ledger, credits, turns, clock, random: this.#randomBytes, has_keys: this.#keys.size > 0 })
        : null
    this.#configuration.begin(settings.mode === 'demo' ? await this.#startSandbox() : null)
    // The first start's own key, and what was written while everything was read.
    await this.#keys.follow(records)
    this.#mode.work(this.#keys, calendar, this.#undo)
    const data_plane = await this.#startDataPlane()
    const watch = this.#configuration.watch()
    this.#undo.add(() => watch.close())
    const admin = await startAdmin(this.#controlDeps(watch.reload), settings)
    this.#undo.add(() => admin.close())
    let draining: Promise<void> | null = null
    return {
      url: data_plane.url,
      admin_url: admin.url,
      configuration: this.#configuration.current,
      demo_key: demo?.secret ?? null,
      swept,
      reload: watch.reload,
      drain: () => (draining ??= this.#drain(data_plane, watch.close)),
    }
  }

  #startDataPlane(): Promise<DataPlane> {
    const { clock, logger, random = Math.random } = this.#options
    const { settings } = this.#configuration.current
    const deps = {
      mode: this.#mode,
      configuration: this.#configuration,
      keys: this.#keys,
      breakers: this.#breakers,
      clock,
      random,
      randomBytes: this.#randomBytes,
      metrics: this.#metrics,
      logger,
      end_user_secret: endUserSecret(settings.data_dir, this.#randomBytes),
    }
    return startDataPlane(deps, this.#undo)
  }

  get #randomBytes(): RandomBytes {
    return this.#options.randomBytes ?? randomBytes
  }

  #controlDeps(reload: ControlDeps['reload']): ControlDeps {
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
      clock,
      random: this.#randomBytes,
      metrics: this.#metrics,
      logger,
      token: adminToken(env, this.#configuration.current.settings, this.#randomBytes),
      knowsModel: (name) => {
        const { catalogue } = this.#configuration.current
        return catalogue.models.has(name) || catalogue.aliases.has(name)
      },
      modelOf: (name) => {
        const { aliases, models } = this.#configuration.current.catalogue
        return aliases.get(name) ?? (models.has(name) ? name : null)
      },
      reload,
      caughtUp: () => this.#keys.follow(records),
    }
  }

  async #drain(data_plane: DataPlane, stopWatching: () => void): Promise<void> {
    stopWatching()
    await data_plane.drain()
    await this.#undo.run(this.#options.logger)
    await this.#mode.storage.close()
  }

  async #startSandbox(): Promise<string> {
    const sandbox = await startSandbox({ port: 0 })
    this.#undo.add(() => sandbox.close())
    return sandbox.url
  }
}
