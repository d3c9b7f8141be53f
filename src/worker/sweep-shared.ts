import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import type { TradingCalendar } from '../money/price.ts'
import { LimitsUnavailable, type SharedLimits, type SweptRequest } from '../storage/cluster-ports.ts'
import type { Closing, UnfinishedRequest } from '../storage/ports.ts'
import { type FindPrice, sweptEvent } from './sweep.ts'

/** Holds of one bucket that are closed in one step. */
const MOST_OF_BUCKET = 100

export interface SharedSweepDeps {
  readonly buckets: readonly number[]
  readonly limits: Pick<SharedLimits, 'sweepBucket' | 'release'>
  readonly closing: Closing
  readonly clock: Clock
  readonly calendar: () => TradingCalendar
  readonly prices: () => Promise<FindPrice>
}

/**
 * Closes requests whose lease has ended on whichever machine they ran, from what is kept with their holds: one event each, in this
 * process's journal. Their own process, if it lives, may still settle: that is a second revision.
 *
 * @returns how many were closed
 * @throws the first failure, after the others were tried; what was not closed is given again after a while
 */
export async function sweepShared(deps: SharedSweepDeps): Promise<number> {
  const failures: unknown[] = []
  let closed = 0
  for (const bucket of deps.buckets) {
    try {
      closed += await sweepBucket(bucket, deps)
    } catch (error) {
      // Closed buckets have no open holds.
      if (!(error instanceof LimitsUnavailable && error.kind === 'closed')) failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
  return closed
}

async function sweepBucket(bucket: number, deps: SharedSweepDeps): Promise<number> {
  const swept = await deps.limits.sweepBucket(bucket, MOST_OF_BUCKET)
  if (swept.length === 0) return 0
  const pricing = { clock: deps.clock, calendar: deps.calendar(), price: await deps.prices() }
  for (const request of swept) {
    const unfinished = unfinishedOf(request)
    if (unfinished === null) await deps.limits.release(request.receipt.id, request.receipt.tenant)
    else await deps.closing.close(sweptEvent(unfinished, pricing))
  }
  return swept.length
}

/** The open row as its journal has it: what was kept before the hold, and the hold. Null for a hold that was taken without one. */
function unfinishedOf({ receipt, context, last }: SweptRequest): UnfinishedRequest | null {
  if (context === null) return null
  const [first] = context.targets
  assert(first !== undefined, 'an open request without a target')
  return { open: { ...context, hold: receipt }, last }
}

export interface OrphanDeps extends Omit<SharedSweepDeps, 'limits' | 'buckets'> {
  readonly unfinished: () => Promise<readonly UnfinishedRequest[]>
}

/**
 * Closes what an earlier owner of this journal left open, before anything new begins. A sweeper elsewhere may have been faster: then
 * that one's event stands.
 *
 * @returns how many were closed
 */
export async function closeOrphans(deps: OrphanDeps): Promise<number> {
  const unfinished = await deps.unfinished()
  if (unfinished.length === 0) return 0
  const pricing = { clock: deps.clock, calendar: deps.calendar(), price: await deps.prices() }
  await Promise.all(unfinished.map((request) => deps.closing.close(sweptEvent(request, pricing))))
  return unfinished.length
}
