import { readFileSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import * as z from 'zod'
import { readClassifier } from '../classifier.ts'
import { formatIssues } from '../config/check.ts'
import { IssueList, readSource, yamlOf } from '../config/document.ts'
import { nearest } from '../config/suggest.ts'
import { DOMAINS } from '../base/domains.ts'
import { CONFIDENCE_THRESHOLD } from '../routing/domain.ts'
import { decideDomain, prepareEvidence, type DomainEvidence } from '../routing/evidence.ts'
import { promptOf } from '../routing/prompt.ts'
import type { SampleMatch } from '../routing/samples.ts'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { CommandFailed, UsageError, type CliContext } from './io.ts'
import { grouped } from './table.ts'

/** Files in JSON that are larger are not read; the server takes no more either. */
const MAX_JSON_BYTES = 16_777_216

const Document = z.object({
  tenant: z.string(),
  version: z.number(),
  rules: z.array(z.object({ domain: z.string(), keywords: z.array(z.string()) })),
  samples: z.array(z.object({ text: z.string(), domain: z.string() })),
  models: z.record(z.string(), z.unknown()),
  own_domains: z.array(z.string()),
  updated_at: z.string().nullable(),
})
type Document = z.infer<typeof Document>

const FORM =
  'The file has rules [{domain, keywords}], samples [{text, domain}] and models, by name, each as in config/routes.yaml. Domains are finance, ' +
  'healthcare, education, government, industrial, legal, retail, customer_service, general, or names of your own; other spellings ' +
  '(medical, law, gov, tourism …) become these.'

function pathOf(args: Arguments): string {
  return `/admin/v1/tenants/${encodeURIComponent(args.positional(0) ?? '')}/routing`
}

const show: Command = {
  name: 'tenant routing show',
  summary: 'Print what a tenant says of its own traffic, as YAML that "set" takes.',
  positionals: ['tenant'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('GET', pathOf(args))
      if (args.flag('json')) printJson(answer, context)
      else {
        const { tenant, version, rules, samples, models, updated_at } = Document.parse(answer)
        const said = updated_at === null ? 'nothing was said yet' : `of ${updated_at}`
        context.out(`# Tenant ${tenant}, ${said}.\n${yamlOf({ version, rules, samples, models })}`)
      }
      return 0
    }),
}

const set: Command = {
  name: 'tenant routing set',
  summary: 'Put a file of rules, samples and virtual models in the place of what a tenant said before.',
  details: `${FORM} With a version in it, as "show" prints it, nothing is set where somebody else has changed it meanwhile.`,
  positionals: ['tenant', 'file.yaml|file.json'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('PUT', pathOf(args), readDocument(args.positional(1) ?? ''))
      if (args.flag('json')) printJson(answer, context)
      else context.out(summaryOf(Document.parse(answer)))
      return 0
    }),
}

