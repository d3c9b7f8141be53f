import { WeirError } from '../base/errors.ts'
import { type Chance, chanceOf, conversationKey } from '../routing/draw.ts'
import { promptOf } from '../routing/prompt.ts'
import { reasonOf, shown } from '../routing/reason.ts'
import { nearestObstacle, type Obstacle } from '../routing/select.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import type { Caller } from './call.ts'
import { type Considered, consider, type Consideration, type VirtualFacts } from './consider.ts'
import { withProfile } from './profile.ts'
import { type MeasureChat, type MeasureFor, measuringFor, type Quote, quoteFor } from './quote.ts'
import type { ReadRequest, RequestFacts } from './request.ts'
import { chooseRoute, keyChance, type Route } from './route.ts'

/** A model with its endpoints, and what it takes to admit the request for it. */
export interface Plan {
  readonly route: Route
  /** The request as this model gets it: a profile adds to it. */
  readonly facts: RequestFacts
  readonly quote: Quote
}

/** Where a request goes, and where it goes when that fails. */
export interface Choice {
  readonly first: Plan
  /** Other models of a virtual one, in order. */
  readonly alternatives: readonly Plan[]
}

/** Models that may be tried after the first. */
const MAX_ALTERNATIVES = 3

/** What a choice depends on beside the request and its caller. */
export interface ChoiceFacts extends Omit<VirtualFacts, 'hint'> {
  /** Reads the caller's hint: only where there is something to choose. @throws WeirError `invalid_request` */
  readonly hint: () => string | null
}

/** The virtual model of this name, the tenant's own before the operator's; null for a plain model's name. */
export function virtualModel(name: string, { tenant, snapshot }: Pick<ChoiceFacts, 'tenant' | 'snapshot'>): VirtualModel | null {
  return tenant.models.get(name) ?? snapshot.configuration.routes.get(name) ?? null
}

/**
 * Chooses model and endpoints for a request, with a quote for each model that may be tried. Pure: what it depends on is passed in.
 *
 * @throws WeirError as `chooseRoute` and `quoteFor` do; for a virtual model that of the obstacle of the candidate that was nearest to serving
 */
export function choose(request: ReadRequest, caller: Caller, facts: ChoiceFacts): Choice {
  const virtual = virtualModel(request.facts.model_asked, facts)
  if (virtual === null) {
    const route = chooseRoute(request.facts.model_asked, request.facts.protocol, caller, facts)
    return { first: planFor(request, route, facts), alternatives: [] }
  }
  const measure = measuringFor(request)
  const consideration = considerVirtual(virtual, request, measure, caller, facts)
  const { ordered, lead, evidence } = consideration
  const plans = ordered.order.slice(0, 1 + MAX_ALTERNATIVES).flatMap((considered, index): Plan[] => {
    const { model, targets, id } = considered
    if (model === null) return []
    const reason = index === 0 ? reasonOf(lead, id, ordered.by) : lead
    return [planFor(request, { model, targets, domain: evidence.domain, chance: keyChance(targets, facts), reason }, facts, measure(model))]
  })
  const [first, ...alternatives] = plans
  if (first === undefined) throw nothingLeft(virtual, consideration, facts)
  return { first, alternatives }
}

/** @param measure of the request as this model gets it */
function planFor(request: ReadRequest, route: Route, { snapshot, now_ms }: ChoiceFacts, measure?: MeasureChat): Plan {
  const { prices, settings } = snapshot.configuration
  const { slice_tokens } = settings.limits
  const { profile } = route.model
  const asked = profile === null ? request : withProfile(request, profile)
  return { route, facts: asked.facts, quote: quoteFor(asked, route, prices, slice_tokens, now_ms, measure) }
}

/** Lets the memory of every body go: an answer flows, and nobody else is asked. */
export function forgetBodies({ first, alternatives }: Choice): void {
  for (const { facts } of [first, ...alternatives]) facts.body.forget()
}

/** Every candidate of a virtual model for this request. @throws WeirError `invalid_request` for a request that is no chat, or an unknown hint */
export function considerVirtual(
  virtual: VirtualModel,
  request: ReadRequest,
  measure: MeasureFor,
  caller: Caller,
  facts: ChoiceFacts,
): Consideration {
  if (request.facts.protocol !== 'chat_completions') {
    const detail = `${shown(virtual.id)} chooses among chat models; call /v1/chat/completions.`
    throw new WeirError('invalid_request', { values: { detail }, param: 'model' })
  }
  return consider(virtual, request, measure, caller, { ...facts, hint: facts.hint() })
}

