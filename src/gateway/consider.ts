import type { Endpoint, Model } from '../config/model.ts'
import { charge, priceAt, type PriceVersion } from '../money/price.ts'
import { NO_CALLS, NO_TOKENS } from '../money/usage.ts'
import { allowsModel, allowsZone, endpointsFor, isVisibleTo, mayServeAudience } from '../routing/access.ts'
import { chanceOf, conversationKey } from '../routing/draw.ts'
import type { DomainClassifier } from '../routing/domain.ts'
import { decideDomain, type DomainEvidence } from '../routing/evidence.ts'
import { lifeOf } from '../routing/lives.ts'
import { needsOf, unmetNeed, type Need } from '../routing/needs.ts'
import { promptOf } from '../routing/prompt.ts'
import { lackingOf, leadOf } from '../routing/reason.ts'
import { orderCandidates, type Candidate, type Obstacle, type Ordered } from '../routing/select.ts'
import type { RouteCandidate, VirtualModel } from '../routing/virtual.ts'
import type { Caller } from './call.ts'
import { showingMember } from './profile.ts'
import { chatTokens, isTooLong, type MeasureFor, tokenizerOf } from './quote.ts'
import type { ReadRequest } from './request.ts'
import { orderTargets, type RouteFacts } from './route.ts'
import type { TenantRouting } from '../routing/tenant.ts'

/** What choosing among models takes beside what a plain model does. */
export interface VirtualFacts extends RouteFacts {
  readonly tenant: TenantRouting
  readonly classifier: DomainClassifier
  /** The caller's own word, already known to be a domain; null where there is none. */
  readonly hint: string | null
  /** Time to an endpoint's first event in ms, as seen lately; null where it was not. */
  readonly latencyMs: (endpoint: string) => number | null
  readonly now_ms: number
}

/** A candidate as it stands for one request. */
export interface Considered extends Candidate {
  readonly model: Model | null
  /** Of the request, by estimate; null where it was not looked at. */
  readonly prompt_tokens: number | null
  /** Endpoints that this caller's requests may go to, healthy or not. */
  readonly reachable: readonly Endpoint[]
  /** The healthy ones in the order in which they are tried. */
  readonly targets: readonly Endpoint[]
}

/** Everything that a virtual model's choice was made of. */
export interface Consideration {
  readonly evidence: DomainEvidence
  readonly needs: readonly Need[]
  readonly candidates: readonly Considered[]
  readonly ordered: Ordered<Considered>
  /** Why a model of the domain was not chosen; null where one was. */
  readonly lacking: string | null
  /** The beginning of `x-weir-route`. */
  readonly lead: string
}

/** Looks at every candidate of a virtual model for one request. Pure. */
export function consider(
  virtual: VirtualModel,
  request: ReadRequest,
  measure: MeasureFor,
  caller: Caller,
  facts: VirtualFacts,
): Consideration {
  const { parsed } = request
  const prompt = promptOf(parsed['messages'])
  const { tenant, classifier, hint } = facts
  const evidence = decideDomain(prompt, { fixed: virtual.domain, hint, tenant: tenant.evidence, classifier })
  const key = chanceOf(conversationKey(caller.tenant.id, prompt.system, prompt.opening))
  const needs = needsOf(parsed)
  const looking: Looking = { virtual, request, measure, caller, domain: evidence.domain, needs, facts: { ...facts, chance: () => key } }
  const candidates = virtual.candidates.map((candidate) => standingOf(candidate, looking))
  const ordered = orderCandidates(candidates, evidence.domain, virtual, key)
  const lacking = lackingOf(evidence.domain, candidates, ordered.order[0] ?? null)
  return { evidence, needs, candidates, ordered, lacking, lead: leadOf(virtual.id, evidence, lacking) }
}

interface Looking {
  readonly virtual: VirtualModel
  readonly request: ReadRequest
  readonly measure: MeasureFor
  readonly caller: Caller
  readonly domain: string
  readonly needs: readonly Need[]
  readonly facts: VirtualFacts
}

