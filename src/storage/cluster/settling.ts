import type { UsageEvent } from '../../money/event.ts'
import { totalTokens } from '../../money/usage.ts'
import { LimitsUnavailable, type SettleOutcome } from '../cluster-ports.ts'
import type { ChargeNote } from '../journal/protocol.ts'
import type { SettleRequest } from '../ports.ts'
import type { ClosableLimits } from './away.ts'

/** The settle of a numbered event. `body` is its JSON, as its journal has it. */
export function settleOf(event: UsageEvent, body: string): SettleRequest {
  const { id, tenant, admitted_at, amount_nano, parts, status, revision } = event
  const orphan = status === 'swept' && revision === 1 ? { orphan: true as const } : {}
  const tokens = totalTokens(event.tokens)
  return { id, tenant, admitted_at, tokens, amount_nano, parts, ...orphan, event: { ref: refOf(event), body } }
}

/** Tells one close of a request from every other. */
export function refOf({ node, seq }: Pick<UsageEvent, 'node' | 'seq'>): string {
  return `${node} ${seq}`
}

/** Settles; null where limits could not, or may have: to be asked again. */
export async function trySettle(limits: ClosableLimits, request: SettleRequest): Promise<SettleOutcome | null> {
  try {
    return await limits.settleEvent(request)
  } catch (error) {
    if (error instanceof LimitsUnavailable) return null
    throw error
  }
}

/** What an outcome says of the charge of the event that asked for it; `late` where a second revision has to say so. */
export function noteOf(event: Pick<UsageEvent, 'id' | 'revision' | 'node' | 'seq'>, outcome: SettleOutcome): ChargeNote | 'late' {
  const { id, revision } = event
  const { state, epoch, appended, ref, replaced } = outcome
  const note = (more: Partial<ChargeNote>): ChargeNote => ({ id, revision, epoch: epoch ?? 0, appended, void: false, ...more })
  const mine = ref === refOf(event)
  switch (state) {
    case 'settled':
      return note({})
    case 'late':
      return revision === 1 ? 'late' : note({})
    case 'expired':
      return note({ epoch: 0, appended: false })
    case 'duplicate':
      if (mine) return replaced && revision === 1 ? 'late' : note({})
      // Whoever closed it is not known: then it is the ledger that tells whether there is another event.
      return note({ epoch: 0, appended: false, void: ref !== null })
  }
}
