import * as z from 'zod'
import { formatIssues, summarise } from '../config/check.ts'
import type { Configuration } from '../config/model.ts'
import { createTransport } from '../upstream/pool.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import { readConfiguration, Refused, type AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { doctor, inactiveDiagnoses, type Diagnosis } from './doctor.ts'
import { Unreachable, UsageError, type CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const MAX_EVENTS = 1_000_000
const PAGE_EVENTS = 1000

const Sum = z.object({
  requests: z.number(),
  completed: z.number(),
  tokens: z.object({ input: z.number(), cached_input: z.number(), cache_write: z.number(), output: z.number(), reasoning: z.number() }),
  amount_cny: z.string(),
})
const Usage = z.object({
  from: z.string(),
  to: z.string(),
  time_zone: z.string(),
  totals: Sum,
  groups: z.array(Sum.extend({ id: z.string() })),
})
const EventPage = z.object({ data: z.array(z.unknown()), next_cursor: z.string().nullable() })

const usage: Command = {
  name: 'usage',
  summary: 'Show requests, tokens and amounts; today unless told otherwise.',
  details: "Days begin at midnight in the tenant's time zone (Asia/Shanghai over all tenants). A date in --to is included whole.",
  positionals: [],
  options: {
    from: { value: 'TIME', help: 'a date (2026-11-23) or an instant (2026-11-23T08:00:00+08:00)' },
    to: { value: 'TIME', help: 'the same' },
    tz: { value: 'NAME', help: 'time zone for dates, such as Asia/Shanghai' },
    tenant: { value: 'ID', help: 'only this tenant' },
    project: { value: 'ID', help: 'only this project' },
    key: { value: 'ID', help: 'only this key' },
    model: { value: 'ID', help: 'only this model' },
    by: { value: 'model|key|project|tenant', help: 'one line for each (model)' },
    json: { help: 'print JSON: totals, groups and the events themselves' },
    limit: { value: 'N', help: 'most events in the JSON, newest first (1000)' },
  },
  run: (args, context) => withClient(context, (client) => showUsage(args, client, context)),
}

async function showUsage(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const limit = args.number('limit', 0, MAX_EVENTS) ?? PAGE_EVENTS
  const given = ['from', 'to', 'tz', 'tenant', 'project', 'key', 'model'].map((name) => [name, args.text(name)] as const)
  const filters = Object.fromEntries(given.filter((entry): entry is readonly [string, string] => entry[1] !== undefined))
  const by = args.text('by') ?? 'model'
  const answer = await client.request('GET', `/admin/v1/usage?${new URLSearchParams({ ...filters, group: by }).toString()}`)
  const { from, to, time_zone, totals, groups } = Usage.parse(answer)
  if (args.flag('json')) {
    // The period is fixed by the first answer, so that a day that ends meanwhile does not split totals from events.
    const events = await eventsOf(client, { ...filters, from, to }, limit)
    printJson({ from, to, time_zone, totals: exact(answer, 'totals'), groups: exact(answer, 'groups'), ...events }, context)
    return 0
  }
  const line = (name: string, sum: z.infer<typeof Sum>): string[] => [
    name,
    ...[sum.requests, sum.tokens.input, sum.tokens.cached_input, sum.tokens.cache_write, sum.tokens.output, sum.tokens.reasoning].map(
      grouped,
    ),
    grouped(sum.amount_cny),
  ]
  context.out(`Usage from ${localTime(from, time_zone)} to ${localTime(to, time_zone)} (${time_zone})\n\n`)
  const rows = [...groups.map((group) => line(group.id, group)), line('total', totals)]
  context.out(table([by.toUpperCase(), 'REQUESTS', 'INPUT', 'CACHED', 'CACHE WRITE', 'OUTPUT', 'REASONING', 'CNY'], rows))
  return 0
}

/** A member of an answer as it came, with the fields that the schema does not name. */
function exact(answer: unknown, name: string): unknown {
  return z.record(z.string(), z.unknown()).parse(answer)[name]
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

const Audit = z.object({
  ok: z.boolean(),
  checked: z.object({ events: z.number(), tenants: z.number(), served: z.number().nullable(), amount_cny: z.string() }),
  findings: z.array(z.object({ rule: z.string(), id: z.string(), expected: z.string(), found: z.string() })),
})

const audit: Command = {
  name: 'audit',
  summary: 'Check that journal, ledger, balances (and the sandbox) agree to the token.',
  details:
    'Exit code 0: everything agrees. 1: it does not; the first difference comes first. 2: the audit could not run. Run it when no requests are open.',
  positionals: [],
  options: { sandbox: { value: 'URL', help: "also compare with this sandbox's own count" }, json: JSON_OPTION },
  run: async (args, context) => {
    try {
      return await withClient(context, (client) => showAudit(args, client, context))
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof Refused)) throw error
      context.err(`weir: the audit could not run: ${error.message}\n`)
      return 2
    }
  },
}

