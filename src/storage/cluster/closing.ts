import { encodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import type { Journal } from '../journal/client.ts'
import { lateRevision, withdrawnRevision } from '../memory/closing.ts'
import type { Closing, ClosingEvent } from '../ports.ts'
import type { ClosableLimits } from './away.ts'
import type { ChargeNotes } from './notes.ts'
import { noteOf, settleOf, trySettle } from './settling.ts'

export interface ClusterClosingDeps {
  readonly limits: ClosableLimits
  readonly journal: Journal
  readonly notes: ChargeNotes
  /** Hears of what nobody waits for; it is made up for. */
  readonly on_trouble: (error: Error) => void
}

/**
 * {@link Closing} of cluster mode. The event is durable in this node's journal before limits are told of its charge, so that no charge
 * is without an event, whatever becomes of Redis. A settle that fails, or whose answer is lost, is the forwarder's to make up for: the
 * answer is metered, and its client need not wait.
 */
export function createClusterClosing(deps: ClusterClosingDeps): Closing {
  return {
    close: (event) => close(event, deps),
    withdraw: (event) => withdraw(event, deps),
    release: async (id, tenant) => {
      deps.journal.release(id)
      await deps.limits.release(id, tenant).catch((error: unknown) => deps.on_trouble(asError(error)))
    },
  }
}

async function close(event: ClosingEvent, deps: ClusterClosingDeps): Promise<ClosingEvent> {
  const numbered = await write(event, deps)
  if (await wasClosedBefore(numbered, deps)) return event
  const outcome = await trySettle(deps.limits, settleOf(numbered, encodeEvent(numbered)))
  if (outcome === null) return event
  const note = noteOf(numbered, outcome)
  if (note !== 'late') {
    deps.notes.add(note)
    return event
  }
  return await writeLate(event, outcome.epoch ?? 0, deps)
}

/** The hold had been swept, and limits have replaced the sweep's charge by this one: the second revision says so in the ledger. */
export async function writeLate(
  event: ClosingEvent,
  epoch: number,
  deps: Pick<ClusterClosingDeps, 'journal' | 'notes'>,
): Promise<ClosingEvent> {
  const late = lateRevision(event)
  await deps.journal.close(late)
  const { id } = event
  deps.notes.add({ id, revision: 1, epoch: 0, appended: false, void: true })
  deps.notes.add({ id, revision: 2, epoch, appended: false, void: false })
  return late
}

/**
 * Limits were told nothing of an event that could not be written, so there is no charge to take back. Not waited for: whether it can be
 * written now or later, the client is told the same.
 */
async function withdraw(event: ClosingEvent, { journal, on_trouble }: ClusterClosingDeps): Promise<ClosingEvent> {
  const withdrawn = withdrawnRevision(event)
  void journal.close(withdrawn).catch((error: unknown) => on_trouble(asError(error)))
  return withdrawn
}

/** Limits are told nothing of an event that could not be written, and its hold not renewed: it is swept, or settled when the row is written after all. */
async function write(event: ClosingEvent, { journal, limits }: ClusterClosingDeps): Promise<UsageEvent> {
  try {
    const seq = await journal.close(event)
    return { ...event, node: journal.node, seq }
  } catch (error) {
    limits.forget(event.id)
    throw error
  }
}

/** A sweeper in the process that had the request may meet the request's own close in the journal. That one stands, and is the forwarder's. */
async function wasClosedBefore(event: UsageEvent, { journal }: ClusterClosingDeps): Promise<boolean> {
  const { id, revision } = event
  return event.status === 'swept' && (await journal.ask<'event'>({ what: 'event', id, revision })) !== encodeEvent(event)
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}
