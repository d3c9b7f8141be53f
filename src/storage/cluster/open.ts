import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { RandomBytes } from '../../base/ids.ts'
import type { NodeBeat, SharedLedger, SharedLimits, UsageStreams } from '../cluster-ports.ts'
import { Journal } from '../journal/client.ts'
import type { Storage } from '../open.ts'
import type { Turns } from '../ports.ts'
import { AwayLimits } from './away.ts'
import { createClusterClosing } from './closing.ts'
import { Outbox, OutboxCredits } from './credits.ts'
import { clusterCut } from './cut.ts'
import { EpochFollower } from './epochs.ts'
import { Forwarder } from './forward.ts'
import { createClusterLedger } from './ledger.ts'
import { ChargeNotes } from './notes.ts'
import { StreamPoster } from './post.ts'

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
  readonly database_timeout_ms: number
  readonly database_connections: number
  readonly stream_cap: number
  readonly random?: RandomBytes
  /** Hears of failures that nobody waits for; they are tried again. */
  readonly on_trouble: (error: Error) => void
}

/** Every port of one process of a cluster, and what keeps them saying the same. */
export interface ClusterStorage extends Storage {
  readonly limits: AwayLimits
  readonly shared: SharedLimits
  readonly streams: UsageStreams
  readonly shared_ledger: SharedLedger
  readonly forwarder: Forwarder
  readonly epochs: EpochFollower
  readonly outbox: Outbox
  readonly poster: StreamPoster
  /** Tells the others that this process lives, and how far its journal has come. */
  beat(beat: Pick<NodeBeat, 'roles' | 'version' | 'stopped'>): Promise<void>
}
