import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import { type Loop, startLoop } from '../base/loop.ts'
import type { ClusterSettings, Role, Settings } from '../config/model.ts'
import { RecordsFollower } from '../gateway/follower.ts'
import type { KeyTable } from '../gateway/keys.ts'
import type { TradingCalendar } from '../money/price.ts'
import { windowAround } from '../money/window.ts'
import type { Logger } from '../observe/log.ts'
import type { ClusterSources } from '../observe/metrics.ts'
import { ALL_BUCKETS } from '../storage/cluster/post.ts'
import { type ClusterStorage, openCluster } from '../storage/cluster/open.ts'
import { LimitsUnavailable, ofEachBucket } from '../storage/cluster-ports.ts'
import { ALONE, isSilent, type Nodes, type ProcessShare, processShare } from '../storage/nodes.ts'
import { recover, type RecoverDeps } from '../worker/recover.ts'
import { SweepGrace } from '../worker/sweep-grace.ts'
import { closeOrphans, sweepShared, type SharedSweepDeps } from '../worker/sweep-shared.ts'
import { startExpiring } from './expiring.ts'
import type { Mode } from './mode.ts'
import { readPrices } from './prices.ts'
import { Troubles } from './troubles.ts'
import type { Undo } from './undo.ts'

const FORWARD_EVERY_MS = 1000
const POST_EVERY_MS = 100
/** When nothing waits, streams are looked at less often. */
const POST_IDLE_MS = 500
const OUTBOX_EVERY_MS = 500
const SWEEP_EVERY_MS = 5000
const RECOVER_EVERY_MS = 1000
const UPKEEP_EVERY_MS = 5000
const BEAT_EVERY_MS = 2000
/** How often a process looks whether buckets are closed; more often while some are. */
const LOOK_EVERY_MS = 2000
const LOOK_CLOSED_MS = 250

export interface ClusterModeOptions {
  readonly settings: Settings
  readonly cluster: ClusterSettings
  readonly roles: ReadonlySet<Role>
  /** This process's place on its machine, which names its journal. */
  readonly slot: number
  readonly version: string
  readonly clock: Clock
  readonly logger: Logger
}

/** One of many processes: what it does depends on its roles. */
export class ClusterMode implements Mode {
  readonly storage: ClusterStorage
  readonly #options: ClusterModeOptions
  readonly #troubles: Troubles
  #follower: RecordsFollower | null = null
  /** Nodes that are silent, and were told of. */
  #silent: ReadonlySet<string> = new Set()
  readonly #grace: SweepGrace
  #share: ProcessShare = ALONE

  private constructor(storage: ClusterStorage, options: ClusterModeOptions, troubles: Troubles) {
    this.storage = storage
    this.#troubles = troubles
    this.#options = options
    this.#grace = new SweepGrace(options.clock.monotonic_ms())
  }

  /** @throws DataDirectoryInUse, SchemaError, JournalUnavailable, LedgerUnavailable; Error where Redis must not be used as it is */
  static async open(options: ClusterModeOptions): Promise<ClusterMode> {
    const { settings, cluster, slot, clock, logger } = options
    const troubles = new Troubles(clock, logger)
    const on_trouble = troubles.of('work of the storage')
    const storage = await openCluster({ data_dir: settings.data_dir, slot, clock, ...settings.journal, ...cluster, on_trouble })
    return new ClusterMode(storage, options, troubles)
  }

