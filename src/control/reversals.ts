import * as z from 'zod'
import type { UsageEvent } from '../money/event.ts'
import type { PaymentPart } from '../money/grant.ts'
import { entriesOf, grantDeltas, reversedEntries } from '../storage/accounts.ts'
import { amountText, lapseId, reversalId, unitName } from '../storage/grants.ts'
import type { LedgerEntry, LedgerTransaction } from '../storage/ports.ts'
import type { GrantRecord } from '../storage/records.ts'
import { applyTransaction } from './apply.ts'
import type { ControlDeps } from './deps.ts'
import { shown } from './find.ts'
import { AdminProblem, CnyAmount, parse, TransactionName } from './problem.ts'

/** A swept event may still be replaced by a settle that came late, as long as its hold is remembered (15 min). */
const REPLACEABLE_MS = 15 * 60_000

const Subject = z.string().min(1).max(256)
const NewReversal = z
  .strictObject({
    id: TransactionName.optional(),
    event: Subject.optional(),
    transaction: Subject.optional(),
    amount_cny: CnyAmount.refine((nano) => nano > 0n, 'must be above zero').optional(),
    keep_cost: z.boolean().default(true),
    reason: z.string().trim().min(1, 'say why').max(500),
  })
  .refine(({ event, transaction }) => (event === undefined) !== (transaction === undefined), 'give event or transaction, one of them')
  .refine(({ event, amount_cny }) => amount_cny === undefined || event !== undefined, {
    path: ['amount_cny'],
    error: 'a transaction is reversed whole',
  })
  .refine(({ keep_cost, amount_cny }) => amount_cny === undefined || keep_cost, {
    path: ['keep_cost'],
    error: 'a part of a payment is reversed without its cost',
  })

type Wanted = z.output<typeof NewReversal>

/** What is to be posted, and what it undoes. */
interface Plan {
  readonly of: { readonly event: string } | { readonly transaction: string }
  readonly tenant: string
  readonly reversed: string
  readonly entries: readonly LedgerEntry[]
}

/**
 * Corrects by a reversal, once for each event or transaction: `{event | transaction, reason, amount_cny?, keep_cost?, id?}`.
 *
 * An event's payment goes back to the grants that paid (`amount_cny`: so much of its money, the last payer first); our own debt to the
 * supplier stays unless `keep_cost` is false. The event itself never changes, nor does what windows and budgets have counted.
 * A top-up, promotion or grant is taken back whole, also if it has been spent: `below_zero` then names what the tenant owes.
 *
 * @returns `state` is `posted`, or `duplicate` when the same reversal had been posted before (nothing has changed)
 * @throws AdminProblem `invalid_request`, `not_found`, `conflict` when it was reversed otherwise, or cannot be
 */
export async function reverse(body: unknown, deps: ControlDeps): Promise<{ readonly state: 'posted' | 'duplicate' }> {
  const wanted = parse(NewReversal, body)
  const plan = await (wanted.event === undefined ? planTransaction(wanted.transaction ?? '', deps) : planEvent(wanted.event, wanted, deps))
  const transaction: LedgerTransaction = {
    id: reversalId(plan.reversed),
    at: deps.clock.now_ms(),
    kind: 'reversal',
    note: wanted.id === undefined ? wanted.reason : `${wanted.id}: ${wanted.reason}`,
    entries: plan.entries,
  }
  const state = await deps.turns.run(plan.tenant, async () => {
    if ('transaction' in plan.of) await refuseLapsed(plan, deps)
    return await applyTransaction(transaction, deps)
  })
  return { ...(await reversalView(transaction, plan, deps)), state }
}

async function planEvent(id: string, wanted: Wanted, deps: ControlDeps): Promise<Plan> {
  await deps.ledger.post()
  const event = await deps.ledger.event(id)
  if (event === null)
    throw new AdminProblem('not_found', `there is no event ${shown(id)}; events of archived days cannot be reversed`, 'event')
  const since_ms = deps.clock.now_ms() - event.ended_at
  if (event.status === 'swept' && event.revision === 1 && since_ms < REPLACEABLE_MS)
    throw new AdminProblem('conflict', `event ${id} was swept and may still be replaced: try again 15 minutes after its end`)
  const grants = new Map((await deps.records.grants(event.tenant)).map((grant) => [grant.id, grant.kind]))
  const entries = reversedEntries(entriesOf(wantedOf(event, wanted), (grant) => grants.get(grant)))
  if (entries.length === 0) throw new AdminProblem('conflict', `event ${id} cost nothing: there is nothing to reverse`)
  return { of: { event: id }, tenant: event.tenant, reversed: id, entries }
}

