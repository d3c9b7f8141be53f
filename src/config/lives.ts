import type { z } from 'zod'
import type { IssueList, SourceFile } from './document.ts'
import type { Model } from './model.ts'
import type { MODEL } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

type LifeEntry = Pick<z.output<typeof MODEL>, 'life' | 'deprecated_on' | 'retires_on' | 'replaced_by'>

/** The life of a model as the catalogue gives it. */
export function lifeMembers({
  life,
  deprecated_on,
  retires_on,
  replaced_by,
}: LifeEntry): Pick<Model, 'life' | 'deprecated_at' | 'retires_at' | 'replaced_by'> {
  return { life, deprecated_at: deprecated_on ?? null, retires_at: retires_on ?? null, replaced_by: replaced_by ?? null }
}

/** Dates of one model that contradict each other. */
export function checkDates(id: string, { deprecated_on, retires_on }: LifeEntry, source: SourceFile, issues: IssueList): void {
  if (deprecated_on === undefined || retires_on === undefined || deprecated_on <= retires_on) return
  issues.add(source, ['models', id, 'deprecated_on'], 'is after retires_on', 'a date before the model is retired, or the same')
}

/** Successors that are no model, or that lead back to where they began. `models` lacks those with other mistakes; `ids` has them all. */
export function checkSuccessors(
  models: ReadonlyMap<string, Model>,
  names: { readonly ids: ReadonlySet<string>; readonly aliases: ReadonlyMap<string, string> },
  source: SourceFile,
  issues: IssueList,
): void {
  for (const model of models.values()) {
    const { replaced_by } = model
    if (replaced_by === null) continue
    const at = ['models', model.id, 'replaced_by']
    if (!names.ids.has(replaced_by)) {
      const meant = names.aliases.get(replaced_by)
      const message = meant === undefined ? `unknown model "${replaced_by}"` : `"${replaced_by}" is an alias`
      issues.add(source, at, message, meant ?? expectedOneOf(replaced_by, [...names.ids]))
    } else if (leadsBack(model, models)) {
      issues.add(source, at, `leads from ${replaced_by} back to ${model.id}`, 'a successor that is not replaced by what it replaces')
    }
  }
}

function leadsBack(model: Model, models: ReadonlyMap<string, Model>): boolean {
  const seen = new Set<string>()
  for (let next = model.replaced_by; next !== null && !seen.has(next); next = models.get(next)?.replaced_by ?? null) {
    if (next === model.id) return true
    seen.add(next)
  }
  return false
}
