import { endUserSecret } from '../admin.ts'
import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import { startLoop } from '../base/loop.ts'
import type { Settings } from '../config/model.ts'
import type { KeyTable } from '../gateway/keys.ts'
import type { TradingCalendar } from '../money/price.ts'
import { windowAround } from '../money/window.ts'
import type { Logger } from '../observe/log.ts'
import { rebuildLimits } from '../storage/memory/rebuild.ts'
import { type EmbeddedStorage, openEmbedded } from '../storage/open.ts'
import type { Records } from '../storage/records.ts'
import { closeUnfinished, sweepExpired, type SweepDeps, type SweptHold } from '../worker/sweep.ts'
import { startExpiring } from './expiring.ts'
import type { Mode } from './mode.ts'
import { readPrices } from './prices.ts'
import type { Undo } from './undo.ts'

const SWEEP_EVERY_MS = 5000

/** One process that has everything to itself. */
export class EmbeddedMode implements Mode {
  readonly storage: EmbeddedStorage
  readonly metrics = {}
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #swept_waiting = new Map<string, SweptHold>()

  readonly #data_dir: string

  private constructor(storage: EmbeddedStorage, data_dir: string, clock: Clock, logger: Logger) {
    this.storage = storage
    this.#data_dir = data_dir
    this.#clock = clock
    this.#logger = logger
  }

  /** @throws DataDirectoryInUse, SchemaError, JournalUnavailable */
  static async open(settings: Settings, clock: Clock, logger: Logger): Promise<EmbeddedMode> {
    const { data_dir, journal } = settings
    const on_trouble = (error: Error): void => logger.error({ err: error }, 'storage')
    return new EmbeddedMode(await openEmbedded({ data_dir, clock, ...journal, on_trouble }), data_dir, clock, logger)
  }

  async endUserSecret(random: RandomBytes): Promise<Buffer> {
    return endUserSecret(this.#data_dir, random)
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
    const trouble = (doing: string) => (error: unknown) => this.#logger.error({ err: error }, `${doing} failed; trying again`)
    undo.add(changes.subscribe(() => void keys.follow(records).catch(trouble('following changes of records'))))
    const sweeping = startLoop({ every_ms: SWEEP_EVERY_MS, work: () => this.#sweep(calendar), on_trouble: trouble('sweeping') })
    undo.add(() => sweeping.stop())
    startExpiring(this.storage, this.#clock, this.#logger, undo)
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
