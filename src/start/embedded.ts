import { endUserSecret } from '../admin.ts'
import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import { startLoop } from '../base/loop.ts'
import type { Settings } from '../config/model.ts'
import { ROLES } from '../config/schema.ts'
import type { KeyTable } from '../gateway/keys.ts'
import type { TradingCalendar } from '../money/price.ts'
import { windowAround } from '../money/window.ts'
import type { Logger } from '../observe/log.ts'
import type { MetricsSources } from '../observe/metrics.ts'
import { rebuildLimits } from '../storage/memory/rebuild.ts'
import { ALONE, type Nodes, type NodeState, type ProcessShare } from '../storage/nodes.ts'
import { type EmbeddedStorage, openEmbedded } from '../storage/open.ts'
import type { Records } from '../storage/records.ts'
import { closeUnfinished, sweepExpired, type SweepDeps, type SweptHold } from '../worker/sweep.ts'
import { startExpiring } from './expiring.ts'
import type { Mode } from './mode.ts'
import { readPrices } from './prices.ts'
import { Troubles } from './troubles.ts'
import type { Undo } from './undo.ts'
import { readVersion } from '../version.ts'

const SWEEP_EVERY_MS = 5000

/** One process that has everything to itself. */
export class EmbeddedMode implements Mode {
  readonly storage: EmbeddedStorage
  readonly metrics: MetricsSources
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #troubles: Troubles
  readonly #data_dir: string
  readonly #swept_waiting = new Map<string, SweptHold>()

  private constructor(storage: EmbeddedStorage, data_dir: string, clock: Clock, logger: Logger, troubles: Troubles) {
    this.storage = storage
    this.#data_dir = data_dir
    this.#clock = clock
    this.#logger = logger
    this.#troubles = troubles
    this.metrics = { failures: () => troubles.counts }
  }

  /** @throws DataDirectoryInUse, SchemaError, JournalUnavailable */
  static async open(settings: Settings, clock: Clock, logger: Logger): Promise<EmbeddedMode> {
    const { data_dir, journal } = settings
    const troubles = new Troubles(clock, logger)
    const storage = await openEmbedded({ data_dir, clock, ...journal, on_trouble: troubles.of('work of the storage') })
    return new EmbeddedMode(storage, data_dir, clock, logger, troubles)
  }

  /** This process is the only one there is. */
  get nodes(): Nodes {
    const { node, log, cut } = this.storage
    const list = async (): Promise<readonly NodeState[]> => {
      const { event_seq } = (await cut()).mark
      const own = { node, roles: ROLES, version: readVersion(), last_seq: event_seq, unposted: log.health().unposted, stopped: false }
      return [{ ...own, beat_at: this.#clock.now_ms(), silent_ms: 0 }]
    }
    return { list, retire: () => Promise.resolve(false) }
  }

  async endUserSecret(random: RandomBytes): Promise<Buffer> {
    return endUserSecret(this.#data_dir, random)
  }

  share(): ProcessShare {
    return ALONE
  }

  unready(): null {
    return null
  }

  /** Events first, then limits from the ledger: so that what a dead process spent is spent. */
  async prepare(keys: KeyTable, calendar: () => TradingCalendar): Promise<number> {
    const { limits, records, ledger } = this.storage
    const swept = await closeUnfinished(this.#sweepDeps(calendar))
    await ledger.post()
    // One reading serves both: there may be a million keys.
    const source: Pick<Records, 'load'> = { load: (onKeys) => keys.load(records, onKeys) }
    await rebuildLimits(limits, source, ledger, { clock: this.#clock, windowAt: windowAround })
    return swept
  }

  work(keys: KeyTable, calendar: () => TradingCalendar, undo: Undo): void {
    const { changes, records } = this.storage
    const following = this.#troubles.of('following changes of records')
    undo.add(changes.subscribe(() => void keys.follow(records).catch(following)))
    const on_trouble = this.#troubles.of('closing requests whose lease has ended')
    const sweeping = startLoop({ every_ms: SWEEP_EVERY_MS, work: () => this.#sweep(calendar), on_trouble })
    undo.add(() => sweeping.stop())
    startExpiring({ storage: this.storage, clock: this.#clock, logger: this.#logger, troubles: this.#troubles }, undo)
  }

  async #sweep(calendar: () => TradingCalendar): Promise<void> {
    const swept = await sweepExpired(this.#sweepDeps(calendar), this.#swept_waiting)
    if (swept > 0) this.#logger.error({ swept }, 'closed requests whose lease had ended')
  }

  #sweepDeps(calendar: () => TradingCalendar): SweepDeps {
    const { log, limits, records } = this.storage
    return { log, limits, clock: this.#clock, calendar: calendar(), prices: () => readPrices(records) }
  }
}
