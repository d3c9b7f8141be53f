import * as z from 'zod'
import { printJson, withClient } from './accounts.ts'
import { Refused, type AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { CommandFailed, type CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const MAX_EVENTS = 1_000_000
const MAX_ROWS = 100_000
const PAGE_EVENTS = 1000
const PAGE_ROWS = 10_000
const FILTERS = ['from', 'to', 'tz', 'tenant', 'project', 'key', 'model', 'endpoint', 'end-user', 'tag']

const Sum = z.object({
  requests: z.number(),
  completed: z.number(),
  tokens: z.object({ input: z.number(), cached_input: z.number(), cache_write: z.number(), output: z.number(), reasoning: z.number() }),
  amount_cny: z.string(),
})
const Row = Sum.extend({ by: z.record(z.string(), z.string()), from: z.string().optional() })
const UsagePage = z.object({
  from: z.string(),
  to: z.string(),
  time_zone: z.string(),
  totals: Sum.optional(),
  groups: z.array(Row),
  next_cursor: z.string().nullable(),
})
const EventPage = z.object({ data: z.array(z.unknown()), next_cursor: z.string().nullable() })
const Overrun = z.object({
  id: z.string(),
  admitted_at: z.string(),
  tenant: z.string(),
  key: z.string(),
  model: z.string(),
  held_cny: z.string(),
  amount_cny: z.string(),
  overrun_cny: z.string(),
})

/** `weir usage`: what was used, by what, and which requests cost more than was held for them. */
export const USAGE_COMMAND: Command = {
  name: 'usage',
  summary: 'Show requests, tokens and amounts; today unless told otherwise.',
  details:
    "Days begin at midnight in the tenant's time zone (Asia/Shanghai over all tenants). A date in --to is included whole. " +
    'Lines by tag leave out requests without that tag, lines by end user those without one; the total does not.',
  positionals: [],
  options: {
    from: { value: 'TIME', help: 'a date (2026-11-23) or an instant (2026-11-23T08:00:00+08:00)' },
    to: { value: 'TIME', help: 'the same' },
    tz: { value: 'NAME', help: 'time zone for dates and buckets, such as Asia/Shanghai' },
    tenant: { value: 'ID', help: 'only this tenant' },
    project: { value: 'ID', help: 'only this project' },
    key: { value: 'ID', help: 'only this key' },
    model: { value: 'ID', help: 'only this model' },
    endpoint: { value: 'ID', help: 'only what this endpoint served' },
    'end-user': { value: 'HASH', help: 'only this end user, as events have it' },
    tag: { value: 'NAME:VALUE', help: 'only requests with this tag, such as team:search' },
    by: {
      value: 'DIMENSIONS',
      help: 'one line for each (model): up to three of model, key, project, tenant, endpoint, end_user, tag:NAME, with commas',
    },
    bucket: { value: 'hour|day|week|month', help: 'lines for each of these; at most 400' },
    overruns: { help: 'list the requests that cost more than was held for them, instead of sums' },
    json: { help: 'print JSON: totals, groups and the events themselves' },
    limit: { value: 'N', help: 'most events in the JSON or the list of overruns, newest first (1000)' },
  },
  run: (args, context) => withClient(context, (client) => inOptionWords(() => showUsage(args, client, context))),
}

/** Names of the admin API's questions as this command calls them. */
const OPTION_OF: Readonly<Record<string, string>> = { group: 'by', end_user: 'end-user', time_zone: 'tz' }

/** A refusal names what was asked wrong as the server calls it; whoever typed an option should read its name. */
async function inOptionWords<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    const [, name = '', words = ''] = /^([a-z_]+): (.*)$/s.exec(error.message) ?? []
    const option = OPTION_OF[name] ?? name
    if (USAGE_COMMAND.options[option] === undefined) throw error
    throw new Refused(error.status, `--${option}: ${words}`)
  }
}

async function showUsage(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const limit = args.number('limit', 0, MAX_EVENTS) ?? PAGE_EVENTS
  const given = FILTERS.map((name) => [name.replace('-', '_'), args.text(name)] as const)
  const filters = Object.fromEntries(given.filter((entry): entry is readonly [string, string] => entry[1] !== undefined))
  const wanted = args.flag('overruns') ? { overrun: 'true' } : {}
  if (args.flag('overruns') && !args.flag('json')) return await showOverruns(client, { ...filters, ...wanted }, limit, context)
  const by = args.text('by') ?? 'model'
  const bucket = args.text('bucket')
  const report = await reportOf(client, { ...filters, group: by, ...(bucket === undefined ? {} : { bucket }) })
  if (args.flag('json')) {
    const { from, to, time_zone, totals, groups } = report
    // The period is fixed by the first answer, so that a day that ends meanwhile does not split totals from events.
    const events = await eventsOf(client, { ...filters, ...wanted, from, to }, limit)
    printJson({ from, to, time_zone, totals, groups, ...events }, context)
  } else showTable(report, by, context)
  return 0
}