function standingOf(candidate: RouteCandidate, looking: Looking): Considered {
  const { facts, domain: asked } = looking
  const { catalogue, prices } = facts.snapshot.configuration
  const model = catalogue.models.get(candidate.model) ?? null
  const domain = candidate.domain ?? model?.domain ?? 'general'
  const known = { id: candidate.model, model, domain, weight: candidate.weight, quality: candidate.quality }
  const nothing = { tight: false, prompt_tokens: null, price_nano: null, latency_ms: null, reachable: [], targets: [] }
  // First of all: of a model that does not exist for its caller nothing else is to be said.
  if (model === null || !isVisibleTo(looking.caller.tenant.id, model) || lifeOf(model, facts.now_ms) === 'retired')
    return { ...known, ...nothing, obstacle: 'not_found' }
  if (domain !== asked && domain !== 'general') return { ...known, ...nothing, obstacle: 'domain' }
  const price = priceAt(prices.sell.get(candidate.model) ?? [], facts.now_ms)
  if (price === null) return { ...known, ...nothing, obstacle: 'no_price' }
  const reachable = reachOf(model, looking)
  if (typeof reachable === 'string') return { ...known, ...nothing, obstacle: reachable }
  return { ...known, ...fitOf(model, price, reachable, looking) }
}

/** The endpoints that this caller's requests may go to, healthy or not; or what is in the way. */
function reachOf(model: Model, { virtual, caller, request }: Looking): readonly Endpoint[] | Obstacle {
  const { id, profile } = model
  const endpoints = endpointsFor(caller.tenant.id, model)
  if (endpoints.length === 0) return 'not_found'
  if (profile !== null && showingMember(request.parsed) !== null) return 'not_allowed'
  if (!allowsModel(caller, id, virtual.id)) return 'not_allowed'
  const zoned = endpoints.filter((endpoint) => allowsZone(caller, endpoint))
  if (zoned.length === 0) return 'zone'
  const filed = zoned.filter((endpoint) => mayServeAudience(caller, endpoint))
  return filed.length === 0 ? 'filing' : filed
}

function fitOf(
  model: Model,
  price: PriceVersion,
  reachable: readonly Endpoint[],
  looking: Looking,
): Omit<Considered, 'id' | 'model' | 'domain' | 'weight' | 'quality'> {
  const { virtual, needs, facts, measure, request } = looking
  const prompt_tokens = chatTokens(model, tokenizerOf({ model, targets: reachable }), measure(model))
  const healthy = reachable.filter(({ id }) => facts.mayTry(id))
  const targets = orderTargets(healthy, facts.chance)
  const [first] = targets
  const obstacle = (): Obstacle | null => {
    if (isDearer(price, virtual.max_price_pico)) return 'price_ceiling'
    const unmet = unmetNeed(needs, model.capabilities)
    if (unmet !== null) return unmet
    if (isTooLong(prompt_tokens, model)) return 'context_length'
    return first === undefined ? 'unhealthy' : null
  }
  return {
    obstacle: obstacle(),
    prompt_tokens,
    reachable,
    tight: prompt_tokens + expectedOutput(request) > model.context_tokens,
    price_nano: priceOf(price, prompt_tokens, looking),
    latency_ms: first === undefined ? null : facts.latencyMs(first.id),
    targets,
  }
}

/** Whether any rule of a price is above a ceiling: which one applies is known only after the answer. */
export function isDearer({ rules }: PriceVersion, { input, output }: VirtualModel['max_price_pico']): boolean {
  return rules.some(({ tokens }) => (input !== null && tokens.input > input) || (output !== null && tokens.output > output))
}

/** Output that an answer is expected to have when prices are compared: most answers are shorter than what their caller allows. */
export const EXPECTED_OUTPUT_TOKENS = 1000

function expectedOutput({ facts }: ReadRequest): number {
  return Math.min(facts.max_tokens ?? EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
}

/** What the request would cost with an answer of the expected length, by the rule that holds now. */
function priceOf(price: PriceVersion, prompt_tokens: number, { request, facts }: Looking): bigint {
  const usage = { ...NO_TOKENS, input: prompt_tokens, output: expectedOutput(request) * request.facts.n }
  const when = { admitted_at: facts.now_ms, thinking: request.facts.thinking }
  return charge(price, usage, NO_CALLS, when, facts.snapshot.configuration.prices.calendar).amount_nano
}