/** The event with only those parts and that cost which are to be reversed. */
function wantedOf(event: UsageEvent, { amount_cny, keep_cost }: Wanted): UsageEvent {
  const parts = amount_cny === undefined ? event.parts : lastPaid(event, amount_cny)
  return { ...event, parts, cost_nano: keep_cost ? 0n : event.cost_nano }
}

function lastPaid({ id, parts }: UsageEvent, amount_nano: bigint): readonly PaymentPart[] {
  const chosen: PaymentPart[] = []
  let left = amount_nano
  for (const part of parts.toReversed()) {
    if (part.unit !== 'nano_cny' || left === 0n) continue
    const amount = part.amount < left ? part.amount : left
    chosen.push({ ...part, amount })
    left -= amount
  }
  if (left === 0n) return chosen
  const paid = amountText('nano_cny', amount_nano - left)
  throw new AdminProblem('invalid_request', `amount_cny: event ${id} was paid with ${paid} CNY of money, not more`, 'amount_cny')
}

const REVERSIBLE: ReadonlySet<LedgerTransaction['kind']> = new Set(['top_up', 'promo', 'grant'])

async function planTransaction(id: string, deps: ControlDeps): Promise<Plan> {
  const known = await deps.ledger.transaction(id)
  if (known === null) throw new AdminProblem('not_found', `the ledger has no transaction ${shown(id)}`, 'transaction')
  if (known.kind === 'reversal') throw new AdminProblem('conflict', 'a reversal is not reversed: give anew what it took away')
  if (known.kind === 'usage') throw new AdminProblem('conflict', 'usage is reversed event by event: name the event')
  const [change] = grantDeltas(known.entries)
  if (!REVERSIBLE.has(known.kind) || change === undefined)
    throw new AdminProblem('conflict', `a transaction of the kind ${known.kind} cannot be reversed`)
  return { of: { transaction: id }, tenant: change.tenant, reversed: id, entries: reversedEntries(known.entries) }
}

/** What has lapsed is nobody's debt: taking a lapsed grant back whole would make it one. */
async function refuseLapsed({ entries }: Plan, { ledger }: ControlDeps): Promise<void> {
  for (const { grant } of grantDeltas(entries)) {
    if ((await ledger.transaction(lapseId(grant, 1))) === null) continue
    throw new AdminProblem('conflict', `grant ${grant} has expired and its unused part has lapsed: it cannot be taken back any more`)
  }
}

async function reversalView({ id, entries, note }: LedgerTransaction, { of, tenant }: Plan, deps: ControlDeps): Promise<object> {
  const now_ms = deps.clock.now_ms()
  const records = new Map((await deps.records.grants(tenant)).map((grant) => [grant.id, grant]))
  const { grants } = await deps.limits.balance(tenant)
  const deltas = grantDeltas(entries)
  const touched = new Set(deltas.map(({ grant }) => grant))
  const owing = grants.filter((grant) => touched.has(grant.id) && grant.balance < 0n)
  const money = deltas.filter(({ unit }) => unit === 'nano_cny').reduce((sum, { delta }) => sum + delta, 0n)
  return {
    object: 'reversal',
    id,
    of,
    tenant,
    note,
    /** Positive: the tenant has it back. Negative: it was taken back. */
    amount_cny: amountText('nano_cny', money),
    parts: deltas.map(({ grant, unit, delta }) => ({
      grant,
      unit: unitName(unit),
      amount: amountText(unit, delta),
      expired: hasExpired(records.get(grant), now_ms),
    })),
    below_zero: owing.map(({ id: grant, unit, balance }) => ({ grant, unit: unitName(unit), balance: amountText(unit, balance) })),
  }
}

/** What comes back to a grant that has expired lapses with the next look at it. */
function hasExpired(grant: GrantRecord | undefined, now_ms: number): boolean {
  return grant !== undefined && grant.expires_at !== null && grant.expires_at <= now_ms
}
