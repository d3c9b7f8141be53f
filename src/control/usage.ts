import * as z from 'zod'
import { cnyFromNano } from '../money/amount.ts'
import type { UsageEvent } from '../money/event.ts'
import { NO_TOKENS, type TokenUsage } from '../money/usage.ts'
import { windowAround } from '../money/window.ts'
import type { EventQuery, UsageTotalsRow } from '../storage/ports.ts'
import type { ControlDeps } from './deps.ts'
import { Instant, instantOf } from './instants.ts'
import { AdminProblem, isoOf, parse } from './problem.ts'
import { DEFAULT_TIME_ZONE, isTimeZone, projectOrThrow, tenantOrThrow } from './find.ts'

const MAX_PAGE_EVENTS = 1000

const Filters = {
  from: Instant.optional(),
  to: Instant.optional(),
  tz: z.string().refine(isTimeZone, 'is not a time zone; write an IANA name such as Asia/Shanghai').optional(),
  tenant: z.string().optional(),
  project: z.string().optional(),
  key: z.string().optional(),
  model: z.string().optional(),
}
const UsageQuery = z.strictObject({ ...Filters, group: z.enum(['model', 'key', 'project', 'tenant']).default('model') })
const EventsQuery = z.strictObject({
  ...Filters,
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_EVENTS).default(100),
  cursor: z.string().max(256).optional(),
})

interface Period {
  readonly range: Omit<EventQuery, 'limit' | 'cursor'>
  readonly from_ms: number
  readonly to_ms: number
  readonly time_zone: string
}

/**
 * Totals of a period, and one line per model, key, project or tenant. Without `from` and `to`: today, in the tenant's time zone
 * (Asia/Shanghai over all tenants). A date in `to` is included whole.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function usageTotals(query: unknown, deps: ControlDeps): Promise<object> {
  const { group, ...filters } = parse(UsageQuery, query)
  const period = await periodOf(filters, deps)
  await deps.ledger.post()
  const rows = await deps.ledger.totals(period.range)
  const groups = Map.groupBy(rows, (row) => row[group])
  return {
    object: 'usage',
    ...periodView(period),
    group,
    totals: sumView(rows),
    groups: [...groups].map(([id, members]) => ({ id, ...sumView(members) })),
  }
}

/** A page of events, newest first. The same period as for totals. @throws AdminProblem `invalid_request`, `not_found` */
export async function usageEvents(query: unknown, deps: ControlDeps): Promise<object> {
  const { limit, cursor, ...filters } = parse(EventsQuery, query)
  const period = await periodOf(filters, deps)
  await deps.ledger.post()
  const page = await deps.ledger.events({ ...period.range, limit, ...(cursor === undefined ? {} : { cursor }) })
  return { object: 'list', ...periodView(period), data: page.events.map(eventView), next_cursor: page.next_cursor }
}

type FilterValues = { readonly [Name in keyof typeof Filters]?: string | undefined }

async function periodOf(filters: FilterValues, deps: ControlDeps): Promise<Period> {
  const { tenant, project, key, model } = filters
  const record = tenant === undefined ? null : await tenantOrThrow(tenant, deps)
  const project_id = project === undefined || tenant === undefined ? project : (await projectOrThrow(tenant, project, deps)).id
  const time_zone = filters.tz ?? record?.time_zone ?? DEFAULT_TIME_ZONE
  const today = windowAround('day', time_zone, deps.clock.now_ms())
  const from_ms = filters.from === undefined ? today.start_ms : instantOf(filters.from, time_zone, 'start_ms')
  const to_ms = filters.to === undefined ? Math.max(today.end_ms, from_ms) : instantOf(filters.to, time_zone, 'end_ms')
  if (to_ms < from_ms) throw new AdminProblem('invalid_request', 'to: lies before from', 'to')
  const named = { tenant, project: project_id, key, model }
  const range = Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
  return { range: { ...range, from_ms, to_ms }, from_ms, to_ms, time_zone }
}

function periodView({ from_ms, to_ms, time_zone }: Period): object {
  return { from: isoOf(from_ms), to: isoOf(to_ms), time_zone }
}

const TOKEN_CLASSES = ['input', 'cached_input', 'cache_write', 'output', 'reasoning'] as const

function sumView(rows: readonly UsageTotalsRow[]): object {
  const tokens: Record<keyof TokenUsage, number> = { ...NO_TOKENS }
  const sums = { requests: 0, completed: 0, amount_nano: 0n, cost_nano: 0n }
  for (const row of rows) {
    for (const name of TOKEN_CLASSES) tokens[name] += row.tokens[name]
    sums.requests += row.requests
    sums.completed += row.completed
    sums.amount_nano += row.amount_nano
    sums.cost_nano += row.cost_nano
  }
  const { requests, completed, amount_nano, cost_nano } = sums
  return { requests, completed, tokens, amount_cny: cnyFromNano(amount_nano), cost_cny: cnyFromNano(cost_nano) }
}

/** An event as the operator sees it: amounts in CNY, the supplier's cost included. */
function eventView(event: UsageEvent): object {
  const { admitted_at, ended_at, amount_nano, cost_nano, overrun_nano, hold, parts, attempts, ...rest } = event
  return {
    object: 'usage.event',
    ...rest,
    admitted_at: isoOf(admitted_at),
    ended_at: isoOf(ended_at),
    amount_cny: cnyFromNano(amount_nano),
    cost_cny: cnyFromNano(cost_nano),
    overrun_cny: cnyFromNano(overrun_nano),
    held_cny: cnyFromNano(hold.amount_nano),
    paid_by: parts.map(({ grant, unit, amount }) => ({
      grant,
      unit: unit === 'nano_cny' ? 'cny' : unit,
      amount: unit === 'nano_cny' ? cnyFromNano(amount) : String(amount),
    })),
    attempts: attempts.map(({ cost_nano: cost, ...attempt }) => ({ ...attempt, cost_cny: cnyFromNano(cost) })),
  }
}
