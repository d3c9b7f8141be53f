import * as z from 'zod'
import { dayOf } from '../base/clock.ts'
import { WeirError } from '../base/errors.ts'
import { madeAt } from '../base/ids.ts'
import type { Model } from '../config/model.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { UsageEvent } from '../money/event.ts'
import { ReportProblem, readReport, readTag } from '../money/report.ts'
import { timeZoneOf } from '../money/window.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import { BadCursor, MAX_PERIODS, type Period, type UsageFilter, type UsageRow } from '../storage/ports.ts'
import { grantDeltas } from '../storage/accounts.ts'
import { amountText, balanceGrants, reversalId, unitName } from '../storage/grants.ts'
import { everyRuleOf, viewLimit } from '../storage/rules.ts'
import { type EndpointFiling, shownFiling } from '../routing/filings.ts'
import type { Caller } from './call.ts'
import type { Plane } from './plane.ts'
import { lifeOf, successorOf } from '../routing/lives.ts'
import { shown } from '../routing/reason.ts'
import { isVisible, MOST_NAME, reachableEndpoints, refuseRetired } from './route.ts'
import { tenantRoutingOf } from './tenant-routing.ts'

/** Answers of the read-only endpoints: plain JSON values. Every one sees its caller's tenant only. */

/**
 * `GET /v1/models`: what this key can call, a chat model first, virtual models last; retired ones are left out. A model that it may call by an
 * alias alone has the alias for its id.
 */
export function listModels(caller: Caller, plane: Plane): object {
  const { callable, configuration } = plane.snapshot()
  const now_ms = plane.clock.now_ms()
  const alive = callable.filter((model) => lifeOf(model, now_ms) !== 'retired')
  const names = (model: Model): readonly string[] => {
    if (isVisible(caller, model, model.id)) return [model.id]
    const allowed = new Set(caller.key.models)
    return [...allowed].filter((name) => configuration.catalogue.aliases.get(name) === model.id && isVisible(caller, model, name))
  }
  const plain = alive.flatMap((model) => names(model).map((id) => ({ ...modelView(model, caller, plane), id })))
  const own = tenantRoutingOf(caller).models
  const virtual = [...own.values(), ...[...configuration.routes.values()].filter(({ id }) => !own.has(id))]
  return { object: 'list', data: [...plain, ...virtual.flatMap((model) => virtualView(model, caller, plane) ?? [])] }
}

/** `GET /v1/models/{id}` @throws WeirError `model_not_found` */
export function findModel(id: string, caller: Caller, plane: Plane): object {
  const snapshot = plane.snapshot()
  const { catalogue, routes } = snapshot.configuration
  const virtual = tenantRoutingOf(caller).models.get(id) ?? routes.get(id)
  const view = virtual === undefined ? null : virtualView(virtual, caller, plane)
  if (view !== null) return view
  const model = catalogue.models.get(catalogue.aliases.get(id) ?? id)
  refuseRetired(model, id, caller, { snapshot, now_ms: plane.clock.now_ms() })
  if (model === undefined || !isVisible(caller, model, id))
    throw new WeirError('model_not_found', { values: { model: shown(id, MOST_NAME) }, param: 'model' })
  return { ...modelView(model, caller, plane), id }
}

/** A virtual model with what its candidates can do for this caller, each by itself; null where none of them can be called. */
function virtualView({ id, domain, prefer, candidates }: VirtualModel, caller: Caller, plane: Plane): object | null {
  const { catalogue } = plane.snapshot().configuration
  const now_ms = plane.clock.now_ms()
  const models = candidates.flatMap((candidate) => {
    const model = catalogue.models.get(candidate.model)
    return model !== undefined && lifeOf(model, now_ms) !== 'retired' && isVisible(caller, model, id) ? [model] : []
  })
  if (models.length === 0) return null
  return {
    id,
    object: 'model',
    created: Math.max(...models.map(({ created }) => created)),
    owned_by: 'weir',
    kind: 'chat',
    virtual: true,
    domain,
    prefer,
    context_tokens: Math.max(...models.map(({ context_tokens }) => context_tokens)),
    capabilities: [...new Set(models.flatMap(({ capabilities }) => capabilities))],
    candidates: models.map((model) => model.id),
  }
}

