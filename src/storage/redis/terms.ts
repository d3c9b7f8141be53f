import { weightMicroOf } from '../../money/grant.ts'
import type { GrantTerms } from '../ports.ts'

/** The JSON of a grant's terms: these members and no other, whatever else the object has. */
export function termsText({ id, tenant, unit, priority, expires_at, created_at, models, weights }: GrantTerms): string {
  return JSON.stringify({ id, tenant, unit, priority, expires_at, created_at, models, weights })
}

/**
 * For which models a grant pays and what they weigh, as scripts ask for it; empty where it pays for all alike.
 * @throws RangeError for a weight that is none
 */
export function specialText({ models, weights }: GrantTerms): string {
  if (models === null && weights === null) return ''
  const micro = weights === null ? null : Object.entries(weights).map(([model, text]) => [model, weightMicroOf(text)] as const)
  return JSON.stringify({
    models: models === null ? null : Object.fromEntries(models.map((model) => [model, true])),
    weights: micro === null ? null : Object.fromEntries(micro),
  })
}
