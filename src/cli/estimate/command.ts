import { statSync } from 'node:fs'
import * as z from 'zod'
import { readClassifier } from '../../classifier.ts'
import { formatIssues } from '../../config/check.ts'
import type { Configuration } from '../../config/model.ts'
import { expectedOneOf } from '../../config/suggest.ts'
import { picoFromCnyPerMillion } from '../../money/amount.ts'
import { prepareEvidence, type TenantEvidence } from '../../routing/evidence.ts'
import type { VirtualModel } from '../../routing/virtual.ts'
import { JSON_OPTION, printJson, withClient } from '../accounts.ts'
import { readConfiguration } from '../client.ts'
import type { Arguments, Command } from '../command.ts'
import { CommandFailed, UsageError, type CliContext } from '../io.ts'
import { grouped } from '../table.ts'
import type { Audience } from './auto.ts'
import { linesOf } from './lines.ts'
import { soldModels, type SoldModel } from './prices.ts'
import { estimateJson, estimateText, type UnreadLines } from './report.ts'
import { readLine } from './requests.ts'
import { Tally } from './tally.ts'

/** What most answers stay below. */
const USUAL_OUTPUT_TOKENS = 400
const MOST_OUTPUT_TOKENS = 10_000_000
/** Models that the text shows; JSON has them all. */
const SHOWN_MODELS = 20
/** Lines that could not be read are named, as many as this. */
const NAMED_LINES = 5
const TELL_EVERY_MS = 2000

/** `weir estimate`: what a file of prompts would cost. */
export const ESTIMATE_COMMAND: Command = {
  name: 'estimate',
  summary: 'Tell what a file of prompts would cost, at each model and by "auto". Calls nobody.',
  details:
    'One request per line (JSONL): a chat body {"messages": […]}, {"text": "…"}, {"prompt": "…"}, a line of an OpenAI batch file ' +
    '{"body": {"messages": […]}}, a JSON string, or a text as it is. Prompts are counted by estimate, answers assumed, prices taken from ' +
    'the configuration as they are now. Files of any size are read line by line; what a line says is not kept.',
  positionals: ['prompts.jsonl'],
  options: {
    tenant: { value: 'ID', help: "with this tenant's keywords, samples, virtual models, zones and audience" },
    'output-tokens': { value: 'N', help: `tokens of an answer whose request gives no max_tokens (${USUAL_OUTPUT_TOKENS})` },
    models: { value: 'ID', help: 'only these models; repeat or separate by commas', many: true },
    route: { value: 'NAME', help: 'the virtual model that chooses (auto)' },
    all: { help: `show every model, not the ${SHOWN_MODELS} cheapest` },
    json: JSON_OPTION,
  },
  run: runEstimate,
}

async function runEstimate(args: Arguments, context: CliContext): Promise<number> {
  const output_tokens = args.number('output-tokens', 1, MOST_OUTPUT_TOKENS)
  const loaded = readConfiguration(context)
  if (!loaded.ok) throw new CommandFailed(`the configuration has mistakes:\n${formatIssues(loaded.issues)}`)
  const { configuration } = loaded
  const now_ms = context.clock.now_ms()
  const id = args.text('tenant')
  const sold = soldModels(configuration, now_ms, id ?? '')
  const models = wantedModels(args.list('models'), sold, configuration)
  const tenant = id === undefined ? null : await readTenant(id, context)
  const name = args.text('route') ?? 'auto'
  const virtual = tenant?.models.get(name) ?? configuration.routes.get(name)
  const choosing = virtual === undefined ? null : { virtual, sold: mapOf(sold), tenant: id ?? '', audience: tenant?.audience ?? null }
  const tally = new Tally({
    calendar: configuration.prices.calendar,
    now_ms,
    output_tokens: output_tokens ?? USUAL_OUTPUT_TOKENS,
    classifier: readClassifier(),
    evidence: tenant?.evidence ?? null,
    models,
    choosing,
  })
  const file = args.positional(0) ?? ''
  const unread = await readRequests(file, configuration.settings.limits.max_body_bytes, tally, context)
  if (tally.requests === 0) throw new CommandFailed(`${file} has no request that could be read${firstOf(unread)}.`)
  const route = { name, found: choosing !== null }
  const said = { output_tokens: output_tokens ?? USUAL_OUTPUT_TOKENS, output_said: output_tokens !== undefined }
  const estimated = { file, tenant: id ?? null, now_ms, ...said, route, tally, unread }
  if (args.flag('json')) printJson(estimateJson(estimated), context)
  else context.out(estimateText(estimated, args.flag('all') || args.list('models').length > 0 ? Infinity : SHOWN_MODELS))
  return 0
}

const mapOf = (sold: readonly SoldModel[]): ReadonlyMap<string, SoldModel> => new Map(sold.map((one) => [one.model.id, one]))

