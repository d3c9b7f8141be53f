import { randomBytes } from 'node:crypto'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from './base/clock.ts'
import { pooledRandom, type RandomBytes } from './base/ids.ts'
import { loadConfiguration } from './config/load.ts'
import type { ConfigIssue, Configuration } from './config/model.ts'
import { watchConfiguration, type ConfigurationWatch } from './config/watch.ts'
import type { ControlDeps, ReloadOutcome } from './control/deps.ts'
import { applyTransaction } from './control/apply.ts'
import { createDemo } from './control/demo.ts'
import { publishPrices } from './control/prices.ts'
import { drainServer } from './drain.ts'
import { createGatewayServer } from './gateway/ingress.ts'
import { KeyTable } from './gateway/keys.ts'
import { OpenCalls } from './gateway/open-calls.ts'
import type { Plane } from './gateway/plane.ts'
import { RecentRefusals } from './gateway/refusals.ts'
import { buildSnapshot, type Snapshot } from './gateway/snapshot.ts'
import { StreamTicker } from './gateway/ticker.ts'
import { adminToken, endUserSecret, startAdmin } from './admin.ts'
import { decodePriceVersion } from './money/price-json.ts'
import { windowAround } from './money/window.ts'
import type { Logger } from './observe/log.ts'
import { createMetrics, type Metrics } from './observe/metrics.ts'
import { startSandbox, type Sandbox } from './sandbox/server.ts'
import { withStandIns } from './standin.ts'
import { rebuildLimits } from './storage/memory/rebuild.ts'
import { type EmbeddedStorage, openEmbedded } from './storage/open.ts'
import type { Records } from './storage/records.ts'
import { BreakerBoard } from './upstream/breaker.ts'
import { createTransport } from './upstream/pool.ts'
import { PROVIDERS } from './upstream/providers/registry.ts'
import { expireGrants } from './worker/expire.ts'
import { closeUnfinished, sweepExpired, type SweepDeps, type SweptHold } from './worker/sweep.ts'

const SWEEP_EVERY_MS = 5000
const EXPIRE_EVERY_MS = 60_000
/** Grants that expired longer ago are looked at once an hour: something came back to them only by a reversal. */
const EXPIRED_LATELY_MS = 2 * 86_400_000
const EXPIRE_ALL_EVERY = 60

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
  const configuration = loadOrThrow(options)
  const { settings } = configuration
  const storage = await openEmbedded({
    data_dir: settings.data_dir,
    clock: options.clock,
    commit_timeout_ms: settings.journal.commit_timeout_ms,
    keep_days: settings.journal.keep_days,
    on_trouble: (error) => options.logger.error({ err: error }, 'storage'),
  })
  try {
    return await new Starter(options, configuration, storage).start()
  } catch (error) {
    await storage.close().catch((cause: unknown) => options.logger.error({ err: cause }, 'closing storage after a failed start'))
    throw error
  }
}

function loadOrThrow({ config_dir, env }: WeirOptions): Configuration {
  const result = loadConfiguration({ config_dir, env, providers: [...PROVIDERS.values()] })
  if (!result.ok) throw new ConfigurationRefused(result.issues)
  return result.configuration
}

/** One start, step by step, and the way back down. */
class Starter {
  readonly #options: WeirOptions
  readonly #storage: EmbeddedStorage
  readonly #metrics: Metrics
  readonly #state = { draining: false }
  readonly #breakers = new BreakerBoard()
  readonly #keys = new KeyTable()
  #configuration: Configuration
  #snapshot: Snapshot
  #sandbox: Sandbox | null = null
  /** How to end what was started, to be done from the last to the first. */
  readonly #undo: (() => unknown)[] = []
  readonly #swept_waiting = new Map<string, SweptHold>()
  #reloaded: Promise<ReloadOutcome>

