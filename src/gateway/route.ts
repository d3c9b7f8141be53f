import { WeirError } from '../base/errors.ts'
import type { Endpoint, Model } from '../config/model.ts'
import { allowsModel, allowsZone, endpointsFor, isVisibleTo, mayServeAudience } from '../routing/access.ts'
import { type Chance, drawOrder } from '../routing/draw.ts'
import { lifeOf, successorOf } from '../routing/lives.ts'
import { shown } from '../routing/reason.ts'
import type { Caller, Protocol } from './call.ts'
import type { Snapshot } from './snapshot.ts'

/** Where a request may go: one model, its endpoints in the order in which they are tried. */
export interface Route {
  readonly model: Model
  readonly targets: readonly Endpoint[]
  /** What the request is about: what a virtual model found, else the model's own. */
  readonly domain: string
  /** Chances of the conversation, where some target has several keys to draw from; else null. */
  readonly chance: Chance | null
  /** Why this model, in one line, for `x-weir-route`. */
  readonly reason: string
}

/** What routing asks of the rest of the gateway. */
export interface RouteFacts {
  readonly snapshot: Snapshot
  /** False while a breaker holds the endpoint back. */
  readonly mayTry: (endpoint: string) => boolean
  /** Milliseconds until a breaker lets the endpoint be tried again. */
  readonly retryInMs: (endpoint: string) => number
  readonly now_ms: number
  /** Chances that stay the same from turn to turn of a conversation. Asked for only where there is something to draw. */
  readonly chance: () => Chance
}

/**
 * Chooses the model and orders its endpoints: tiers in order, weights within a tier.
 *
 * @throws WeirError `model_not_found`, `model_not_allowed`, `filing_required`, `zone_not_allowed`, `no_upstream_available`
 */
export function chooseRoute(model_asked: string, protocol: Protocol, caller: Caller, facts: RouteFacts): Route {
  const { catalogue } = facts.snapshot.configuration
  const alias = catalogue.aliases.get(model_asked)
  const model = catalogue.models.get(alias ?? model_asked)
  const values = { model: shown(model_asked, MOST_NAME) }
  const endpoints = model === undefined ? [] : endpointsFor(caller.tenant.id, model)
  refuseRetired(model, model_asked, caller, facts)
  if (model === undefined || endpoints.length === 0) throw new WeirError('model_not_found', { values, param: 'model' })
  if (!allowsModel(caller, model.id, model_asked)) throw new WeirError('model_not_allowed', { values, param: 'model' })
  if (!servesProtocol(model, protocol)) throw wrongKind(model, protocol)
  const zoned = endpoints.filter((endpoint) => allowsZone(caller, endpoint))
  if (zoned.length === 0) throw new WeirError('zone_not_allowed', { values, param: 'model' })
  const filed = zoned.filter((endpoint) => mayServeAudience(caller, endpoint))
  if (filed.length === 0) throw new WeirError('filing_required', { values, param: 'model', instead: zoned.every(({ sandbox }) => sandbox) })
  const healthy = filed.filter((endpoint) => facts.mayTry(endpoint.id))
  if (healthy.length === 0) {
    const retry_after_ms = Math.max(1, Math.min(...filed.map((endpoint) => facts.retryInMs(endpoint.id))))
    throw new WeirError('no_upstream_available', { values, retry_after_ms })
  }
  const reason = alias === undefined ? `asked for ${model.id}` : `alias ${shown(model_asked, MOST_NAME)} of ${model.id}`
  return { model, targets: orderTargets(healthy, facts.chance), domain: model.domain, chance: keyChance(healthy, facts), reason }
}

/** The same conversation draws the same key of a pool, so that an account's prompt cache goes on paying. */
export function keyChance(targets: readonly Endpoint[], { chance }: Pick<RouteFacts, 'chance'>): Chance | null {
  return targets.some(({ key_pool }) => key_pool !== null) ? chance() : null
}

/** @throws WeirError `model_not_found`, which names what to use instead, for a model that this tenant has known and that is no more */
export function refuseRetired(
  model: Model | undefined,
  model_asked: string,
  { tenant }: Pick<Caller, 'tenant'>,
  { snapshot, now_ms }: Pick<RouteFacts, 'snapshot' | 'now_ms'>,
): void {
  if (model === undefined || lifeOf(model, now_ms) !== 'retired' || !isVisibleTo(tenant.id, model)) return
  const next = successorOf(model, snapshot.configuration.catalogue, tenant.id, now_ms)
  const values = {
    model: shown(model_asked, MOST_NAME),
    successor: next === null ? 'GET /v1/models lists what this key can call.' : `Use ${next.id} instead.`,
    successor_zh: next === null ? '请通过 GET /v1/models 查看可用模型。' : `请改用 ${next.id}。`,
  }
  throw new WeirError('model_not_found', { values, param: 'model', instead: true })
}

/** True if the caller could call this model at all by this name, its id or an alias: for `GET /v1/models`. */
export function isVisible(caller: Caller, model: Model, name: string): boolean {
  if (!allowsModel(caller, model.id, name)) return false
  return reachableEndpoints(caller, model).length > 0
}

/** The endpoints of a model that requests of this caller may go to, while they are healthy. */
export function reachableEndpoints(caller: Caller, model: Model): readonly Endpoint[] {
  return endpointsFor(caller.tenant.id, model).filter((endpoint) => allowsZone(caller, endpoint) && mayServeAudience(caller, endpoint))
}

/**
 * Tiers ascending; within a tier a draw by weight that comes out the same for the same conversation, so that it stays where its prompt is
 * cached. An endpoint of weight 0 comes last in its tier.
 */
export function orderTargets(endpoints: readonly Endpoint[], chance: () => Chance): readonly Endpoint[] {
  if (endpoints.length <= 1) return endpoints
  return drawOrder(endpoints, chance()).toSorted((a, b) => a.tier - b.tier)
}

/** As long as a name may be. */
export const MOST_NAME = 128
const KINDS: Readonly<Record<Protocol, Model['kind']>> = { chat_completions: 'chat', embeddings: 'embeddings', rerank: 'rerank' }
const CALLED: Readonly<Record<Model['kind'], { readonly name: string; readonly path: string }>> = {
  chat: { name: 'a chat', path: '/v1/chat/completions' },
  embeddings: { name: 'an embeddings', path: '/v1/embeddings' },
  rerank: { name: 'a rerank', path: '/v1/rerank' },
}

function servesProtocol(model: Model, protocol: Protocol): boolean {
  return model.kind === KINDS[protocol]
}

function wrongKind(model: Model, protocol: Protocol): WeirError {
  const { name, path } = CALLED[model.kind]
  const detail = `${model.id} is ${name} model, and cannot serve ${protocol}; call ${path}.`
  return new WeirError('invalid_request', { values: { detail }, param: 'model' })
}