function modelView(model: Model, caller: Caller, plane: Plane): object {
  const [filing = null] = reachableEndpoints(caller, model).flatMap((endpoint) => shownFiling(endpoint) ?? [])
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
    ...(model.profile === null ? {} : { profile_of: model.profile.of }),
    ...lifeView(model, caller, plane),
    ...(filing === null ? {} : filingView(filing)),
  }
}

/** What an application must show of the model that it uses (备案公示). */
function filingView({ number, registration, row }: EndpointFiling): object {
  return {
    filing: number,
    ...(registration === null ? {} : { registration }),
    ...(row === null || row.entity === '' ? {} : { filing_entity: row.entity }),
  }
}

function lifeView(model: Model, caller: Caller, plane: Plane): object {
  const { deprecated_at, retires_at } = model
  const now_ms = plane.clock.now_ms()
  const successor = successorOf(model, plane.snapshot().configuration.catalogue, caller.tenant.id, now_ms)
  return {
    life: lifeOf(model, now_ms),
    ...(deprecated_at === null ? {} : { deprecated_on: dayOf(deprecated_at) }),
    ...(retires_at === null ? {} : { retires_on: dayOf(retires_at) }),
    ...(successor === null ? {} : { replaced_by: successor.id }),
  }
}

/** `GET /v1/usage/{request_id}` @throws WeirError `not_found`, also for another tenant's request */
export async function findUsage(id: string, caller: Caller, plane: Plane): Promise<object> {
  await plane.ledger.post()
  const event = await plane.ledger.event(id)
  if (event !== null && event.tenant === caller.tenant.id) return { ...eventView(event), ...(await reversalOf(event, plane)) }
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
  const path = `/v1/usage/${id.replaceAll(/[^\w-]/g, '?').slice(0, 64)}`
  const at_ms = madeAt(id)
  const [day] = at_ms === null ? [] : await plane.ledger.archivedDays({ from_ms: at_ms, to_ms: at_ms + 1 })
  throw new WeirError('not_found', { values: { path: day === undefined ? path : `${path} (events of ${day} are archived, 已归档)` } })
}

const DAY_MS = 86_400_000
/** No request is later than this. */
const END_OF_TIME_MS = 8_640_000_000_000_000
const MAX_TOTALS = 1000
const DIMENSIONS = ['project', 'key', 'model', 'endpoint', 'end_user']
const Query = z.strictObject({
  from: z.iso.datetime({ offset: true }).optional(),
  to: z.iso.datetime({ offset: true }).optional(),
  tz: z.string().max(64).optional(),
  project: z.string().max(64).optional(),
  key: z.string().max(64).optional(),
  model: z.string().max(256).optional(),
  endpoint: z.string().max(256).optional(),
  end_user: z.string().max(128).optional(),
  tag: z.string().max(256).optional(),
  group: z.string().max(256).default('project,key,model'),
  bucket: z.string().max(16).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(256).optional(),
  totals_cursor: z.string().max(4096).optional(),
})

/**
 * `GET /v1/usage`: sums and a page of events of the caller's tenant. Without `from`, the last 24 hours. Sums are split by up to three
 * dimensions (`group`) and by buckets of local time; by tag or end user they leave out requests without one.
 *
 * @throws WeirError `invalid_request`
 */
export async function listUsage(parameters: Record<string, string>, caller: Caller, plane: Plane): Promise<object> {
  const parsed = Query.safeParse(parameters)
  if (!parsed.success) {
    throw notMeant(parsed.error.issues.map((issue) => `${issue.path.join('.') || 'query'}: ${issue.message}`).join('; '))
  }
  try {
    return await usageOf(parsed.data, caller, plane)
  } catch (error) {
    if (error instanceof ReportProblem) throw notMeant(error.message)
    if (error instanceof BadCursor) throw notMeant('cursor: give back what next_cursor was, with the same question')
    throw error
  }
}

function notMeant(detail: string): WeirError {
  return new WeirError('invalid_request', { values: { detail: `${detail}.` } })
}