/** A conversation's own chances; of a request that is none, its own. */
export function chanceFor({ facts, parsed }: ReadRequest, caller: Caller, request_id: string): Chance {
  if (facts.protocol !== 'chat_completions') return chanceOf(request_id)
  const { system, opening } = promptOf(parsed['messages'])
  return chanceOf(conversationKey(caller.tenant.id, system, opening))
}

/** What a caller is told when no candidate can serve: the obstacle that the nearest one met. */
export function nothingLeft(virtual: VirtualModel, { candidates, evidence }: Consideration, facts: ChoiceFacts): WeirError {
  const obstacle = nearestObstacle(candidates)
  const values = { model: shown(virtual.id) }
  switch (obstacle) {
    case null:
    case 'domain':
      return nothingFor(virtual, evidence.domain)
    case 'not_allowed':
      return new WeirError('model_not_allowed', { values, param: 'model' })
    case 'zone':
      return new WeirError('zone_not_allowed', { values, param: 'model' })
    case 'filing':
      return new WeirError('filing_required', { values, param: 'model', instead: onlySandbox(candidates) })
    case 'context_length':
      return tooLong(virtual, candidates)
    case 'unhealthy':
      return new WeirError('no_upstream_available', { values, retry_after_ms: retryAfter(candidates, facts) })
    case 'not_found':
    case 'no_price':
      if (candidates.some((candidate) => candidate.obstacle === 'domain')) return nothingFor(virtual, evidence.domain)
      return new WeirError('model_not_found', { values, param: 'model' })
    case 'price_ceiling':
      return new WeirError('no_upstream_available', { values })
    case 'tools':
    case 'json':
    case 'vision':
    case 'audio':
    case 'video':
    case 'file':
      return badRequest(`no model that ${values.model} may choose for this caller ${INABILITIES[obstacle]}.`, PARAMS[obstacle])
  }
}

type Inability = Extract<Obstacle, 'tools' | 'json' | 'vision' | 'audio' | 'video' | 'file'>
const INABILITIES: Readonly<Record<Inability, string>> = {
  tools: 'can call tools',
  json: 'has a JSON mode (response_format)',
  vision: 'reads images',
  audio: 'reads audio',
  video: 'reads video',
  file: 'reads files',
}
const PARAMS: Readonly<Record<Inability, string>> = {
  tools: 'tools',
  json: 'response_format',
  vision: 'messages',
  audio: 'messages',
  video: 'messages',
  file: 'messages',
}

/** Whether nobody but the sandbox is there for those that lack a filing. */
function onlySandbox(candidates: readonly Considered[]): boolean {
  const unfiled = candidates.filter(({ obstacle }) => obstacle === 'filing').flatMap(({ model }) => model?.endpoints ?? [])
  return unfiled.every(({ sandbox }) => sandbox)
}

function nothingFor({ id }: VirtualModel, domain: string): WeirError {
  return badRequest(`${shown(id)} has no model for ${shown(domain)} requests; name a model or another domain.`, 'model')
}

function badRequest(detail: string, param: string): WeirError {
  return new WeirError('invalid_request', { values: { detail }, param })
}

/** The longest context that there is. */
function tooLong(virtual: VirtualModel, candidates: readonly Considered[]): WeirError {
  const met = candidates.filter(({ obstacle }) => obstacle === 'context_length')
  const limit = Math.max(...met.map(({ model }) => model?.context_tokens ?? 0))
  const estimate = Math.max(...met.map(({ prompt_tokens }) => prompt_tokens ?? 0))
  return new WeirError('context_length_exceeded', { values: { estimate, limit, model: shown(virtual.id) }, param: 'messages' })
}

function retryAfter(candidates: readonly Considered[], { retryInMs }: ChoiceFacts): number {
  const waiting = candidates.filter(({ obstacle }) => obstacle === 'unhealthy').flatMap(({ reachable }) => reachable)
  return Math.max(1, Math.min(...waiting.map(({ id }) => retryInMs(id))))
}