  constructor(options: WeirOptions, configuration: Configuration, storage: EmbeddedStorage) {
    this.#options = options
    this.#configuration = configuration
    this.#snapshot = buildSnapshot(configuration)
    this.#storage = storage
    this.#reloaded = Promise.resolve({ ok: true, digest: configuration.digest })
    this.#metrics = createMetrics({
      openHolds: () => storage.limits.openHolds(),
      unposted: () => storage.log.health().unposted,
      journalOk: () => storage.log.health().ok,
      breakerState: (endpoint) => this.#breakers.stateOf(endpoint).phase,
    })
  }

  /** @throws whatever kept it from starting; everything but storage has ended again by then */
  async start(): Promise<Weir> {
    try {
      return await this.#start()
    } catch (error) {
      await this.#end()
      throw error
    }
  }

  async #start(): Promise<Weir> {
    const { clock } = this.#options
    const { settings } = this.#configuration
    const { records, ledger, credits, turns, changes } = this.#storage
    await publishPrices(records, this.#configuration.prices, clock.now_ms())
    const swept = await this.#sweepDead()
    const demo =
      settings.mode === 'demo'
        ? await createDemo({ records, ledger, credits, turns, clock, random: this.#randomBytes, has_keys: this.#keys.size > 0 })
        : null
    if (settings.mode === 'demo') await this.#startSandbox()
    this.#adopt(this.#configuration)
    const plane = await this.#plane()
    const follow = (): void =>
      void plane.keys.follow(records).catch((error: unknown) => this.#trouble(error, 'following changes of records'))
    this.#undo.push(changes.subscribe(follow))
    const sweeping = setInterval(() => void this.#sweepLive().catch((error: unknown) => this.#trouble(error, 'sweeping')), SWEEP_EVERY_MS)
    this.#undo.push(() => clearInterval(sweeping))
    this.#startExpiring()
    plane.ticker.start()
    this.#undo.push(() => plane.ticker.stop())
    const server = createGatewayServer(plane, settings)
    const url = await listen(server, settings.host, settings.port)
    this.#undo.push(() => closeAtOnce(server))
    const watch = this.#watch()
    this.#undo.push(() => watch.close())
    const reload = (): Promise<ReloadOutcome> => {
      watch.reload()
      return this.#reloaded
    }
    const admin = await startAdmin(this.#controlDeps(plane, reload), settings)
    this.#undo.push(() => admin.close())
    let draining: Promise<void> | null = null
    return {
      url,
      admin_url: admin.url,
      configuration: this.#configuration,
      demo_key: demo?.secret ?? null,
      swept,
      reload,
      drain: () => (draining ??= this.#drain(server, plane, () => watch.close())),
    }
  }

  async #plane(): Promise<Plane> {
    const { clock, logger, random } = this.#options
    const { log, closing, limits, ledger, records } = this.#storage
    const { settings } = this.#configuration
    // The first start's own key, and what was written while everything was read.
    await this.#keys.follow(records)
    const transport = createTransport({ connections_per_origin: settings.limits.upstream_connections_per_origin, proxy: settings.proxy })
    this.#undo.push(() => transport.close())
    return {
      snapshot: () => this.#snapshot,
      keys: this.#keys,
      limits,
      log,
      closing,
      ledger,
      records,
      transport,
      breakers: this.#breakers,
      providers: PROVIDERS,
      clock,
      random: random ?? Math.random,
      randomBytes: pooledRandom(this.#randomBytes),
      metrics: this.#metrics,
      logger,
      open: new OpenCalls(),
      refusals: new RecentRefusals(),
      ticker: new StreamTicker(limits, log, clock, logger),
      end_user_secret: endUserSecret(settings.data_dir, this.#randomBytes),
      state: this.#state,
    }
  }

  get #randomBytes(): RandomBytes {
    return this.#options.randomBytes ?? randomBytes
  }

  /** Makes a configuration the one in force: one frozen snapshot, swapped whole. */
  #adopt(configuration: Configuration): void {
    const { settings } = configuration
    this.#configuration =
      settings.mode === 'demo' && this.#sandbox !== null ? withStandIns(configuration, this.#sandbox.url) : configuration
    const before = this.#snapshot.endpoints
    this.#snapshot = buildSnapshot(this.#configuration)
    // What was learned of an endpoint says nothing about one with another address or key.
    const same = [...this.#snapshot.endpoints].filter(([id, endpoint]) => isDeepStrictEqual(endpoint, before.get(id)))
    this.#breakers.prune(new Set(same.map(([id]) => id)))
    this.#metrics.setKnown([...this.#configuration.catalogue.models.keys()], [...this.#snapshot.endpoints.keys()])
    this.#metrics.configuration('ok', configuration.digest)
  }

  #controlDeps(plane: Plane, reload: ControlDeps['reload']): ControlDeps {
    const { env, clock, logger } = this.#options
    const { records, ledger, limits, credits, turns, changes, archive, rebuilder, cut } = this.#storage
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
      token: adminToken(env, this.#configuration.settings, this.#randomBytes),
      knowsModel: (name) => {
        const { catalogue } = this.#configuration
        return catalogue.models.has(name) || catalogue.aliases.has(name)
      },
      modelOf: (name) => {
        const { aliases, models } = this.#configuration.catalogue
        return aliases.get(name) ?? (models.has(name) ? name : null)
      },
      reload,
      caughtUp: () => plane.keys.follow(records),
    }
  }

  #watch(): ConfigurationWatch {
    const { config_dir, env } = this.#options
    return watchConfiguration({
      config_dir,
      digest: this.#configuration.digest,
      load: () => loadConfiguration({ config_dir, env, providers: [...PROVIDERS.values()] }),
      onIssues: (issues) => {
        this.#next(() => this.#refuse(issues))
      },
      onChange: (configuration) => {
        this.#next(() => this.#change(configuration))
      },
    })
  }

  /** Loads take effect one after the other, so that what was loaded last stays. */
  #next(load: () => ReloadOutcome | Promise<ReloadOutcome>): void {
    this.#reloaded = this.#reloaded.then(load).catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error)
      const expected = 'a configuration that can be applied'
      return this.#refuse([{ file: this.#options.config_dir, path: '', line: null, message, expected }])
    })
  }

  async #change(configuration: Configuration): Promise<ReloadOutcome> {
    const { clock, logger } = this.#options
    try {
      await publishPrices(this.#storage.records, configuration.prices, clock.now_ms())
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      return this.#refuse([{ file: 'price-book.yaml', path: '', line: null, message, expected: 'a published version as it was' }])
    }
    this.#adopt(configuration)
    logger.info({ digest: configuration.digest }, 'configuration reloaded')
    return { ok: true, digest: configuration.digest }
  }

  #refuse(issues: readonly ConfigIssue[]): ReloadOutcome {
    this.#metrics.configuration('failed', this.#configuration.digest)
    this.#options.logger.error({ issues }, 'the new configuration was refused; the old one stays in force')
    return { ok: false, issues }
  }

  /** Events first, then limits from the ledger: so that what a dead process spent is spent. */
  async #sweepDead(): Promise<number> {
    const swept = await closeUnfinished(this.#sweepDeps())
    await this.#storage.ledger.post()
    const { limits, records, ledger } = this.#storage
    // One reading serves both: there may be a million keys.
    const source: Pick<Records, 'load'> = { load: (onKeys) => this.#keys.load(records, onKeys) }
    await rebuildLimits(limits, source, ledger, { clock: this.#options.clock, windowAt: windowAround })
    if (swept > 0) this.#options.logger.warn({ swept }, 'closed requests that a dead process had left open')
    return swept
  }

  async #sweepLive(): Promise<void> {
    const swept = await sweepExpired(this.#sweepDeps(), this.#swept_waiting)
    if (swept > 0) this.#options.logger.error({ swept }, 'closed requests whose lease had ended')
  }

  /** At once, for what expired while nothing ran, and every minute. A run that takes longer is waited for. */
  #startExpiring(): void {
    let runs = 0
    let running: Promise<void> | null = null
    const run = (): void => {
      running ??= this.#expire(runs++ % EXPIRE_ALL_EVERY === 0)
        .catch((error: unknown) => this.#trouble(error, 'letting grants lapse'))
        .finally(() => (running = null))
    }
    const timer = setInterval(run, EXPIRE_EVERY_MS)
    run()
    this.#undo.push(async () => {
      clearInterval(timer)
      await running
    })
  }

  async #expire(all: boolean): Promise<void> {
    const { clock, logger } = this.#options
    const { records, ledger, limits, credits, turns } = this.#storage
    await credits.makeUpAll()
    const lapsed = await expireGrants(all ? 0 : clock.now_ms() - EXPIRED_LATELY_MS, {
      records,
      ledger,
      limits,
      clock,
      turns,
      apply: (transaction) => applyTransaction(transaction, { ledger, credits }),
      on_trouble: (error, grant) => logger.error({ err: error, grant }, 'a grant could not lapse; trying again'),
    })
    if (lapsed > 0) logger.info({ lapsed }, 'the unused rest of expired grants lapsed')
  }

  #sweepDeps(): SweepDeps {
    const { log, limits, records } = this.#storage
    const prices: SweepDeps['prices'] = async () => {
      const versions = new Map((await records.priceVersions()).map(({ id, body }) => [id, body]))
      return (id) => {
        const body = versions.get(id)
        return body === undefined ? null : decodePriceVersion(body)
      }
    }
    return { log, limits, clock: this.#options.clock, calendar: this.#configuration.prices.calendar, prices }
  }

  #trouble(error: unknown, doing: string): void {
    this.#options.logger.error({ err: error }, `${doing} failed; trying again`)
  }

  async #drain(server: Server, plane: Plane, stopWatching: () => void): Promise<void> {
    this.#state.draining = true
    stopWatching()
    await drainServer(server, this.#configuration.settings.drain, plane.open)
    await this.#end()
    await this.#storage.close()
  }

  async #startSandbox(): Promise<void> {
    const sandbox = await startSandbox({ port: 0 })
    this.#undo.push(() => sandbox.close())
    this.#sandbox = sandbox
  }

  /** Ends what was started, the last first. What cannot be ended keeps nothing else from it. */
  async #end(): Promise<void> {
    for (const undo of this.#undo.splice(0).toReversed()) {
      try {
        await undo()
      } catch (error) {
        this.#options.logger.error({ err: error }, 'ending a part of the gateway failed')
      }
    }
  }
}

async function closeAtOnce(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeAllConnections()
  await closed
}

function listen(server: Server, host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      const { port: actual } = server.address() as AddressInfo
      const shown = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
      resolve(`http://${shown.includes(':') ? `[${shown}]` : shown}:${actual}`)
    })
  })
}
