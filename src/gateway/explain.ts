import { errorBody } from '../base/errors.ts'
import { cnyFromNano } from '../money/amount.ts'
import { reasonOf, twoDigits } from '../routing/reason.ts'
import type { Obstacle } from '../routing/select.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import type { Call, Caller } from './call.ts'
import { choiceFacts } from './choice-facts.ts'
import { choose, type ChoiceFacts, considerVirtual, nothingLeft, virtualModel } from './choose.ts'
import type { Considered, Consideration } from './consider.ts'
import type { Plane } from './plane.ts'
import { measuringFor } from './quote.ts'
import { readFacts, type ReadRequest } from './request.ts'

/**
 * `POST /v1/route`: where a chat with this body would go now, and why. Calls nobody, holds nothing. Where no candidate of a virtual model
 * can serve, `model` is null and `error` is what a call would be told.
 *
 * @throws WeirError as a call is refused: for its body, its hint, or a plain model that cannot serve
 */
export async function explainRoute(call: Call, caller: Caller, plane: Plane): Promise<object> {
  const snapshot = plane.snapshot()
  const { max_body_bytes, max_json_depth } = snapshot.configuration.settings.limits
  const request = readFacts('chat_completions', await call.readBody(max_body_bytes), max_json_depth)
  call.asksFor(request.facts)
  const facts = choiceFacts(call, request, caller, snapshot, plane)
  const virtual = virtualModel(request.facts.model_asked, facts)
  if (virtual === null) return explainPlain(request, caller, facts)
  const consideration = considerVirtual(virtual, request, measuringFor(request), caller, facts)
  return explainVirtual(virtual, consideration, call, facts)
}

function explainPlain(request: ReadRequest, caller: Caller, facts: ChoiceFacts): object {
  const { route } = choose(request, caller, facts).first
  const { model, targets, domain, reason } = route
  return {
    object: 'route',
    model_asked: request.facts.model_asked,
    model: model.id,
    domain,
    confidence: 1,
    by: 'model',
    keyword: null,
    route: reason,
    candidates: [{ model: model.id, domain, order: 1, obstacle: null, endpoints: targets.map(({ id }) => id) }],
    reasons: [reason],
  }
}

function explainVirtual(virtual: VirtualModel, consideration: Consideration, call: Call, facts: ChoiceFacts): object {
  const { evidence, ordered, lead, candidates } = consideration
  const { domain, confidence, by, keyword, guess } = evidence
  const [first] = ordered.order
  const refusal = first === undefined ? nothingLeft(virtual, consideration, facts) : null
  return {
    object: 'route',
    model_asked: virtual.id,
    model: first?.id ?? null,
    domain,
    confidence: rounded(confidence),
    by,
    keyword,
    ...(guess === null ? {} : { scores: Object.fromEntries(Object.entries(guess.scores).map(([name, score]) => [name, rounded(score)])) }),
    route: first === undefined ? lead : reasonOf(lead, first.id, ordered.by),
    candidates: candidates.filter(isShown).map((candidate) => candidateView(candidate, ordered.order)),
    reasons: reasonsOf(virtual, consideration),
    ...(refusal === null ? {} : errorBody(refusal, call.locale, call.id)),
  }
}

/** To four digits: more would say nothing. */
function rounded(confidence: number): number {
  return Math.round(confidence * 10_000) / 10_000
}

/** Models that `GET /v1/models` would not show are not shown here. */
const HIDDEN: ReadonlySet<Obstacle | null> = new Set<Obstacle>(['not_found', 'not_allowed'])

function isShown({ obstacle }: Considered): boolean {
  return !HIDDEN.has(obstacle)
}

function candidateView(candidate: Considered, order: readonly Considered[]): object {
  const { id, domain, obstacle, tight, weight, quality, price_nano, latency_ms, targets } = candidate
  const place = order.indexOf(candidate)
  return {
    model: id,
    domain,
    order: place < 0 ? null : place + 1,
    obstacle,
    ...(tight ? { tight_context: true } : {}),
    weight,
    quality,
    price_cny: price_nano === null ? null : cnyFromNano(price_nano),
    latency_ms: latency_ms === null ? null : Math.round(latency_ms),
    endpoints: targets.map(({ id: endpoint }) => endpoint),
  }
}

const EVIDENCE = {
  name: 'the name that was called',
  hint: "the caller's hint",
  rule: "a keyword of the tenant's rules",
  sample: "a sample of the tenant's",
  classifier: 'the classifier',
  opening: "the classifier, from the conversation's opening",
} as const

function reasonsOf({ prefer, canary }: VirtualModel, { evidence, needs, candidates, ordered, lacking }: Consideration): readonly string[] {
  const { domain, confidence, by, keyword } = evidence
  const [first] = ordered.order
  return [
    `The domain is ${domain} (${twoDigits(confidence)}), by ${EVIDENCE[by]}${keyword === null ? '' : `: ${keyword}`}.`,
    ...(lacking === null ? [] : [`${lacking}.`]),
    ...(needs.length === 0 ? [] : [`The request needs ${needs.join(', ')}.`]),
    `Among models that can serve, ${prefer === 'balanced' ? 'weights decide' : `${prefer} decides`}; a conversation stays with its model.`,
    ...(canary !== null && candidates.some((one) => one.id === canary.model && isShown(one))
      ? [`${canary.percent} % of the conversations go to ${canary.model} first.`]
      : []),
    ...candidates.flatMap((one) =>
      one.obstacle === null || !isShown(one) ? [] : [`${one.id} cannot serve: ${OBSTACLE_WORDS[one.obstacle]}.`],
    ),
    first === undefined ? 'No model is left.' : `${first.id} is first (${ordered.by}).`,
  ]
}

const OBSTACLE_WORDS: Readonly<Record<Obstacle, string>> = {
  domain: 'it is for another domain',
  not_found: 'it is not served here',
  no_price: 'it has no price',
  not_allowed: 'the key may not use it',
  zone: 'it is served from zones that the key may not use',
  filing: 'it has no filing that is in the registry, and the tenant serves the public',
  price_ceiling: 'it is dearer than the ceiling',
  tools: 'it calls no tools, as far as the catalogue knows',
  json: 'it has no JSON mode, as far as the catalogue knows',
  vision: 'it reads no images, as far as the catalogue knows',
  audio: 'it reads no audio, as far as the catalogue knows',
  video: 'it reads no video, as far as the catalogue knows',
  file: 'it reads no files, as far as the catalogue knows',
  context_length: 'the prompt is too long for it',
  unhealthy: 'its endpoints are failing or ask to be left alone',
}
