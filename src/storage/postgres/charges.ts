/**
 * What limits must be told of an event that was posted, so that they come to what the ledger says. Pure.
 *
 * Limits were charged what settles said in the bucket's epoch; of earlier epochs they know what the ledger knew when this one opened. So
 * each posting owes them its effect on the ledger less the effect that its settle had on limits in this epoch:
 *
 * | posted | effect on the ledger | effect on limits, if charged in this epoch |
 * |---|---|---|
 * | a first revision | − its parts | − its parts |
 * | a second one | + the first's − its own | + those of the charge that it replaced − its own |
 * | one whose place another has, or whose day is archived | none | as above |
 * | one that was posted before as not charged in this epoch | none now | as above |
 *
 * The charge that a second revision replaced is nearly always the first revision in the ledger. It is another where two processes closed
 * the request, the one that limits did not charge was posted first, and so the other one is superseded.
 */
import type { GrantUnit, PaymentPart } from '../../money/grant.ts'

type Parts = readonly PaymentPart[]

/** A revision in the ledger of which the outbox must know how it was posted. */
export interface PostedSecond {
  readonly charged: number | null
  /** It came before its first revision. */
  readonly early: boolean
}

/** Signed parts: what they change on each grant. */
export interface Change {
  readonly parts: Parts
  readonly sign: 1n | -1n
}

const taken = (parts: Parts): Change => ({ parts, sign: -1n })
const given = (parts: Parts): Change => ({ parts, sign: 1n })

/** A first revision that is in the ledger now. @param second its second revision, if that was posted before it */
export function firstPosted(parts: Parts, charged: number | null, epoch: number, second: PostedSecond | null): readonly Change[] {
  const by_limits = charged === epoch
  if (second === null) return by_limits ? [] : [taken(parts)]
  // The second stands for both in the ledger. Posting it has told limits of itself as if there were no first one.
  if (second.charged === epoch) return by_limits ? [] : [taken(parts)]
  return by_limits ? [given(parts)] : []
}

/**
 * A second revision that is in the ledger now.
 * @param first parts of the first revision in the ledger; null if that is not there yet
 * @param other parts of a superseded first revision that limits have charged in this epoch, if there is one
 */
export function secondPosted(
  parts: Parts,
  charged: number | null,
  epoch: number,
  first: Parts | null,
  other: Parts | null,
): readonly Change[] {
  if (charged !== epoch) return [...(first === null ? [] : [given(first)]), taken(parts)]
  return first === null || other === null ? [] : [given(first), taken(other)]
}

/**
 * A first revision whose place another has.
 * @param first parts of the one in the ledger
 * @param second its second revision, if that is posted
 */
export function firstSuperseded(
  parts: Parts,
  charged: number | null,
  epoch: number,
  first: Parts,
  second: PostedSecond | null,
): readonly Change[] {
  if (charged !== epoch) return []
  // Limits have given it back already, where the ledger has given back the one in its place.
  return second?.charged === epoch ? [given(first)] : [given(parts)]
}

/** A second revision whose place another has. @param first parts of the first one in the ledger, if it is there */
export function secondSuperseded(parts: Parts, charged: number | null, epoch: number, first: Parts | null): readonly Change[] {
  if (charged !== epoch) return []
  return [given(parts), ...(first === null ? [] : [taken(first)])]
}

/**
 * A revision that is in the ledger and was posted as one that limits had not charged in this epoch; now they have, since its settle was
 * on its way all the time. What follows is the difference between what they were told and what they would have been told.
 *
 * @param replaced of a second revision, the parts of the charge that it replaced; null if there is none yet
 */
export function chargedSince(parts: Parts, replaced: Parts | null): readonly Change[] {
  return [given(parts), ...(replaced === null ? [] : [taken(replaced)])]
}

/** What one grant of a tenant is told. */
export interface OutboxDelta {
  readonly tenant: string
  readonly grant: string
  readonly unit: GrantUnit
  readonly delta: bigint
}

/** Adds changes up, so that a posting of any size tells each grant once. */
export class OutboxSums {
  readonly #sums = new Map<string, { readonly tenant: string; readonly grant: string; readonly unit: GrantUnit; delta: bigint }>()

  add(tenant: string, changes: readonly Change[]): void {
    for (const { parts, sign } of changes)
      for (const { grant, unit, amount } of parts) this.put({ tenant, grant, unit, delta: sign * amount })
  }

  put({ tenant, grant, unit, delta }: OutboxDelta): void {
    const name = `${tenant}\n${grant}\n${unit}`
    const known = this.#sums.get(name)
    if (known === undefined) this.#sums.set(name, { tenant, grant, unit, delta })
    else known.delta += delta
  }

  /** Those that are not zero, tenants in order. */
  deltas(): readonly OutboxDelta[] {
    const deltas = [...this.#sums.values()].filter(({ delta }) => delta !== 0n)
    return deltas.toSorted((a, b) => (a.tenant === b.tenant ? 0 : a.tenant < b.tenant ? -1 : 1))
  }
}