async function usageOf(question: z.infer<typeof Query>, caller: Caller, plane: Plane): Promise<object> {
  const { from, to, limit, cursor, totals_cursor, group, bucket, tag, tz = caller.tenant.time_zone, ...names } = question
  const time_zone = timeZoneOf(tz)
  if (time_zone === null) throw new ReportProblem('tz', 'tz: write an IANA name such as Asia/Shanghai')
  const now_ms = plane.clock.now_ms()
  const from_ms = from === undefined ? now_ms - DAY_MS : Date.parse(from)
  const to_ms = to === undefined ? (bucket === undefined ? END_OF_TIME_MS : now_ms + 1) : Date.parse(to)
  const bounds = { from_ms, to_ms: Math.max(from_ms, to_ms), time_zone, dimensions: DIMENSIONS, most: MAX_PERIODS }
  const { by, periods } = readReport({ group, bucket, tag, end_user: names.end_user }, bounds)
  const filter = { ...withoutUndefined(names), ...(tag === undefined ? {} : { tag: readTag(tag) }), tenant: caller.tenant.id }
  await plane.ledger.post()
  const continued = totals_cursor === undefined ? {} : { cursor: totals_cursor }
  const totals = await plane.ledger.usage({ ...filter, periods, by, limit: MAX_TOTALS, ...continued })
  const page = await plane.ledger.events({ ...filter, from_ms, to_ms, limit, ...(cursor === undefined ? {} : { cursor }) })
  const periodOf = (row: UsageRow): Period | null => (bucket === undefined ? null : (periods[row.period] ?? null))
  return {
    object: 'usage',
    from: new Date(from_ms).toISOString(),
    totals: totals.rows.map((row) => totalsView(row, by, periodOf(row), caller.tenant.id)),
    totals_next_cursor: totals.next_cursor,
    events: page.events.map(eventView),
    next_cursor: page.next_cursor,
    // Sums go on counting these days; their single events are in the operator's archive.
    archived_days: (await plane.ledger.archivedDays({ from_ms, to_ms })).slice(-MAX_PERIODS),
  }
}

/** Sums as their tenant sees them: without the supplier's cost. */
function totalsView(row: UsageRow, by: readonly string[], bucket: Period | null, tenant: string): object {
  const { requests, completed, tokens, calls, amount_nano, overrun_nano } = row
  return {
    ...(bucket === null ? {} : { from: new Date(bucket.from_ms).toISOString(), to: new Date(bucket.to_ms).toISOString() }),
    tenant,
    ...Object.fromEntries(by.map((name, index) => [name, row.group[index]])),
    requests,
    completed,
    tokens,
    calls,
    amount_cny: cnyFromNano(amount_nano),
    overrun_cny: cnyFromNano(overrun_nano),
  }
}

function withoutUndefined(filter: { readonly [Name in keyof UsageFilter]?: UsageFilter[Name] | undefined }): UsageFilter {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined))
}

/** `GET /v1/balance` */
export async function balanceView(caller: Caller, plane: Plane): Promise<object> {
  const balance = await plane.limits.balance(caller.tenant.id)
  return {
    object: 'balance',
    available_cny: cnyFromNano(balance.available_nano),
    held_cny: cnyFromNano(balance.held_nano),
    open_requests: balance.open_holds,
    limits: (await plane.limits.states(everyRuleOf(caller, plane.clock.now_ms()))).map(viewLimit),
    grants: await balanceGrants(await plane.records.grants(caller.tenant.id), balance, plane.ledger, plane.clock.now_ms()),
  }
}

/** What came back to the tenant of an event's payment, by the one reversal that an event may have. */
async function reversalOf(event: UsageEvent, plane: Plane): Promise<object> {
  const reversal = await plane.ledger.transaction(reversalId(event.id))
  const deltas = reversal === null ? [] : grantDeltas(reversal.entries)
  const money = deltas.filter(({ unit }) => unit === 'nano_cny').reduce((sum, { delta }) => sum + delta, 0n)
  return {
    reversed_cny: cnyFromNano(money),
    given_back: deltas.map(({ grant, unit, delta }) => ({ grant, unit: unitName(unit), amount: amountText(unit, delta) })),
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
