import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../base/clock.ts'
import { loadConfiguration, type LoadResult } from '../config/load.ts'
import type { ConfigIssue, Configuration } from '../config/model.ts'
import { watchConfiguration, type ConfigurationWatch } from '../config/watch.ts'
import type { ReloadOutcome } from '../control/deps.ts'
import { publishPrices } from '../control/prices.ts'
import { buildSnapshot, type Snapshot } from '../gateway/snapshot.ts'
import type { Room } from '../gateway/room.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { type OpenedKeys, withProviderKeys } from '../provider-keys.ts'
import { withStandIns } from '../standin.ts'
import type { Storage } from '../storage/open.ts'
import type { BreakerBoard } from '../upstream/breaker.ts'
import type { LatencyBoard } from '../upstream/latency.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'

/** All price versions are stored in one turn, whichever processes start or reload at once. */
const PRICES_TURN = 'price versions'

export interface ConfigurationDeps {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  readonly logger: Logger
  readonly metrics: Metrics
  readonly breakers: BreakerBoard
  readonly latencies: LatencyBoard
  readonly room: Pick<Room, 'adopt'>
  readonly storage: Pick<Storage, 'records' | 'turns'>
}

export function readConfiguration({ config_dir, env }: Pick<ConfigurationDeps, 'config_dir' | 'env'>): LoadResult {
  return loadConfiguration({ config_dir, env, providers: [...PROVIDERS.values()] })
}

/** The configuration in force, and how another takes its place: whole, or not at all. */
export class ConfigurationInForce {
  readonly #deps: ConfigurationDeps
  #configuration: Configuration
  #snapshot: Snapshot
  /** As it was read, without what this process adds. */
  #loaded: Configuration
  #provider_keys: OpenedKeys = new Map()
  #begun = false
  /** Where the sandbox of a demo is. */
  #sandbox_url: string | null = null
  #reloaded: Promise<ReloadOutcome>

  constructor(configuration: Configuration, deps: ConfigurationDeps) {
    this.#deps = deps
    this.#configuration = configuration
    this.#loaded = configuration
    this.#snapshot = buildSnapshot(configuration)
    this.#reloaded = Promise.resolve({ ok: true, digest: configuration.digest })
  }

  get current(): Configuration {
    return this.#configuration
  }

  get snapshot(): Snapshot {
    return this.#snapshot
  }

  /** @throws PriceVersionConflict */
  async publishPrices(configuration: Configuration = this.#configuration): Promise<void> {
    const { storage, clock } = this.#deps
    await storage.turns.run(PRICES_TURN, () => publishPrices(storage.records, configuration.prices, clock.now_ms()))
  }

  /** Takes it into use for the first time; `sandbox_url` stands in for providers without a key, in a demo. */
  begin(sandbox_url: string | null): void {
    this.#sandbox_url = sandbox_url
    this.#begun = true
    this.#adopt(this.#loaded)
  }

  /** Takes keys of providers that were entered through the API into use, in place of those before. */
  useProviderKeys(keys: OpenedKeys): void {
    this.#provider_keys = keys
    if (this.#begun) this.#adopt(this.#loaded)
  }

  /** Follows the directory until closed. `reload` reads it at once. */
  watch(): { readonly reload: () => Promise<ReloadOutcome>; readonly close: () => void } {
    const watch: ConfigurationWatch = watchConfiguration({
      config_dir: this.#deps.config_dir,
      digest: this.#configuration.digest,
      load: () => readConfiguration(this.#deps),
      onIssues: (issues) => {
        this.#next(() => this.#refuse(issues))
      },
      onChange: (configuration) => {
        this.#next(() => this.#change(configuration))
      },
    })
    const reload = (): Promise<ReloadOutcome> => {
      watch.reload()
      return this.#reloaded
    }
    return { reload, close: () => watch.close() }
  }

  /** One frozen snapshot, swapped whole. */
  #adopt(configuration: Configuration): void {
    const { breakers, latencies, room, metrics } = this.#deps
    this.#loaded = configuration
    const keyed = withProviderKeys(configuration, this.#provider_keys)
    this.#configuration = this.#sandbox_url === null ? keyed : withStandIns(keyed, this.#sandbox_url)
    const before = this.#snapshot.endpoints
    this.#snapshot = buildSnapshot(this.#configuration)
    // What was learned of an endpoint says nothing about one with another address or key.
    const same = [...this.#snapshot.endpoints].filter(([id, endpoint]) => isDeepStrictEqual(endpoint, before.get(id)))
    const unchanged = new Set(same.map(([id]) => id))
    breakers.prune(unchanged)
    latencies.prune(unchanged)
    room.adopt(this.#snapshot.endpoints.values())
    metrics.setKnown([...this.#configuration.catalogue.models.keys()], [...this.#snapshot.endpoints.keys()])
    metrics.configuration('ok', configuration.digest)
  }

  /** Loads take effect one after the other, so that what was loaded last stays. */
  #next(load: () => ReloadOutcome | Promise<ReloadOutcome>): void {
    this.#reloaded = this.#reloaded.then(load).catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error)
      const expected = 'a configuration that can be applied'
      return this.#refuse([{ file: this.#deps.config_dir, path: '', line: null, message, expected }])
    })
  }

  async #change(configuration: Configuration): Promise<ReloadOutcome> {
    try {
      await this.publishPrices(configuration)
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      return this.#refuse([{ file: 'price-book.yaml', path: '', line: null, message, expected: 'a published version as it was' }])
    }
    this.#adopt(configuration)
    this.#deps.logger.info({ digest: configuration.digest }, 'configuration reloaded')
    return { ok: true, digest: configuration.digest }
  }

  #refuse(issues: readonly ConfigIssue[]): ReloadOutcome {
    this.#deps.metrics.configuration('failed', this.#configuration.digest)
    this.#deps.logger.error({ issues }, 'the new configuration was refused; the old one stays in force')
    return { ok: false, issues }
  }
}
