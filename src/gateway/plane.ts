import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Closing, Ledger, Limits, UsageLog } from '../storage/ports.ts'
import type { Records } from '../storage/records.ts'
import type { DomainClassifier } from '../routing/domain.ts'
import type { BreakerBoard } from '../upstream/breaker.ts'
import type { LatencyBoard } from '../upstream/latency.ts'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import type { RetryBudget } from '../upstream/retry-budget.ts'
import type { Transport } from '../upstream/source.ts'
import type { KeyTable } from './keys.ts'
import type { OpenCalls } from './open-calls.ts'
import type { RecentRefusals } from './refusals.ts'
import type { Room } from './room.ts'
import type { Snapshot } from './snapshot.ts'
import type { StreamTicker } from './ticker.ts'

/** Everything the stages need, made once in `main.ts`. */
export interface Plane {
  /** The configuration in force; taken once per request, so that a reload never mixes two. */
  readonly snapshot: () => Snapshot
  /** Why this process must not serve now, beside a journal that cannot commit; null when it may. */
  readonly unready: () => string | null
  readonly keys: KeyTable
  readonly limits: Limits
  readonly log: UsageLog
  readonly closing: Closing
  readonly ledger: Ledger
  /** For lookups; never asked while a request is served. */
  readonly records: Pick<Records, 'grants'>
  readonly transport: Transport
  readonly breakers: BreakerBoard
  readonly latencies: LatencyBoard
  readonly retries: RetryBudget
  readonly classifier: DomainClassifier
  readonly room: Room
  readonly providers: ReadonlyMap<string, ProviderFacts>
  readonly clock: Clock
  readonly randomBytes: RandomBytes
  readonly metrics: Metrics
  readonly logger: Logger
  readonly open: OpenCalls
  readonly refusals: RecentRefusals
  readonly ticker: StreamTicker
  /** Secret for the keyed hash of `user`. */
  readonly end_user_secret: Buffer
  readonly state: PlaneState
}

/** Whether this process takes traffic. Changed by `main.ts` only. */
export interface PlaneState {
  draining: boolean
}