const clear: Command = {
  name: 'tenant routing clear',
  summary: 'Forget what a tenant said of its own traffic, samples included.',
  positionals: ['tenant'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('DELETE', pathOf(args))
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Tenant ${Document.parse(answer).tenant} says nothing of routing any more.\n`)
      return 0
    }),
}

const test: Command = {
  name: 'tenant routing test',
  summary: 'Say which domain a prompt of this tenant is about, and what decides it.',
  details:
    "Looks at the tenant's keyword rules, then its samples, then the classifier, as the gateway does. Nothing is called and nothing is kept.",
  positionals: ['tenant', 'text'],
  options: { system: { value: 'TEXT', help: 'the system prompt that goes before it' }, json: JSON_OPTION },
  run: (args, context) => withClient(context, (client) => runTest(args, client, context)),
}

/** @throws CommandFailed, UsageError for what is no document */
function readDocument(path: string): object {
  const read = /\.json$/i.test(path) ? readJson(path) : readYaml(path)
  if (typeof read === 'object' && read !== null && !Array.isArray(read)) return read
  throw new UsageError(`${path} is no mapping with rules, samples and models`)
}

function readJson(path: string): unknown {
  try {
    if (statSync(path).size > MAX_JSON_BYTES) throw new CommandFailed(`${path} is too large: at most ${grouped(MAX_JSON_BYTES)} bytes.`)
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw new CommandFailed(`${path} is not JSON: ${error.message}`)
    if (error instanceof Error && 'code' in error) throw new CommandFailed(`${path} cannot be read (${String(error.code)}).`)
    throw error
  }
}

function readYaml(path: string): unknown {
  const list = new IssueList()
  const source = readSource(dirname(path), basename(path), list)
  if (source === null) throw new CommandFailed(`the file has mistakes:\n${formatIssues(list.issues)}`)
  return source.raw
}

function summaryOf({ tenant, version, rules, samples, models, own_domains }: Document): string {
  const keywords = rules.reduce((sum, rule) => sum + rule.keywords.length, 0)
  const counts = `${rules.length} rules with ${keywords} keywords, ${samples.length} samples, ${Object.keys(models).length} virtual models`
  const meant = own_domains.map((domain) => {
    const near = nearest(domain, DOMAINS)
    return near === null ? domain : `${domain} (or did you mean ${near}?)`
  })
  const own = meant.length === 0 ? '' : `Domains of its own: ${meant.join(', ')}.\n`
  return `Tenant ${tenant} has version ${version}: ${counts}.\n${own}`
}

async function runTest(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const { rules, samples } = Document.parse(await client.request('GET', pathOf(args)))
  const evidence = prepareEvidence(rules, samples)
  const classifier = readClassifier()
  const system = args.text('system')
  const messages = [
    ...(system === undefined ? [] : [{ role: 'system', content: system }]),
    { role: 'user', content: args.positional(1) ?? '' },
  ]
  const prompt = promptOf(messages)
  const decided = decideDomain(prompt, { fixed: null, hint: null, tenant: evidence, classifier })
  const match = evidence.samples?.find(prompt) ?? null
  const { scores, ...guess } = classifier.classify(prompt)
  if (args.flag('json')) {
    const { domain, confidence, by, keyword } = decided
    const looked = { sample: match, classifier: { ...guess, sure_from: CONFIDENCE_THRESHOLD, scores } }
    printJson({ object: 'routing_test', domain, confidence, by, keyword, ...looked }, context)
  } else context.out(explanation(decided, match, Object.entries(scores)))
  return 0
}

const share = (value: number): string => value.toFixed(2)
const LIKELIEST = 3

function explanation(
  { domain, confidence, by, keyword }: DomainEvidence,
  match: SampleMatch | null,
  scores: ReadonlyArray<[string, number]>,
): string {
  const likeliest = scores.toSorted((a, b) => b[1] - a[1]).slice(0, LIKELIEST)
  const decides = {
    name: 'the name that was called',
    hint: 'the caller said so',
    rule: `the keyword ${JSON.stringify(keyword)} of a rule`,
    sample: match === null ? 'a sample' : `samples.${match.sample}, which it is much like`,
    classifier: 'the classifier',
    opening: 'the classifier, by how the conversation began',
  }[by]
  const nearby = match === null ? 'none is like it' : `samples.${match.sample} (${match.domain}), likeness ${share(match.likeness)}`
  const lines = [
    `${domain} (${share(confidence)}), decided by ${decides}`,
    `  keyword     ${keyword === null ? 'no rule has one that is in it' : JSON.stringify(keyword)}`,
    `  sample      ${nearby}`,
    `  classifier  ${likeliest.map(([name, score]) => `${name} ${share(score)}`).join(', ')} (sure from ${CONFIDENCE_THRESHOLD} on, else general)`,
  ]
  return `${lines.join('\n')}\n`
}

/** Commands about what tenants say of their own traffic. */
export const ROUTING_COMMANDS: readonly Command[] = [show, set, clear, test]
