/** How far a model is in its life, and what takes its place. Pure; the instant is passed in. */
import type { Catalogue, Model } from '../config/model.ts'
import { isVisibleTo } from './access.ts'

export type Life = Model['life']

/** A model's dates and state, as the catalogue has them. */
export type Aging = Pick<Model, 'life' | 'deprecated_at' | 'retires_at'>

/** What a model is at an instant: dates that have come count, whatever state was written beside them. */
export function lifeOf({ life, deprecated_at, retires_at }: Aging, now_ms: number): Life {
  if (life === 'retired' || (retires_at !== null && retires_at <= now_ms)) return 'retired'
  if (life === 'deprecated' || (deprecated_at !== null && deprecated_at <= now_ms)) return 'deprecated'
  return life
}

/** Successors are followed this far; the catalogue has no circles. */
const MOST_SUCCESSORS = 32

/**
 * The model that takes another's place for a tenant: the first of its successors, and theirs, that is not retired. One that does not exist
 * for the tenant is not named; null where there is none.
 */
export function successorOf(model: Model, { models }: Catalogue, tenant: string, now_ms: number): Model | null {
  let next = model.replaced_by
  for (let step = 0; next !== null && step < MOST_SUCCESSORS; step += 1) {
    const successor = models.get(next)
    if (successor === undefined) return null
    if (lifeOf(successor, now_ms) !== 'retired' && isVisibleTo(tenant, successor)) return successor
    next = successor.replaced_by
  }
  return null
}