function firstOf({ count, first: [first] }: UnreadLines): string {
  return first === undefined ? '' : ` (${grouped(count)} lines could not: line ${grouped(first.line)} ${first.why})`
}

/** Those that were asked for, or all that can be called. @throws UsageError for one that is not sold */
function wantedModels(names: readonly string[], sold: readonly SoldModel[], { catalogue }: Configuration): readonly SoldModel[] {
  if (names.length === 0) {
    const callable = sold.filter(({ served_by }) => served_by !== null)
    // Without any key there still is something to be told.
    return callable.length > 0 ? callable : sold
  }
  const known = mapOf(sold)
  const wanted = names.map((name) => {
    const one = known.get(catalogue.aliases.get(name) ?? name)
    if (one === undefined)
      throw new UsageError(`--models: ${JSON.stringify(name)} is no chat model with a price: ${expectedOneOf(name, [...known.keys()])}`)
    return one
  })
  return [...new Set(wanted)]
}

const Tenants = z.object({
  data: z.array(z.object({ id: z.string(), audience: z.enum(['public', 'internal']), zones: z.array(z.string()) })),
})
const Routing = z.object({
  rules: z.array(z.object({ domain: z.string(), keywords: z.array(z.string()) })),
  samples: z.array(z.object({ text: z.string(), domain: z.string() })),
  models: z.record(
    z.string(),
    z.object({
      domain: z.string().nullable(),
      prefer: z.enum(['balanced', 'cost', 'quality', 'latency']),
      candidates: z.array(z.object({ model: z.string(), domain: z.string().nullable(), weight: z.number(), quality: z.number() })),
      canary: z.object({ model: z.string(), percent: z.number() }).nullable(),
      max_price: z.object({ input: z.string().nullable(), output: z.string().nullable() }).nullable(),
    }),
  ),
})

function virtualModel(id: string, { max_price, ...model }: z.infer<typeof Routing>['models'][string]): VirtualModel {
  const pico = (cny: string | null | undefined): bigint | null => (typeof cny === 'string' ? picoFromCnyPerMillion(cny) : null)
  return { id, ...model, max_price_pico: { input: pico(max_price?.input), output: pico(max_price?.output) } }
}

/** A tenant as far as its traffic goes elsewhere than others'. */
interface KnownTenant {
  readonly audience: Audience
  readonly evidence: TenantEvidence
  readonly models: ReadonlyMap<string, VirtualModel>
}

/** @throws CommandFailed where there is no such tenant */
async function readTenant(id: string, context: CliContext): Promise<KnownTenant> {
  return await withClient(context, async (client) => {
    const { data } = Tenants.parse(await client.request('GET', '/admin/v1/tenants'))
    const found = data.find((tenant) => tenant.id === id)
    if (found === undefined) throw new CommandFailed(`there is no tenant ${JSON.stringify(id)}.`)
    const { rules, samples, models } = Routing.parse(await client.request('GET', `/admin/v1/tenants/${encodeURIComponent(id)}/routing`))
    const own = Object.entries(models).map(([name, model]) => [name, virtualModel(name, model)] as const)
    return { audience: found, evidence: prepareEvidence(rules, samples), models: new Map(own) }
  })
}

/** Adds every request of a file. @throws CommandFailed for a file that cannot be read */
async function readRequests(file: string, max_line_bytes: number, tally: Tally, context: CliContext): Promise<UnreadLines> {
  const unread: UnreadLines = { count: 0, first: [] }
  const refuse = (line: number, why: string): void => {
    unread.count += 1
    if (unread.first.length < NAMED_LINES) unread.first.push({ line, why })
  }
  try {
    const tell = progressTo(context, statSync(file).size, tally)
    for await (const { number, bytes } of linesOf(file, max_line_bytes, tell)) {
      const read = bytes === null ? null : readLine(bytes)
      if (bytes === null) refuse(number, `is longer than the ${grouped(max_line_bytes)} bytes that a request may have`)
      else if (read?.ok === true) tally.add(read.request)
      else if (read !== null) refuse(number, read.why)
    }
  } catch (error) {
    if (error instanceof Error && 'syscall' in error && 'code' in error)
      throw new CommandFailed(`${file} cannot be read (${String(error.code)}).`)
    throw error
  }
  return unread
}

/** What is read within two seconds needs no commentary. */
function progressTo({ clock, err }: CliContext, size: number, tally: Tally): (bytes: number) => void {
  let told_ms = clock.monotonic_ms()
  let done = 0
  return (bytes) => {
    done += bytes
    const now_ms = clock.monotonic_ms()
    if (now_ms - told_ms < TELL_EVERY_MS) return
    told_ms = now_ms
    const share = size === 0 ? '' : `, ${Math.floor((done / size) * 100)}%`
    err(`${grouped(tally.requests)} requests read${share}\n`)
  }
}
