import * as z from 'zod'
import { formatIssues, summarise } from '../config/check.ts'
import { checkFilings, type FilingsReport, filingsText } from '../config/filings-check.ts'
import type { Configuration } from '../config/model.ts'
import { createTransport } from '../upstream/pool.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import { readConfiguration, type AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { explain } from './explain.ts'
import { doctor, inactiveDiagnoses, type Diagnosis } from './doctor.ts'
import { domainMatrix, findingsOf, matrixText } from './matrix.ts'
import { CommandFailed, Unreachable, UsageError, type CliContext } from './io.ts'
import { grouped } from './table.ts'
import { runJob } from './upkeep.ts'
import { USAGE_COMMAND } from './usage.ts'

const Audit = z.object({
  ok: z.boolean(),
  checked: z.object({
    events: z.number(),
    tenants: z.number(),
    served: z.number().nullable(),
    archives: z.number(),
    amount_cny: z.string(),
  }),
  findings: z.array(z.object({ rule: z.string(), id: z.string(), expected: z.string(), found: z.string() })),
})

const audit: Command = {
  name: 'audit',
  summary: 'Check that journal, ledger, balances (and the sandbox) agree to the token.',
  details:
    'Exit code 0: everything agrees. 1: it does not; the first difference comes first. 2: the audit could not run. It is exact beside traffic.',
  positionals: [],
  options: { sandbox: { value: 'URL', help: "also compare with this sandbox's own count" }, json: JSON_OPTION },
  run: async (args, context) => {
    try {
      return await withClient(context, (client) => showAudit(args, client, context))
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof CommandFailed)) throw error
      context.err(`weir: the audit could not run: ${error.message}\n`)
      return 2
    }
  },
}

async function showAudit(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const sandbox = args.text('sandbox')
  const answer = await runJob('/admin/v1/audits', sandbox === undefined ? {} : { sandbox }, client, context)
  const { ok, checked, findings } = Audit.parse(answer)
  if (args.flag('json')) {
    printJson(answer, context)
    return ok ? 0 : 1
  }
  const served = checked.served === null ? '' : `, ${grouped(checked.served)} served by the sandbox`
  context.out(
    `${grouped(checked.events)} events of ${grouped(checked.amount_cny)} CNY, ${checked.tenants} tenant${checked.tenants === 1 ? '' : 's'}${served}\n`,
  )
  if (checked.archives > 0) {
    const days = checked.archives === 1 ? 'archived day' : 'archived days'
    context.out(`${checked.archives} ${days}: files and their sizes were looked at; weir archive verify reads what is in them.\n`)
  }
  const [first, ...others] = findings
  if (first === undefined) context.out('Everything agrees.\n')
  else {
    const { rule, id, expected, found } = first
    context.out(`The first difference: it should hold that ${rule}, but for ${id} it does not: expected ${expected}, found ${found}.\n`)
    if (others.length > 0) context.out(`\n${others.length} more:\n\n`)
    context.out(others.map((other) => `${other.rule}\n  ${other.id}\n  expected ${other.expected}\n  found    ${other.found}\n`).join(''))
  }
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
  options: {
    'config-dir': { value: 'DIR', help: 'instead of WEIR_CONFIG_DIR or ./config' },
    models: { help: 'also list every model, endpoint, price and limit' },
    explain: { value: 'TENANT', help: "print every address that this tenant's prompts can go to, and why the others are closed" },
    json: JSON_OPTION,
  },
  run: (args, context) => {
    const tenant = args.text('explain')
    if (tenant !== undefined && args.text('config-dir') !== undefined) {
      throw new UsageError('--explain goes by the configuration of the running server, so it takes no --config-dir')
    }
    if (tenant !== undefined) return explain(tenant, args.flag('json'), context)
    const result = readConfiguration(context, args.text('config-dir'))
    if (args.flag('json')) printJson(checkView(result, context.clock.now_ms()), context)
    else if (result.ok) context.out(checkText(result.configuration, context.clock.now_ms(), args.flag('models')))
    else context.err(formatIssues(result.issues))
    if (!result.ok) return Promise.resolve(1)
    const report = filingsReport(result.configuration, context.clock.now_ms())
    if (!args.flag('json')) printFilings(report, context)
    return Promise.resolve(report.errors.length === 0 ? 0 : 1)
  },
}

