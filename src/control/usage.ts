import * as z from 'zod'
import { cnyFromNano } from '../money/amount.ts'
import type { UsageEvent } from '../money/event.ts'
import { ReportProblem, readReport, readTag } from '../money/report.ts'
import { NO_CALLS, NO_TOKENS } from '../money/usage.ts'
import { windowAround } from '../money/window.ts'
import { BadCursor, MAX_PERIODS, type Period as LedgerPeriod, type UsageFilter, type UsageRow, type UsageSums } from '../storage/ports.ts'
import type { ControlDeps } from './deps.ts'
import { Instant, instantOf } from './instants.ts'
import { AdminProblem, isoOf, parse } from './problem.ts'
import { DEFAULT_TIME_ZONE, isTimeZone, projectOrThrow, tenantOrThrow } from './find.ts'

const MAX_PAGE_EVENTS = 1000
const PAGE_ROWS = 1000
const MAX_PAGE_ROWS = 10_000
const DIMENSIONS = ['model', 'key', 'project', 'tenant', 'endpoint', 'end_user']

const Filters = {
  from: Instant.optional(),
  to: Instant.optional(),
  tz: z.string().refine(isTimeZone, 'is not a time zone; write an IANA name such as Asia/Shanghai').optional(),
  tenant: z.string().optional(),
  project: z.string().optional(),
  key: z.string().optional(),
  model: z.string().optional(),
  endpoint: z.string().optional(),
  end_user: z.string().optional(),
  tag: z.string().optional(),
}
const UsageQuery = z.strictObject({
  ...Filters,
  group: z.string().max(256).default('model'),
  bucket: z.string().max(16).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_ROWS).default(PAGE_ROWS),
  cursor: z.string().max(4096).optional(),
})
const EventsQuery = z.strictObject({
  ...Filters,
  overrun: z.enum(['true', 'false'], 'write true, for requests that cost more than was held for them').default('false'),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_EVENTS).default(100),
  cursor: z.string().max(256).optional(),
})

interface Period {
  readonly filter: UsageFilter
  readonly from_ms: number
  readonly to_ms: number
  readonly time_zone: string
}

/**
 * Sums of a period: one row per bucket of time and combination of up to three dimensions, and the totals of everything that the filters
 * let pass, on the first page. Without `from` and `to`: today, in the tenant's time zone (Asia/Shanghai over all tenants). A date in `to`
 * is included whole. Rows by tag leave out requests without that tag, rows by end user those without one; totals do not.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function usageTotals(query: unknown, deps: ControlDeps): Promise<object> {
  const { group, bucket: wanted, limit, cursor, ...filters } = parse(UsageQuery, query)
  const { ledger } = deps
  return await orProblem(async () => {
    const period = await periodOf(filters, deps)
    const { filter, from_ms, to_ms } = period
    const bounds = { ...period, dimensions: DIMENSIONS, most: MAX_PERIODS }
    const { by, bucket, periods } = readReport({ group, bucket: wanted, tag: filters.tag, end_user: filters.end_user }, bounds)
    await ledger.post()
    const page = await ledger.usage({ ...filter, periods, by, limit, ...(cursor === undefined ? {} : { cursor }) })
    const totals = cursor === undefined ? await ledger.usage({ ...filter, periods: [{ from_ms, to_ms }], by: [], limit: 1 }) : null
    return {
      object: 'usage',
      ...periodView(period),
      group,
      bucket,
      ...(totals === null ? {} : { totals: sumView(totals.rows[0] ?? NO_USAGE) }),
      groups: page.rows.map((row) => rowView(row, by, bucket === null ? null : (periods[row.period] ?? null))),
      next_cursor: page.next_cursor,
    }
  })
}

/** A page of events, newest first. The same period as for totals. @throws AdminProblem `invalid_request`, `not_found` */
export async function usageEvents(query: unknown, deps: ControlDeps): Promise<object> {
  const { limit, cursor, overrun, ...filters } = parse(EventsQuery, query)
  return await orProblem(async () => {
    const period = await periodOf(filters, deps)
    const { filter, from_ms, to_ms } = period
    await deps.ledger.post()
    const only_overruns = overrun === 'true' ? { overrun: true } : {}
    const page = await deps.ledger.events({
      ...filter,
      ...only_overruns,
      from_ms,
      to_ms,
      limit,
      ...(cursor === undefined ? {} : { cursor }),
    })
    const archived_days = (await deps.ledger.archivedDays({ from_ms, to_ms })).slice(-MAX_PERIODS)
    return { object: 'list', ...periodView(period), data: page.events.map(eventView), next_cursor: page.next_cursor, archived_days }
  })
}

async function orProblem<T>(answer: () => Promise<T>): Promise<T> {
  try {
    return await answer()
  } catch (error) {
    if (error instanceof ReportProblem) throw new AdminProblem('invalid_request', error.message, error.param)
    if (error instanceof BadCursor) throw new AdminProblem('invalid_request', `cursor: ${error.message}`, 'cursor')
    throw error
  }
}

type FilterValues = { readonly [Name in keyof typeof Filters]?: string | undefined }

async function periodOf(filters: FilterValues, deps: ControlDeps): Promise<Period> {
  const { tenant, project, key, model, endpoint, end_user, tag } = filters
  const record = tenant === undefined ? null : await tenantOrThrow(tenant, deps)
  const project_id = project === undefined || tenant === undefined ? project : (await projectOrThrow(tenant, project, deps)).id
  const time_zone = filters.tz ?? record?.time_zone ?? DEFAULT_TIME_ZONE
  const today = windowAround('day', time_zone, deps.clock.now_ms())
  const from_ms = filters.from === undefined ? today.start_ms : instantOf(filters.from, time_zone, 'start_ms')
  const to_ms = filters.to === undefined ? Math.max(today.end_ms, from_ms) : instantOf(filters.to, time_zone, 'end_ms')
  if (to_ms < from_ms) throw new AdminProblem('invalid_request', 'to: lies before from', 'to')
  const named = { tenant, project: project_id, key, model, endpoint, end_user, tag: tag === undefined ? undefined : readTag(tag) }
  const filter = Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
  return { filter, from_ms, to_ms, time_zone }
}

function periodView({ from_ms, to_ms, time_zone }: Period): object {
  return { from: isoOf(from_ms), to: isoOf(to_ms), time_zone }
}

const NO_USAGE: UsageSums = {
  requests: 0,
  completed: 0,
  tokens: NO_TOKENS,
  calls: NO_CALLS,
  amount_nano: 0n,
  cost_nano: 0n,
  overrun_nano: 0n,
}

function rowView(row: UsageRow, by: readonly string[], bucket: LedgerPeriod | null): object {
  return {
    ...(bucket === null ? {} : { from: isoOf(bucket.from_ms), to: isoOf(bucket.to_ms) }),
    id: row.group.join(' / '),
    by: Object.fromEntries(by.map((name, index) => [name, row.group[index]])),
    ...sumView(row),
  }
}

function sumView({ requests, completed, tokens, calls, amount_nano, cost_nano, overrun_nano }: UsageSums): object {
  const amounts = { amount_cny: cnyFromNano(amount_nano), cost_cny: cnyFromNano(cost_nano), overrun_cny: cnyFromNano(overrun_nano) }
  return { requests, completed, tokens, calls, ...amounts }
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
