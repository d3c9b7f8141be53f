import * as z from 'zod'
import { WeirError } from '../base/errors.ts'
import type { Model } from '../config/model.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { UsageEvent } from '../money/event.ts'
import type { EventQuery } from '../storage/ports.ts'
import type { Caller } from './call.ts'
import type { Plane } from './plane.ts'
import { isVisible } from './route.ts'

/** Answers of the read-only endpoints: plain JSON values. Every one sees its caller's tenant only. */

/** `GET /v1/models`: what this key can call, a chat model first. A model that it may call by an alias alone has the alias for its id. */
export function listModels(caller: Caller, plane: Plane): object {
  const { callable, configuration } = plane.snapshot()
  const names = (model: Model): readonly string[] => {
    if (isVisible(caller, model, model.id)) return [model.id]
    const allowed = new Set(caller.key.models)
    return [...allowed].filter((name) => configuration.catalogue.aliases.get(name) === model.id && isVisible(caller, model, name))
  }
  return { object: 'list', data: callable.flatMap((model) => names(model).map((id) => ({ ...modelView(model), id }))) }
}

/** `GET /v1/models/{id}` @throws WeirError `model_not_found` */
export function findModel(id: string, caller: Caller, plane: Plane): object {
  const { catalogue } = plane.snapshot().configuration
  const model = catalogue.models.get(catalogue.aliases.get(id) ?? id)
  if (model === undefined || !isVisible(caller, model, id))
    throw new WeirError('model_not_found', { values: { model: 'asked for' }, param: 'model' })
  return { ...modelView(model), id }
}

function modelView(model: Model): object {
  const filing = model.endpoints.find((endpoint) => endpoint.filing !== null && !endpoint.sandbox)?.filing?.number
  return {
    id: model.id,
    object: 'model',
    created: model.created,
    owned_by: model.owned_by,
    kind: model.kind,
    domain: model.domain,
    context_tokens: model.context_tokens,
    max_output_tokens: model.max_output_tokens,
    capabilities: model.capabilities,
    ...(filing === undefined ? {} : { filing }),
  }
}

/** `GET /v1/usage/{request_id}` @throws WeirError `not_found`, also for another tenant's request */
export async function findUsage(id: string, caller: Caller, plane: Plane): Promise<object> {
  await plane.ledger.post()
  const event = await plane.ledger.event(id)
  if (event !== null && event.tenant === caller.tenant.id) return eventView(event)
  const refusal = plane.refusals.find(id)
  if (refusal !== null && refusal.tenant === caller.tenant.id) {
    const { code, message, model_asked, at_ms } = refusal
    return {
      object: 'usage.refusal',
      id,
      refused: true,
      code,
      message,
      model_asked,
      refused_at: new Date(at_ms).toISOString(),
      amount_cny: '0',
    }
  }
  throw new WeirError('not_found', { values: { path: `/v1/usage/${id.replaceAll(/[^\w-]/g, '?').slice(0, 64)}` } })
}

const Query = z.strictObject({
  from: z.iso.datetime({ offset: true }).optional(),
  to: z.iso.datetime({ offset: true }).optional(),
  project: z.string().max(64).optional(),
  key: z.string().max(64).optional(),
  model: z.string().max(256).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(256).optional(),
})

/** `GET /v1/usage`: totals and a page of events of the caller's tenant. Without `from`, the last 24 hours. */
export async function listUsage(parameters: Record<string, string>, caller: Caller, plane: Plane): Promise<object> {
  const parsed = Query.safeParse(parameters)
  if (!parsed.success) {
    const detail = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'query'}: ${issue.message}`).join('; ')
    throw new WeirError('invalid_request', { values: { detail: `${detail}.` } })
  }
  const { from, to, limit, cursor, ...filters } = parsed.data
  const from_ms = from === undefined ? plane.clock.now_ms() - 86_400_000 : Date.parse(from)
  const range = { ...(to === undefined ? {} : { to_ms: Date.parse(to) }), from_ms, ...withoutUndefined(filters), tenant: caller.tenant.id }
  const query: EventQuery = { ...range, limit, ...(cursor === undefined ? {} : { cursor }) }
  await plane.ledger.post()
  const [totals, page] = [await plane.ledger.totals(range), await plane.ledger.events(query)]
  return {
    object: 'usage',
    from: new Date(from_ms).toISOString(),
    totals: totals.map(({ amount_nano, cost_nano: _, ...row }) => ({ ...row, amount_cny: cnyFromNano(amount_nano) })),
    events: page.events.map(eventView),
    next_cursor: page.next_cursor,
  }
}

function withoutUndefined(filters: { project?: string | undefined; key?: string | undefined; model?: string | undefined }): {
  project?: string
  key?: string
  model?: string
} {
  return Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== undefined))
}

/** `GET /v1/balance` */
export async function balanceView(caller: Caller, plane: Plane): Promise<object> {
  const balance = await plane.limits.balance(caller.tenant.id)
  return {
    object: 'balance',
    available_cny: cnyFromNano(balance.available_nano),
    held_cny: cnyFromNano(balance.held_nano),
    open_requests: balance.open_holds,
    grants: balance.grants.map(({ id, unit, priority, expires_at, balance: left, held }) => ({
      id,
      unit,
      priority,
      expires_at: expires_at === null ? null : new Date(expires_at).toISOString(),
      balance: unit === 'nano_cny' ? cnyFromNano(left) : String(left),
      held: unit === 'nano_cny' ? cnyFromNano(held) : String(held),
    })),
  }
}

/** An event as its tenant sees it: amounts in CNY, without the supplier's cost. */
function eventView(event: UsageEvent): object {
  const { admitted_at, ended_at, amount_nano, overrun_nano, cost_nano: _, hold, parts, attempts, node: __, seq: ___, ...rest } = event
  return {
    object: 'usage.event',
    ...rest,
    refused: false,
    admitted_at: new Date(admitted_at).toISOString(),
    ended_at: new Date(ended_at).toISOString(),
    amount_cny: cnyFromNano(amount_nano),
    overrun_cny: cnyFromNano(overrun_nano),
    held_cny: cnyFromNano(hold.amount_nano),
    paid_by: parts.map(({ grant, unit, amount }) => ({ grant, unit, amount: unit === 'nano_cny' ? cnyFromNano(amount) : String(amount) })),
    attempts: attempts.map(({ endpoint, outcome, http_status, duration_ms }) => ({ endpoint, outcome, http_status, duration_ms })),
  }
}