/** Members as they came, with fields that the schemas do not name. */
interface Report {
  readonly from: string
  readonly to: string
  readonly time_zone: string
  readonly totals: unknown
  readonly groups: readonly unknown[]
}

async function reportOf(client: AdminClient, query: Record<string, string>): Promise<Report> {
  let first: z.infer<typeof UsagePage> | null = null
  let totals: unknown
  const groups: unknown[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const period: object = first === null ? {} : { from: first.from, to: first.to }
    const words = new URLSearchParams({ ...query, ...period, limit: String(PAGE_ROWS), ...(cursor === '' ? {} : { cursor }) })
    const answer = await client.request('GET', `/admin/v1/usage?${words.toString()}`)
    const page: z.infer<typeof UsagePage> = UsagePage.parse(answer)
    const exact = z.looseObject({ totals: z.unknown(), groups: z.array(z.unknown()) }).parse(answer)
    if (first === null) [first, totals] = [page, exact.totals]
    groups.push(...exact.groups)
    if (groups.length > MAX_ROWS)
      throw new CommandFailed(`more than ${grouped(MAX_ROWS)} lines; ask for a shorter period or fewer dimensions.`)
    cursor = page.next_cursor
  }
  if (first === null) throw new CommandFailed('the server gave no answer.')
  const { from, to, time_zone } = first
  return { from, to, time_zone, totals, groups }
}

function showTable({ from, to, time_zone, totals, groups }: Report, by: string, context: CliContext): void {
  const rows = z.array(Row).parse(groups)
  const dimensions = by.split(',').flatMap((name) => (name.trim() === '' ? [] : name.trim()))
  const bucketed = rows.some((row) => row.from !== undefined)
  const figures = ({ requests, tokens, amount_cny }: z.infer<typeof Sum>): string[] => [
    ...[requests, tokens.input, tokens.cached_input, tokens.cache_write, tokens.output, tokens.reasoning].map(grouped),
    grouped(amount_cny),
  ]
  const lines = rows.map((row) => [
    ...(bucketed ? [row.from === undefined ? '' : localTime(row.from, time_zone)] : []),
    ...dimensions.map((name) => row.by[name] ?? ''),
    ...figures(row),
  ])
  const names = [...(bucketed ? ['FROM'] : []), ...dimensions.map((name) => name.toUpperCase())]
  const heads = names.length === 0 ? [''] : names
  const total = ['total', ...heads.slice(1).map(() => ''), ...figures(Sum.parse(totals))]
  const padded = names.length === 0 ? lines.map((line) => ['', ...line]) : lines
  context.out(`Usage from ${localTime(from, time_zone)} to ${localTime(to, time_zone)} (${time_zone})\n\n`)
  context.out(table([...heads, 'REQUESTS', 'INPUT', 'CACHED', 'CACHE WRITE', 'OUTPUT', 'REASONING', 'CNY'], [...padded, total]))
}

async function showOverruns(client: AdminClient, filters: Record<string, string>, limit: number, context: CliContext): Promise<number> {
  const { events, more_events } = await eventsOf(client, filters, limit)
  const overruns = z.array(Overrun).parse(events)
  if (overruns.length === 0) context.out('No request cost more than was held for it.\n')
  else {
    const rows = overruns.map(({ admitted_at, id, tenant, key, model, held_cny, amount_cny, overrun_cny }) => [
      ...[admitted_at, id, tenant, key, model],
      ...[held_cny, amount_cny, overrun_cny].map(grouped),
    ])
    context.out(table(['TIME', 'REQUEST', 'TENANT', 'KEY', 'MODEL', 'HELD CNY', 'COST CNY', 'BEYOND CNY'], rows))
  }
  if (more_events) context.out('\nThere are older ones: raise --limit, or narrow them with --to.\n')
  return 0
}

async function eventsOf(
  client: AdminClient,
  filters: Record<string, string>,
  limit: number,
): Promise<{ events: unknown[]; more_events: boolean }> {
  const events: unknown[] = []
  let cursor: string | null = ''
  while (cursor !== null && events.length < limit) {
    const page_limit = String(Math.min(PAGE_EVENTS, limit - events.length))
    const query = new URLSearchParams({ ...filters, limit: page_limit, ...(cursor === '' ? {} : { cursor }) })
    const page: z.infer<typeof EventPage> = EventPage.parse(await client.request('GET', `/admin/v1/events?${query.toString()}`))
    events.push(...page.data)
    cursor = page.next_cursor
  }
  return { events, more_events: cursor !== null && limit > 0 }
}

function localTime(iso: string, time_zone: string): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone: time_zone, dateStyle: 'short', timeStyle: 'short' }).format(Date.parse(iso))
}
