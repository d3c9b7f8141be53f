import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import { bucketOf, BUCKETS, type SharedLimits, type TenantOf, type UsageStreams } from '../cluster-ports.ts'
import { CREDIT } from '../memory/account.ts'
import type { CreditRequest, CreditState, LimitRule } from '../ports.ts'
import { Admission } from './admission.ts'
import { BucketScripts } from './bucket-scripts.ts'
import { Doubts } from './doubts.ts'
import { Epochs } from './epochs.ts'
import { Extensions } from './extensions.ts'
import { counterName, windowWords } from './keys.ts'
import type { RedisLink } from './link.ts'
import { OwnHolds } from './own-holds.ts'
import { numberOf, unitLetter } from './replies.ts'
import { slicesOf } from './slices.ts'
import { createUsageStreams } from './streams.ts'
import { Sweeps } from './sweeps.ts'
import { specialText, termsText } from './terms.ts'
import { Views } from './views.ts'

const STREAM_CAP = 4000

export interface RedisLimitsOptions {
  readonly tenantOf: TenantOf
  /** Events in each bucket's stream beyond which no more are appended; those of sweeps up to twice as many. 4000 by default. */
  readonly stream_cap?: number
  /** The time that scripts go by in tests. Without it, it is the server's. */
  readonly clock?: Clock
  /** Told of what nobody waits for: holds that could not be given back, buckets whose holds were not extended. */
  readonly onError: (error: Error) => void
}

/** {@link SharedLimits} and {@link UsageStreams} in Redis. */
export interface RedisLimits extends SharedLimits, UsageStreams {
  /** Stops what it does by itself. The link is left to whoever opened it. */
  close(): void
}

/**
 * Limits that processes share: each operation on a bucket is one script on the server that has it, atomic and refused whole. It answers
 * as the memory driver does. The link must be open for as long as this is used.
 *
 * `extend` leaves out requests of buckets that could not be asked, and rejects if none could. `sweep` passes over closed buckets.
 */
export function createRedisLimits(link: RedisLink, options: RedisLimitsOptions): RedisLimits {
  const { onError } = options
  const scripts = new BucketScripts(link, options.clock)
  const own = new OwnHolds()
  const doubts = new Doubts((doubt) => admission.giveBack(doubt), onError)
  const admission = new Admission(scripts, own, doubts, options.stream_cap ?? STREAM_CAP)
  const extensions = new Extensions(scripts, own, onError)
  const sweeps = new Sweeps(scripts, own)
  const views = new Views(scripts, options.tenantOf)
  const epochs = new Epochs(scripts, own)
  return {
    ...createUsageStreams(link),
    hold: (request) => admission.hold(request),
    extend: (requests) => extensions.extend(requests),
    settleEvent: (request) => admission.settle(request),
    settle: async (request) => {
      const { state } = await admission.settle(request)
      return state === 'expired' ? 'duplicate' : state
    },
    release: (id, tenant) => admission.release(id, tenant),
    sweep: async (now_ms) => (await sweeps.sweepAll(now_ms)).map(({ receipt }) => receipt),
    sweepBucket: (bucket, limit) => sweeps.sweepBucket(bucket, limit),
    credit: (request) => credit(scripts, request),
    block: (kind, id, blocked) => block(scripts, options.tenantOf, kind, id, blocked),
    balance: (tenant) => views.balance(tenant),
    states: (rules) => views.states(rules),
    openHolds: () => openHolds(scripts),
    outlives: true,
    isMine: (id) => own.isMine(id),
    forget: (id) => own.forget(id),
    cut: (bucket, tenants, rules) => views.cut(bucket, tenants, rules),
    tenants: (bucket) => link.ask(scripts.keys.of(bucket).tenants, (client) => client.smembers(scripts.keys.of(bucket).tenants)),
    appliedSeq: (tenant) => views.appliedSeq(tenant),
    shift: (tenant, rule, delta, end_ms) => shift(scripts, tenant, rule, delta, end_ms),
    state: (buckets) => epochs.state(buckets),
    serverRuns: () => epochs.serverRuns(),
    beginEpoch: (buckets, epoch) => epochs.beginEpoch(buckets, epoch),
    report: (bucket, epoch, node) => epochs.report(bucket, epoch, node),
    fill: (bucket, epoch, accounts, meters) => epochs.fill(bucket, epoch, accounts, meters),
    openBucket: (bucket, epoch) => epochs.openBucket(bucket, epoch),
    mark: (bucket, epoch, marks) => epochs.mark(bucket, epoch, marks),
    close: () => doubts.close(),
  }
}

async function credit(scripts: BucketScripts, { grant, delta, seq }: CreditRequest): Promise<CreditState> {
  const bucket = bucketOf(grant.tenant)
  const { meta, tenants, account } = scripts.keys.of(bucket)
  const terms = grant.id === CREDIT ? ['', ''] : [termsText(grant), specialText(grant)]
  const words = [grant.tenant, seq, grant.id, `${delta}`, unitLetter(grant.unit), ...terms]
  const [state] = await scripts.runOpen(bucket, 'credit', [meta, tenants, account(grant.tenant)], words)
  assert(state === 'applied' || state === 'duplicate' || state === 'gap', 'a credit ended in no known state')
  return state
}

async function block(scripts: BucketScripts, tenantOf: TenantOf, kind: 'key' | 'tenant', id: string, blocked: boolean): Promise<void> {
  const tenant = kind === 'tenant' ? id : await tenantOf(kind, id)
  assert(tenant !== null, `${kind} ${id} is nobody's, so that it cannot be blocked`)
  await scripts.run('block', [scripts.keys.of(bucketOf(tenant)).blocked], [`${kind}:${id}`, blocked ? '1' : ''])
}

async function shift(scripts: BucketScripts, tenant: string, rule: LimitRule, delta: bigint, end_ms: number | null): Promise<void> {
  const bucket = bucketOf(tenant)
  const { meta, counter } = scripts.keys.of(bucket)
  const words = [...windowWords(rule), end_ms ?? '-', `${delta}`]
  await scripts.runOpen(bucket, 'shift', [meta, counter(counterName(rule))], words)
}

/** Of all buckets, whatever their state; those marked swept count. */
async function openHolds(scripts: BucketScripts): Promise<number> {
  const leases = Array.from({ length: BUCKETS }, (_, bucket) => scripts.keys.of(bucket).leases)
  const counts = await Promise.all(
    slicesOf(leases, scripts.link.is_cluster ? 1 : BUCKETS).map(async ([first = '', ...others]) =>
      numberOf(await scripts.run('count', [first, ...others], [])),
    ),
  )
  return counts.reduce((sum, count) => sum + count, 0)
}
