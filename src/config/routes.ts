import type { z } from 'zod'
import type { VirtualModel } from '../routing/virtual.ts'
import type { CatalogueNames } from './catalogue.ts'
import type { IssueList, Path, SourceFile } from './document.ts'
import type { Catalogue } from './model.ts'
import { parseShape } from './parse.ts'
import { MODEL_ID, ROUTE, ROUTES } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

type RouteEntry = z.output<typeof ROUTE>

/** Virtual models of one installation, at most. */
const MAX_ROUTES = 1000

interface Building {
  readonly source: SourceFile
  readonly issues: IssueList
  /** Null where the catalogue could not be read, so that nothing is known of models. */
  readonly known: { readonly catalogue: Catalogue; readonly names: CatalogueNames } | null
}

/** `routes.yaml`: names that choose among models of the catalogue. Entries with mistakes are left out; every mistake goes to `issues`. */
export function buildRoutes(
  source: SourceFile,
  value: unknown,
  known: Building['known'],
  issues: IssueList,
): ReadonlyMap<string, VirtualModel> {
  const top = parseShape(ROUTES, value, source, [], issues)
  const routes = new Map<string, VirtualModel>()
  const entries = Object.entries(top?.models ?? {})
  if (entries.length > MAX_ROUTES) issues.add(source, ['models'], `has ${entries.length} names`, `at most ${MAX_ROUTES}`)
  for (const [id, raw] of entries.slice(0, MAX_ROUTES)) {
    const at = ['models', id]
    parseShape(MODEL_ID, id, source, at, issues)
    refuseTaken(id, at, { source, issues, known })
    const entry = parseShape(ROUTE, raw, source, at, issues)
    if (entry === null) continue
    checkCandidates(entry, at, { source, issues, known })
    routes.set(id, virtualModel(id, entry))
  }
  return routes
}

function virtualModel(id: string, { domain, prefer, candidates, canary, max_price }: RouteEntry): VirtualModel {
  return {
    id,
    domain: domain ?? null,
    prefer,
    candidates: candidates.map(({ model, domain: serves, weight, quality }) => ({ model, domain: serves ?? null, weight, quality })),
    canary: canary ?? null,
    max_price_pico: { input: max_price?.input ?? null, output: max_price?.output ?? null },
  }
}

function refuseTaken(id: string, at: Path, { source, issues, known }: Building): void {
  const owner = known?.names.models.has(id) === true ? id : known?.names.aliases.get(id)
  if (owner !== undefined) issues.add(source, at, `"${id}" already names the model ${owner}`, 'a name that no model has')
}

function checkCandidates({ candidates, canary }: RouteEntry, at: Path, building: Building): void {
  const { source, issues } = building
  const seen = new Set<string>()
  for (const [index, { model }] of candidates.entries()) {
    const path = [...at, 'candidates', index, 'model']
    if (seen.has(model)) issues.add(source, path, `the model "${model}" is given twice`, 'each model once')
    seen.add(model)
    checkModel(model, path, building)
  }
  if (canary !== undefined && !seen.has(canary.model))
    issues.add(source, [...at, 'canary', 'model'], `"${canary.model}" is not a candidate`, expectedOneOf(canary.model, [...seen]))
}

function checkModel(model: string, path: Path, { source, issues, known }: Building): void {
  if (known === null) return
  const { names, catalogue } = known
  const alias_of = names.aliases.get(model)
  if (alias_of !== undefined) return issues.add(source, path, `"${model}" is an alias`, `the model's own id, ${alias_of}`)
  if (!names.models.has(model)) {
    const chat = [...catalogue.models.values()].filter(({ kind }) => kind === 'chat').map(({ id }) => id)
    return issues.add(source, path, `unknown model "${model}"`, expectedOneOf(model, chat))
  }
  const kind = catalogue.models.get(model)?.kind ?? 'chat'
  if (kind !== 'chat') issues.add(source, path, `"${model}" is of kind ${kind}`, 'a chat model: virtual models answer chats')
}