async function showAudit(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const sandbox = args.text('sandbox')
  const answer = await client.request('GET', `/admin/v1/audit${sandbox === undefined ? '' : `?sandbox=${encodeURIComponent(sandbox)}`}`)
  const { ok, checked, findings } = Audit.parse(answer)
  if (args.flag('json')) {
    printJson(answer, context)
    return ok ? 0 : 1
  }
  const served = checked.served === null ? '' : `, ${grouped(checked.served)} served by the sandbox`
  context.out(
    `${grouped(checked.events)} events of ${grouped(checked.amount_cny)} CNY, ${checked.tenants} tenant${checked.tenants === 1 ? '' : 's'}${served}\n`,
  )
  context.out(
    ok
      ? 'Everything agrees.\n'
      : `${findings.length === 1 ? '1 difference' : `${findings.length} differences, the first to look at first`}:\n\n`,
  )
  if (!ok)
    context.out(findings.map(({ rule, id, expected, found }) => `${rule}\n  ${id}\n  expected ${expected}\n  found    ${found}\n`).join(''))
  return ok ? 0 : 1
}

const reload: Command = {
  name: 'reload',
  summary: 'Have the running server read its configuration again.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      if (!client.live) throw new Unreachable('no server is running, so there is nothing to reload.')
      const answer = await client.request('POST', '/admin/v1/reload')
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Reloaded: configuration ${z.object({ digest: z.string() }).parse(answer).digest} is in force.\n`)
      return 0
    }),
}

const check: Command = {
  name: 'check',
  summary: 'Check the configuration without starting anything.',
  positionals: [],
  options: { 'config-dir': { value: 'DIR', help: 'instead of WEIR_CONFIG_DIR or ./config' } },
  run: (args, context) => {
    const result = readConfiguration(context, args.text('config-dir'))
    if (result.ok) context.out(summarise(result.configuration, context.clock.now_ms()))
    else context.err(formatIssues(result.issues))
    return Promise.resolve(result.ok ? 0 : 1)
  },
}

const doctorCommand: Command = {
  name: 'doctor',
  summary: 'Call each endpoint once (5 tokens at most) and say in plain words what is wrong.',
  positionals: ['[provider|endpoint|model]'],
  options: { 'config-dir': { value: 'DIR', help: 'instead of WEIR_CONFIG_DIR or ./config' }, json: JSON_OPTION },
  run: async (args, context) => {
    const result = readConfiguration(context, args.text('config-dir'))
    if (!result.ok) {
      context.err(formatIssues(result.issues))
      return 1
    }
    const diagnoses = await examine(args.positional(0), result.configuration, context)
    if (args.flag('json')) printJson(diagnoses, context)
    else context.out(diagnoses.map(diagnosisText).join(''))
    return diagnoses.every(({ ok, verdict }) => ok || verdict === 'inactive') && diagnoses.some(({ ok }) => ok) ? 0 : 1
  },
}

async function examine(wanted: string | undefined, configuration: Configuration, context: CliContext): Promise<Diagnosis[]> {
  const { catalogue, settings } = configuration
  const names = (endpoint: string, model: string, provider: string): boolean =>
    wanted === undefined || [endpoint, model, provider].includes(wanted)
  const transport = createTransport({ connections_per_origin: 4, proxy: settings.proxy })
  const diagnoses: Diagnosis[] = []
  try {
    for (const model of catalogue.models.values()) {
      for (const endpoint of model.endpoints) {
        if (!names(endpoint.id, model.id, endpoint.provider)) continue
        diagnoses.push(await doctor(endpoint, model, { transport, providers: PROVIDERS, proxy: settings.proxy, clock: context.clock }))
      }
      diagnoses.push(...inactiveDiagnoses(model).filter(({ endpoint }) => names(endpoint, model.id, endpoint.split('/')[0] ?? '')))
    }
  } finally {
    await transport.close()
  }
  if (diagnoses.length === 0)
    throw new UsageError(
      wanted === undefined ? 'the catalogue has no endpoint' : `the catalogue has no provider, endpoint or model ${JSON.stringify(wanted)}`,
    )
  return diagnoses
}

function diagnosisText({ endpoint, model, ok, verdict, advice, provider_message }: Diagnosis): string {
  const mark = ok ? 'ok     ' : verdict === 'inactive' ? 'unused ' : 'FAILED '
  const words = provider_message === null ? '' : `        the provider says: ${provider_message}\n`
  return `${mark} ${endpoint} (${model}) ${advice}\n${words}`
}

/** Commands that look and change nothing but what is in force. */
export const REPORT_COMMANDS: readonly Command[] = [usage, audit, check, doctorCommand, reload]
