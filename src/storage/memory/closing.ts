import { NO_CALLS, NO_TOKENS, totalTokens } from '../../money/usage.ts'
import type { Closing, ClosingEvent, Limits, UsageLog } from '../ports.ts'

export interface ClosingDeps {
  readonly limits: Limits
  readonly log: UsageLog
  /** Hears of a second revision that could not be written now; the log writes it later. */
  readonly on_trouble: (error: Error) => void
}

/** {@link Closing} of one process: the charge and the event side by side, which is one turn of the event loop. */
export function createClosing(deps: ClosingDeps): Closing {
  return {
    close: (event) => close(event, deps),
    withdraw: (event) => withdraw(event, deps),
    release: async (id, tenant) => {
      deps.log.release(id)
      await deps.limits.release(id, tenant)
    },
  }
}

/**
 * A charge whose event cannot be written is still a charge. If the hold had been swept meanwhile, the journal has a first revision
 * already, and this is the second, which reverses it.
 */
async function close(event: ClosingEvent, { limits, log }: ClosingDeps): Promise<ClosingEvent> {
  const settled = limits.settle({
    id: event.id,
    tenant: event.tenant,
    admitted_at: event.admitted_at,
    tokens: totalTokens(event.tokens),
    amount_nano: event.amount_nano,
    parts: event.parts,
  })
  const [first, state] = await Promise.allSettled([log.close(event), settled])
  if (state.status === 'rejected') throw state.reason
  if (state.value === 'late') {
    // Also when the first was refused: the limits have taken the second.
    const second = lateRevision(event)
    await log.close(second)
    return second
  }
  if (first.status === 'rejected') throw first.reason
  return event
}

/** What it cost us stays on the event. */
async function withdraw(event: ClosingEvent, { limits, log, on_trouble }: ClosingDeps): Promise<ClosingEvent> {
  const withdrawn = withdrawnRevision(event)
  const { id, tenant, admitted_at, amount_nano, parts } = withdrawn
  const state = await limits.settle({ id, tenant, admitted_at, tokens: 0, amount_nano, parts, replaces: event.parts })
  // A sweep's charge was replaced already, by this event's: there is no third revision.
  if (state !== 'late') return event
  // Not waited for: whether it can be written now or later, the client is told the same.
  void log.close(withdrawn).catch((error: unknown) => on_trouble(error instanceof Error ? error : new Error(String(error))))
  return withdrawn
}

/** The event of a request whose hold had been swept. */
export function lateRevision(event: ClosingEvent): ClosingEvent {
  return { ...event, revision: 2, flags: [...event.flags, 'late'] }
}

/** The event of an answer that was refused because its event could not be written. */
export function withdrawnRevision(event: ClosingEvent): ClosingEvent {
  return {
    ...event,
    revision: 2,
    status: 'failed',
    code: 'admission_unavailable',
    tokens: NO_TOKENS,
    calls: NO_CALLS,
    amount_nano: 0n,
    overrun_nano: 0n,
    parts: [],
    flags: [...event.flags, 'withdrawn'],
  }
}
