import * as z from 'zod'
import { dayOf } from '../base/clock.ts'
import type { Model } from '../config/model.ts'
import { cnyFromNano } from '../money/amount.ts'
import { bucketsOf } from '../money/report.ts'
import { windowAround } from '../money/window.ts'
import { lifeOf } from '../routing/lives.ts'
import { MAX_PERIODS, type Period, type UsageRow } from '../storage/ports.ts'
import type { ControlDeps } from './deps.ts'
import { DEFAULT_TIME_ZONE } from './find.ts'
import { AdminProblem, parse } from './problem.ts'

const Query = z.strictObject({
  life: z.enum(['preview', 'ga', 'deprecated', 'retired']).optional(),
  days: z.coerce.number().int().min(1).max(MAX_PERIODS).default(30),
})
const DAY_MS = 86_400_000
const PAGE_ROWS = 1000
/** Most sums of one model that are read: of a day and a key. */
const MAX_ROWS = 200_000

/** What one key used of a model. */
interface KeyUse {
  readonly group: readonly string[]
  requests: number
  amount_nano: bigint
  last_day: string
}

/**
 * Who still uses models that are on their way out: those that are deprecated or retired or have a date to be, or those of one life that is
 * asked for. Per key the requests of the last days (today included, Asia/Shanghai), and the last of these days with one. By sums, so
 * that archived days count.
 *
 * @throws AdminProblem `invalid_request`; `conflict` where no configuration can be read or there is more than can be told
 */
export async function modelUsage(query: unknown, deps: ControlDeps): Promise<object> {
  const { life, days } = parse(Query, query)
  const configuration = deps.configuration()
  if (configuration === null) throw new AdminProblem('conflict', 'the configuration cannot be read: weir check says why')
  const now_ms = deps.clock.now_ms()
  const to_ms = windowAround('day', DEFAULT_TIME_ZONE, now_ms).end_ms
  const from_ms = to_ms - days * DAY_MS
  const periods = bucketsOf('day', { from_ms, to_ms, time_zone: DEFAULT_TIME_ZONE, most: MAX_PERIODS }) ?? []
  await deps.ledger.post()
  const wanted = [...configuration.catalogue.models.values()].filter((model) => isAsked(model, life, now_ms))
  const data: object[] = []
  for (const model of wanted) data.push(modelView(model, await usesOf(model.id, periods, deps), now_ms))
  return { object: 'list', from: dayOf(from_ms), to: dayOf(to_ms - 1), life: life ?? null, data }
}

function isAsked(model: Model, life: Model['life'] | undefined, now_ms: number): boolean {
  const own = lifeOf(model, now_ms)
  if (life !== undefined) return own === life
  return own === 'deprecated' || own === 'retired' || model.retires_at !== null
}

/** Every key that used the model, the latest first. */
async function usesOf(model: string, periods: readonly Period[], { ledger }: ControlDeps): Promise<readonly KeyUse[]> {
  const uses = new Map<string, KeyUse>()
  let rows = 0
  for (let cursor: string | null = ''; cursor !== null;) {
    const continued: object = cursor === '' ? {} : { cursor }
    const page = await ledger.usage({ model, periods, by: ['tenant', 'project', 'key'], limit: PAGE_ROWS, ...continued })
    rows += page.rows.length
    if (rows > MAX_ROWS) throw new AdminProblem('conflict', `${model} has more than ${MAX_ROWS} sums: ask for fewer days`, 'days')
    for (const row of page.rows) add(row, periods, uses)
    cursor = page.next_cursor
  }
  return [...uses.values()].toSorted((a, b) => (a.last_day < b.last_day ? 1 : a.last_day > b.last_day ? -1 : b.requests - a.requests))
}

/** Rows come by period, so a later one is of a later day. */
function add({ group, period, requests, amount_nano }: UsageRow, periods: readonly Period[], uses: Map<string, KeyUse>): void {
  const name = group.join('\n')
  const use = uses.get(name) ?? { group, requests: 0, amount_nano: 0n, last_day: '' }
  use.requests += requests
  use.amount_nano += amount_nano
  use.last_day = dayOf(periods[period]?.from_ms ?? 0)
  uses.set(name, use)
}

function modelView(model: Model, uses: readonly KeyUse[], now_ms: number): object {
  const { id, retires_at, replaced_by } = model
  return {
    model: id,
    life: lifeOf(model, now_ms),
    retires_on: retires_at === null ? null : dayOf(retires_at),
    replaced_by,
    used_by: uses.map(({ group: [tenant, project, key], requests, amount_nano, last_day }) => ({
      ...{ tenant, project, key, requests },
      amount_cny: cnyFromNano(amount_nano),
      last_used_on: last_day,
    })),
  }
}
