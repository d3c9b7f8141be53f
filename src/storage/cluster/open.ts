import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { RandomBytes } from '../../base/ids.ts'
import { LimitsUnavailable, type SharedLedger, type SharedLimits, type TenantOf, type UsageStreams } from '../cluster-ports.ts'
import { Journal } from '../journal/client.ts'
import { isLiveGateway, type NodeBeat, type NodeState } from '../nodes.ts'
import { archiveDirectory, type Storage } from '../open.ts'
import type { PostResult } from '../ports.ts'
import { openPostgres, type PostgresBooks } from '../postgres/open.ts'
import type { Records } from '../records.ts'
import { createRedisChanges } from '../redis/changes.ts'
import { createRedisLimits } from '../redis/limits.ts'
import { openRedis } from '../redis/link.ts'
import { AwayLimits } from './away.ts'
import { createClusterClosing } from './closing.ts'
import { Outbox, OutboxCredits } from './credits.ts'
import { clusterCut } from './cut.ts'
import { EpochFollower } from './epochs.ts'
import { Forwarder } from './forward.ts'
import { ChargeNotes } from './notes.ts'
import { ALL_BUCKETS, StreamPoster } from './post.ts'

/** How long a start waits for Redis: it goes on without, since it may come. */
const REDIS_START_MS = 5000

export interface ClusterOptions {
  readonly data_dir: string
  /** This process's place on its machine: it has a journal of its own, which the next process in its place takes over. */
  readonly slot: number
  readonly clock: Clock
  readonly commit_timeout_ms: number
  readonly keep_days: number
  readonly redis_url: string
  readonly database_url: string
  readonly redis_timeout_ms: number
  readonly stream_cap: number
  readonly random?: RandomBytes
  /** Hears of failures that nobody waits for; they are tried again. */
  readonly on_trouble: (error: Error) => void
}

interface Known {
  nodes: readonly NodeState[]
  limits_up: boolean
  ledger_up: boolean
}

/** Every port of one process of a cluster, and what keeps them saying the same. */
export interface ClusterStorage extends Storage {
  readonly limits: AwayLimits
  readonly shared: SharedLimits
  readonly streams: UsageStreams
  readonly ledger: SharedLedger
  readonly forwarder: Forwarder
  readonly epochs: EpochFollower
  readonly outbox: Outbox
  readonly poster: StreamPoster
  /** What the last beat has shown. */
  readonly known: Readonly<Known>
  /** Tells the others that this process lives, and how far its journal has come. */
  beat(beat: Pick<NodeBeat, 'roles' | 'version' | 'stopped'>): Promise<void>
}

/**
 * Opens what one process of a cluster needs: its journal, and connections to Redis and PostgreSQL, whose schema is brought to this
 * release's. Redis may be away.
 *
 * @throws DataDirectoryInUse, SchemaError, JournalUnavailable, LedgerUnavailable
 * @throws Error where Redis must not be used as it is set up
 */
export async function openCluster(options: ClusterOptions): Promise<ClusterStorage> {
  const { data_dir, slot, clock, commit_timeout_ms, keep_days, on_trouble, random = randomBytes } = options
  const directory = join(data_dir, `slot-${slot}`)
  const journal = await Journal.start({
    data_dir: directory,
    clock,
    random,
    commit_timeout_ms,
    keep_days,
    posting: 'elsewhere',
    on_trouble,
  })
  try {
    let forward = (): Promise<PostResult> => Promise.resolve({ events: 0, transactions: 0 })
    const books = await openPostgres({ url: options.database_url, clock, forward: () => forward() })
    try {
      const storage = await connect(options, journal, books)
      forward = async () => {
        await storage.forwarder.run(true)
        return await storage.poster.drain()
      }
      return storage
    } catch (error) {
      await books.close()
      throw error
    }
  } catch (error) {
    await journal.shutdown()
    throw error
  }
}

async function connect(options: ClusterOptions, journal: Journal, books: PostgresBooks): Promise<ClusterStorage> {
  const { clock, on_trouble, random = randomBytes, stream_cap } = options
  const { records, ledger } = books
  const link = openRedis({ url: options.redis_url, command_timeout_ms: options.redis_timeout_ms, onError: on_trouble })
  try {
    await link.ready(REDIS_START_MS).catch((error: unknown) => {
      // A server that must not be used is no reason to go on; one that is away may come back.
      if (!(error instanceof Error) || error.name !== 'LimitsUnavailable') throw error
      on_trouble(error)
    })
  } catch (error) {
    link.close()
    throw error
  }
  const tenantOf = tenantFinder(records)
  const redis = createRedisLimits(link, { tenantOf, stream_cap, onError: on_trouble })
  const changes = createRedisChanges(link, random, on_trouble)
  const known: Known = { nodes: [], limits_up: false, ledger_up: false }
  const limits = new AwayLimits({ shared: redis, clock, liveNodes: () => Math.max(1, known.nodes.filter(isLiveGateway).length) })
  const notes = new ChargeNotes(journal, on_trouble)
  const forwarder = new Forwarder({ journal, notes, limits, ledger, clock })
  const told = { limits: redis, ledger, clock, on_trouble }
  const outbox = new Outbox(told)
  return {
    limits,
    shared: redis,
    streams: redis,
    log: journal,
    closing: createClusterClosing({ limits, journal, notes, on_trouble }),
    credits: new OutboxCredits(told, outbox),
    turns: { run: (name, work) => ledger.inTurn(name, work) },
    ledger,
    records,
    changes,
    node: journal.node,
    known,
    archive: books.archiveIn(archiveDirectory(options.data_dir), options.keep_days),
    rebuilder: books.rebuilder,
    cut: (rules = []) => clusterCut(rules, journal.node, { limits: redis, streams: redis, ledger, tenantOf }),
    forwarder,
    epochs: new EpochFollower({ limits: redis, ledger, forwarder, node: journal.node, on_trouble }),
    outbox,
    poster: new StreamPoster({ streams: redis, ledger }),
    beat: async (beat) => {
      known.limits_up = await isUp(redis)
      known.ledger_up = false
      const { event_seq } = await journal.mark()
      await ledger.beat({ node: journal.node, last_seq: event_seq, unposted: journal.health().unposted, ...beat })
      known.nodes = await ledger.nodes()
      known.ledger_up = true
    },
    close: async () => {
      await notes.flush()
      await forwarder.run(true).catch(on_trouble)
      redis.close()
      changes.close()
      link.close()
      await books.close()
      await journal.shutdown()
    },
  }
}

/** Whether every server answers that has buckets. */
async function isUp(limits: Pick<SharedLimits, 'serverRuns'>): Promise<boolean> {
  try {
    const runOf = await limits.serverRuns()
    return ALL_BUCKETS.every((bucket) => runOf(bucket) !== null)
  } catch (error) {
    if (error instanceof LimitsUnavailable) return false
    throw error
  }
}

/** Whose a key or project is: asked of the records, since only the control plane asks, and seldom. */
function tenantFinder(records: Records): TenantOf {
  return async (scope, id) => {
    if (scope === 'tenant') return id
    if (scope === 'key') return (await records.key(id))?.tenant ?? null
    // A project's id begins with its tenant's (src/control/find.ts).
    const [tenant = ''] = id.split('/')
    return (await records.tenant(tenant)) === null ? null : tenant
  }
}