  get metrics(): Mode['metrics'] {
    const { known, epochs, limits, streams, outbox } = this.storage
    const works = this.#has('worker')
    const cluster: ClusterSources = {
      limitsUp: () => known.limits_up,
      ledgerUp: () => known.ledger_up,
      closedBuckets: () => epochs.closed,
      lentHolds: () => limits.lent,
      recordsAge_ms: this.#has('gateway') ? () => this.#follower?.age_ms ?? 0 : null,
      streamEntries: works ? async () => (await streams.lengths(ALL_BUCKETS)).reduce((sum, length) => sum + length, 0) : null,
      outboxWaiting: works ? () => outbox.waiting : null,
      silentNodes: () => {
        const silent = known.nodes.filter(isSilent)
        return { nodes: silent.length, unposted: silent.reduce((sum, { unposted }) => sum + unposted, 0) }
      },
    }
    return { failures: () => this.#troubles.counts, cluster }
  }

  get nodes(): Nodes {
    const { ledger } = this.storage
    return {
      list: () => ledger.nodes(),
      retire: async (name) => {
        const node = (await ledger.nodes()).find(({ node: other }) => other === name)
        if (node === undefined || (!node.stopped && !isSilent(node))) return false
        await ledger.beat({ ...node, unposted: 0, stopped: true })
        return true
      },
    }
  }

  async endUserSecret(random: RandomBytes): Promise<Buffer> {
    return Buffer.from(await this.storage.ledger.keptSecret('end_user', Buffer.from(random(32)).toString('hex')), 'hex')
  }

  share(): ProcessShare {
    return this.#share
  }

  unready(): string | null {
    return this.#follower === null || this.#follower.fresh ? null : 'keys and tenants were not confirmed for 10 s'
  }

  async prepare(keys: KeyTable, calendar: () => TradingCalendar): Promise<number> {
    const { records, log } = this.storage
    await this.#beat(false)
    if (this.#has('worker')) await this.#recover(this.storage.node).catch(this.#trouble('filling buckets from the ledger'))
    if (this.#has('gateway')) {
      await keys.load(records)
      this.#follower = this.#newFollower(keys)
    }
    const closed = await closeOrphans({ ...this.#closingDeps(calendar), unfinished: () => log.unfinished() })
    return closed
  }

  work(_keys: KeyTable, calendar: () => TradingCalendar, undo: Undo): void {
    const { forwarder, limits } = this.storage
    undo.add(() => this.#stop())
    this.#follower?.start()
    undo.add(() => this.#follower?.stop())
    this.#loop('forwarding events to the ledger', FORWARD_EVERY_MS, async () => void (await forwarder.run(true)), undo)
    this.#loop('telling that this process lives', BEAT_EVERY_MS, () => this.#beat(false), undo)
    this.#followEpochs(undo)
    undo.add(() => limits.onClosed(null))
    if (this.#has('worker')) this.#startWorker(calendar, undo)
  }

  #startWorker(calendar: () => TradingCalendar, undo: Undo): void {
    const { poster, outbox, ledger } = this.storage
    const { clock, logger } = this.#options
    this.#loop('filling buckets from the ledger', RECOVER_EVERY_MS, () => this.#recover(null), undo)
    this.#startPosting(undo, async () => await poster.round(ALL_BUCKETS))
    this.#loop('telling limits what the ledger has', OUTBOX_EVERY_MS, () => outbox.deliver(), undo)
    this.#loop('closing requests whose lease has ended', SWEEP_EVERY_MS, () => this.#sweep(calendar), undo)
    this.#loop('upkeep of the ledger', UPKEEP_EVERY_MS, () => ledger.upkeep(clock.now_ms()), undo)
    startExpiring({ storage: this.storage, clock, logger, troubles: this.#troubles }, undo)
  }

  #startPosting(undo: Undo, round: () => Promise<{ readonly more: boolean; readonly read: number }>): void {
    let idle = 0
    const work = async (): Promise<boolean> => {
      if (idle > 0 && idle % (POST_IDLE_MS / POST_EVERY_MS) !== 0) {
        idle += 1
        return false
      }
      const { more, read } = await round()
      idle = read === 0 ? idle + 1 : 0
      return more
    }
    this.#loop('posting usage to the ledger', POST_EVERY_MS, work, undo)
  }

  /** Hears at once from limits that a bucket is closed, and looks now and then. */
  #followEpochs(undo: Undo): void {
    const { epochs, limits } = this.storage
    let closed = false
    let skipped = 0
    const work = async (): Promise<void> => {
      if (!closed && ++skipped < LOOK_EVERY_MS / LOOK_CLOSED_MS) return
      skipped = 0
      closed = await epochs.look()
    }
    this.#loop('looking for closed buckets', LOOK_CLOSED_MS, work, undo)
    limits.onClosed(() => (closed = true))
  }

  async #recover(idle_node: string | null): Promise<void> {
    const { shared, ledger, records, poster } = this.storage
    const { clock, logger } = this.#options
    const deps: RecoverDeps = {
      limits: shared,
      ledger,
      records,
      drain: (buckets) => poster.drainEach(buckets),
      idle_node,
      clock,
      unique: randomUUID,
      windowAt: windowAround,
      sleep: (ms) => sleep(ms),
      on_progress: (message, details) => logger.warn(details, message),
    }
    await recover(deps)
  }

  async #sweep(calendar: () => TradingCalendar): Promise<void> {
    const { clock, logger } = this.#options
    const { ledger, shared } = this.storage
    const { done, failures } = await ofEachBucket(ALL_BUCKETS, (bucket) => shared.state([bucket]))
    const buckets = this.#grace.sweepable(done.keys(), clock.monotonic_ms())
    const swept = await ledger.ifAlone('sweep', () => sweepShared({ ...this.#closingDeps(calendar), limits: shared, buckets }))
    if (swept !== null && swept > 0) logger.error({ swept }, 'closed requests whose lease had ended')
    // That limits are away is told by whoever fills them.
    for (const failure of failures.values()) if (!(failure instanceof LimitsUnavailable)) throw failure
  }

  #closingDeps(calendar: () => TradingCalendar): Omit<SharedSweepDeps, 'limits' | 'buckets'> {
    const { closing, records } = this.storage
    return { closing, clock: this.#options.clock, calendar, prices: () => readPrices(records) }
  }

  async #beat(stopped: boolean): Promise<void> {
    const { roles, version } = this.#options
    await this.storage.beat({ roles: [...roles], version, stopped })
    this.#share = processShare(this.storage.known.nodes, this.storage.node)
    if (this.#has('worker')) this.#tellSilent()
  }

  /** The last thing: everything that can be posted is, and nobody waits for this process. */
  async #stop(): Promise<void> {
    await this.storage.forwarder.run(false)
    await this.#beat(true)
  }

  #tellSilent(): void {
    const { logger } = this.#options
    const silent = this.storage.known.nodes.filter(isSilent)
    for (const { node, last_seq, unposted, silent_ms } of silent) {
      if (!this.#silent.has(node))
        logger.error({ node, last_seq, unposted, silent_ms }, 'a node is silent; what only its journal has is missing until it is back')
    }
    const now = new Set(silent.map(({ node }) => node))
    for (const node of this.#silent) if (!now.has(node)) logger.warn({ node }, 'a node that was silent is back, or was retired')
    this.#silent = now
  }

  #newFollower(keys: KeyTable): RecordsFollower {
    const { records, changes } = this.storage
    return new RecordsFollower({
      keys,
      records,
      changes,
      clock: this.#options.clock,
      on_trouble: this.#trouble('following changes of records'),
    })
  }

  #has(role: Role): boolean {
    return this.#options.roles.has(role)
  }

  #loop(doing: string, every_ms: number, work: () => Promise<boolean | void>, undo: Undo): Loop {
    const loop = startLoop({ every_ms, work, on_trouble: this.#trouble(doing) })
    undo.add(() => loop.stop())
    return loop
  }

  #trouble(doing: string): (error: unknown) => void {
    return this.#troubles.of(doing)
  }
}
