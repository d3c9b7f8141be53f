import { grantDeltas, sameEntries, type GrantDelta } from '../storage/accounts.ts'
import type { GrantTerms, LedgerTransaction } from '../storage/ports.ts'
import type { GrantRecord, Records } from '../storage/records.ts'
import type { ControlDeps, CreditableLimits } from './deps.ts'
import { AdminProblem } from './problem.ts'

/** A credit is numbered by what was applied before it; this often the number is read again when another credit came first. */
const MAX_TRIES = 10
/** Most transactions remembered of which it is unknown whether they are in the ledger, or which the limits lack. */
const MAX_UNFINISHED = 10_000

export interface ApplyDeps extends Pick<ControlDeps, 'records' | 'ledger'> {
  readonly limits: CreditableLimits
}

/** What limits still lack of transactions that are, or may be, in the ledger; by the id of the transaction. */
type Unfinished = Map<string, readonly GrantDelta[]>
const UNFINISHED = new WeakMap<CreditableLimits, Unfinished>()

/**
 * Posts a transaction that is no usage, once per id, and tells the limits what it means for the tenant's grants. The ledger is the
 * truth: it is written first, and what limits would miss after a crash in between is there again when they are rebuilt at the next
 * start. Call it in the tenant's turn ({@link inTurn}).
 *
 * @returns `duplicate` when the same transaction had been posted before; nothing has changed
 * @throws AdminProblem `conflict` when its id was used for another transaction; notes are not compared
 */
export async function applyTransaction(transaction: LedgerTransaction, deps: ApplyDeps): Promise<'posted' | 'duplicate'> {
  const { id, entries } = transaction
  const unfinished = unfinishedOf(deps.limits)
  if ((await deps.ledger.transaction(id)) === null) {
    const state = await deps.ledger.transact(transaction).catch((error: unknown) => {
      // It may have been written all the same.
      if (unfinished.size < MAX_UNFINISHED) unfinished.set(id, grantDeltas(entries))
      throw error
    })
    if (state === 'posted') {
      unfinished.set(id, grantDeltas(entries))
      await finish(id, deps)
      return 'posted'
    }
  }
  // Posted before; the limits lack it only if that try seemed to have failed.
  await finish(id, deps)
  refuseOther(await deps.ledger.transaction(id), transaction)
  return 'duplicate'
}

/** Gives the limits what they lack of transactions whose posting had failed and that are in the ledger after all. */
export async function finishTransactions(deps: ApplyDeps): Promise<void> {
  for (const [id, deltas] of unfinishedOf(deps.limits)) {
    await inTurn(deps.limits, deltas[0]?.tenant ?? '', async () => {
      if ((await deps.ledger.transaction(id)) !== null) await finish(id, deps)
    })
  }
}

/** Changes the terms under which admission spends a grant, now. */
export async function applyTerms(grant: GrantRecord, limits: CreditableLimits): Promise<void> {
  await credit(termsOf(grant), 0n, limits)
}

/**
 * Runs `work` when everything that was asked before for this tenant's grants and records has ended, so that looking and writing are one step.
 * Waiting is bounded by the admin port's connections.
 */
export async function inTurn<Result>(limits: CreditableLimits, tenant: string, work: () => Promise<Result>): Promise<Result> {
  const turns = turnsOf(limits)
  const turn = (turns.get(tenant) ?? Promise.resolve()).then(work, work)
  turns.set(tenant, turn)
  try {
    return await turn
  } finally {
    if (turns.get(tenant) === turn) turns.delete(tenant)
  }
}

const TURNS = new WeakMap<CreditableLimits, Map<string, Promise<unknown>>>()

function turnsOf(limits: CreditableLimits): Map<string, Promise<unknown>> {
  const known = TURNS.get(limits) ?? new Map<string, Promise<unknown>>()
  TURNS.set(limits, known)
  return known
}

function unfinishedOf(limits: CreditableLimits): Unfinished {
  const known = UNFINISHED.get(limits) ?? new Map<string, readonly GrantDelta[]>()
  UNFINISHED.set(limits, known)
  return known
}

/** Applies what is lacking of a transaction, change by change: one that fails is tried again, those before it are not. */
async function finish(id: string, { records, limits }: ApplyDeps): Promise<void> {
  const unfinished = unfinishedOf(limits)
  for (let deltas = unfinished.get(id) ?? []; deltas.length > 0; deltas = deltas.slice(1)) {
    unfinished.set(id, deltas)
    const [first] = deltas
    if (first !== undefined) await credit(await termsFor(first, records), first.delta, limits)
  }
  unfinished.delete(id)
}

async function termsFor({ tenant, grant, unit }: GrantDelta, records: Pick<Records, 'grants'>): Promise<GrantTerms> {
  const record = (await records.grants(tenant)).find(({ id }) => id === grant)
  if (record !== undefined) return termsOf(record)
  // The credit line, and a grant that has no record: it pays last.
  const priority = Number.MAX_SAFE_INTEGER
  return { id: grant, tenant, unit, priority, expires_at: null, created_at: 0, models: null, weights: null }
}

function termsOf({ kind: _, amount: __, ...terms }: GrantRecord): GrantTerms {
  return terms
}

async function credit(terms: GrantTerms, delta: bigint, limits: CreditableLimits): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const seq = limits.appliedSeq(terms.tenant) + 1
    if ((await limits.credit({ grant: terms, delta, seq })) === 'applied') return
  }
  throw new Error(`a change of ${terms.id} is in the ledger but was not applied to the limits; restart to rebuild them`)
}

function refuseOther(known: LedgerTransaction | null, wanted: LedgerTransaction): void {
  if (known === null) throw new Error(`the ledger has and has not the transaction ${wanted.id}`)
  if (known.kind === wanted.kind && sameEntries(known.entries, wanted.entries)) return
  throw new AdminProblem('conflict', `${wanted.id} was posted before with other contents; nothing has changed`, 'id')
}