/** Prints what is to say of a configuration's filings. @returns 1 if a number is in no registry, else 0 */
export function reportFilings(configuration: Configuration, context: CliContext): number {
  const report = filingsReport(configuration, context.clock.now_ms())
  printFilings(report, context)
  return report.errors.length === 0 ? 0 : 1
}

function filingsReport(configuration: Configuration, now_ms: number): FilingsReport {
  const entities = new Map([...PROVIDERS].map(([id, facts]) => [id, facts.entities]))
  return checkFilings(configuration, now_ms, entities)
}

function printFilings(report: FilingsReport, context: CliContext): void {
  context.out(filingsText(report))
  for (const error of report.errors) context.err(`error: ${error}\n`)
}

/** What there is, what there is for each domain, and what somebody should look at. */
function checkText(configuration: Configuration, now_ms: number, with_models: boolean): string {
  const warnings = findingsOf(configuration, now_ms).map(({ model, message }) => `warning: ${model}: ${message}\n`)
  const demo = configuration.settings.mode === 'demo' ? ['a demo that is started answers from the sandbox where a key is not set\n'] : []
  return [summarise(configuration, now_ms, with_models), '\n', matrixText(domainMatrix(configuration, now_ms)), ...demo, ...warnings].join(
    '',
  )
}

function checkView(result: ReturnType<typeof readConfiguration>, now_ms: number): object {
  if (!result.ok) return { ok: false, issues: result.issues }
  const { configuration } = result
  const models = [...configuration.catalogue.models.values()]
  const filings = filingsReport(configuration, now_ms)
  return {
    ok: filings.errors.length === 0,
    configuration: configuration.digest,
    models: models.length,
    active_endpoints: new Set(models.flatMap(({ endpoints }) => endpoints.map(({ id }) => id))).size,
    ...domainMatrix(configuration, now_ms),
    findings: findingsOf(configuration, now_ms),
    filings,
  }
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
    else context.out(diagnosesText(diagnoses))
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
      // Its model's endpoints are asked once.
      if (model.profile !== null) continue
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

/** Endpoints that were called one by one; those that are not used together, by what they wait for. */
function diagnosesText(diagnoses: readonly Diagnosis[]): string {
  const called = diagnoses.filter(({ verdict }) => verdict !== 'inactive')
  const waiting = new Map<string, Diagnosis[]>()
  for (const diagnosis of diagnoses) {
    if (diagnosis.verdict !== 'inactive') continue
    const name = `${diagnosis.endpoint.split('/')[0] ?? ''} ${diagnosis.advice}`
    waiting.set(name, [...(waiting.get(name) ?? []), diagnosis])
  }
  const unused = [...waiting].map(([name, group]) => {
    const [first, ...more] = group
    if (first === undefined || more.length === 0) return group.map(diagnosisText).join('')
    const models = group.slice(0, 3).map(({ model }) => model)
    const shown = group.length > models.length ? `${models.join(', ')} …` : models.join(', ')
    return `unused  ${name.split(' ')[0] ?? ''}, ${group.length} endpoints (${shown}) ${first.advice}\n`
  })
  return [...called.map(diagnosisText), ...unused].join('')
}

function diagnosisText({ endpoint, model, ok, verdict, advice, provider_message }: Diagnosis): string {
  const mark = ok ? 'ok     ' : verdict === 'inactive' ? 'unused ' : 'FAILED '
  const words = provider_message === null ? '' : `        the provider says: ${provider_message}\n`
  return `${mark} ${endpoint} (${model}) ${advice}\n${words}`
}

/** Commands that look and change nothing but what is in force. */
export const REPORT_COMMANDS: readonly Command[] = [USAGE_COMMAND, audit, check, doctorCommand, reload]
