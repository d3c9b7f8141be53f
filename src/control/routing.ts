import * as z from 'zod'
import { cnyPerMillionFromPico, picoFromCnyPerMillion } from '../money/amount.ts'
import { DOMAIN_FORM, domainNamed, isKnownDomain } from '../routing/domains.ts'
import { foldKeyword } from '../routing/keywords.ts'
import type { RoutingRecord, VirtualModelRecord } from '../storage/records.ts'
import type { ControlDeps } from './deps.ts'
import { announce, shown, tenantOrThrow } from './find.ts'
import { AdminProblem, isoOf, type Mistake, mistaken, parse } from './problem.ts'

/** What one tenant may say of routing. Texts are counted in UTF-16 code units. */
export const ROUTING_LIMITS = {
  rules: 100,
  keywords: 100,
  keyword_length: 64,
  samples: 500,
  sample_length: 2000,
  models: 20,
  candidates: 20,
} as const

/** All of that, with every character escaped. */
export const MAX_ROUTING_BYTES = 16_777_216

const DomainName = z.string({ error: DOMAIN_FORM }).transform((name, context) => {
  const domain = domainNamed(name)
  if (domain !== null) return domain
  context.addIssue({ code: 'custom', message: `${shown(name)} is no domain: write ${DOMAIN_FORM}` })
  return z.NEVER
})

const TEXT = 'write text, in quotes where it could be taken for a number'
const Keyword = z
  .string({ error: TEXT })
  .trim()
  .max(ROUTING_LIMITS.keyword_length, `at most ${ROUTING_LIMITS.keyword_length} characters`)
  .refine((keyword) => foldKeyword(keyword) !== '', 'is empty')

const Rule = z.strictObject({
  domain: DomainName,
  keywords: z
    .array(Keyword)
    .min(1, 'at least one keyword')
    .max(ROUTING_LIMITS.keywords, `at most ${ROUTING_LIMITS.keywords} keywords, more of them in another rule`),
})
const Sample = z.strictObject({
  text: z
    .string({ error: TEXT })
    .refine((text) => text.trim() !== '', 'is empty')
    .max(ROUTING_LIMITS.sample_length, `at most ${ROUTING_LIMITS.sample_length} characters`),
  domain: DomainName,
})

const Price = z.string('write CNY per million tokens as a string, such as "2.5"').transform((text, context) => {
  try {
    return picoFromCnyPerMillion(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'not a price' })
    return z.NEVER
  }
})
const ModelName = z.string().min(1).max(256)
const VirtualModel = z.strictObject({
  domain: DomainName.nullable().default(null),
  prefer: z.enum(['balanced', 'cost', 'quality', 'latency']).default('balanced'),
  candidates: z
    .array(
      z.strictObject({
        model: ModelName,
        domain: DomainName.nullable().default(null),
        weight: z.number().int().min(0).max(1000).default(100),
        quality: z.number().int().min(0).max(100).default(50),
      }),
    )
    .min(1, 'at least one candidate')
    .max(ROUTING_LIMITS.candidates, `at most ${ROUTING_LIMITS.candidates} candidates`),
  canary: z
    .strictObject({ model: ModelName, percent: z.number().min(0).max(100) })
    .nullable()
    .default(null),
  max_price: z
    .strictObject({ input: Price.nullable().default(null), output: Price.nullable().default(null) })
    .nullable()
    .default(null),
})

/** As `config/routes.yaml` has names of models, so that both can be read and written alike. */
const VIRTUAL_NAME = /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/

const Routing = z.strictObject({
  version: z.number().int().nonnegative().optional(),
  rules: z.array(Rule).max(ROUTING_LIMITS.rules, `at most ${ROUTING_LIMITS.rules} rules`).default([]),
  samples: z.array(Sample).max(ROUTING_LIMITS.samples, `at most ${ROUTING_LIMITS.samples} samples`).default([]),
  models: z
    .record(z.string(), VirtualModel)
    .refine((models) => Object.keys(models).length <= ROUTING_LIMITS.models, `at most ${ROUTING_LIMITS.models} virtual models`)
    .default({}),
  // What an answer has besides, so that one can be edited and sent back.
  object: z.literal('tenant_routing').optional(),
  tenant: z.string().optional(),
  own_domains: z.array(z.string()).optional(),
  updated_at: z.string().nullable().optional(),
})
type RoutingInput = z.output<typeof Routing>

/** What a tenant says of routing; nothing, version 0, where it never said anything. @throws AdminProblem `not_found` for the tenant */
export async function showRouting(tenant: string, deps: ControlDeps): Promise<object> {
  await tenantOrThrow(tenant, deps)
  return routingView(tenant, await deps.records.routing(tenant))
}

/**
 * Puts one whole document in the place of what the tenant said before. Every process has it within a second.
 *
 * @param body `{rules, samples, models, version?}`; with `version`, only if that is the version that is there
 * @throws AdminProblem `invalid_request` naming every mistake with its path, `not_found`, `conflict` for another version
 */
export async function putRouting(tenant: string, body: unknown, deps: ControlDeps): Promise<object> {
  const input = parse(Routing, body)
  const mistakes = [...tenantMistakes(tenant, input), ...evidenceMistakes(input), ...modelMistakes(input, deps)]
  if (mistakes.length > 0) throw mistaken(mistakes)
  return await store(tenant, input, deps)
}

/** Forgets what a tenant said of routing, its texts included. @throws AdminProblem `not_found` for the tenant */
export async function clearRouting(tenant: string, deps: ControlDeps): Promise<object> {
  return await store(tenant, { rules: [], samples: [], models: {} }, deps)
}

async function store(tenant: string, input: RoutingInput, deps: ControlDeps): Promise<object> {
  return await deps.turns.run(tenant, async () => {
    await tenantOrThrow(tenant, deps)
    const version = (await deps.records.routing(tenant))?.version ?? 0
    if (input.version !== undefined && input.version !== version) {
      throw new AdminProblem('conflict', `version: it is ${version} now, not ${input.version}: read it again, and change that`, 'version')
    }
    const { rules, samples } = input
    const models = Object.entries(input.models).map(([id, model]) => recordOf(id, model, deps))
    const record: RoutingRecord = { tenant, version: version + 1, rules, samples, models, updated_at: deps.clock.now_ms() }
    await announce(await deps.records.put({ kind: 'routing', record }), deps)
    return routingView(tenant, record)
  })
}

/** Aliases become the models that they stand for. */
function recordOf(
  id: string,
  { max_price, candidates, canary, ...model }: RoutingInput['models'][string],
  deps: ControlDeps,
): VirtualModelRecord {
  const named = <Item extends { readonly model: string }>(item: Item): Item => ({ ...item, model: deps.modelOf(item.model) ?? item.model })
  return {
    id,
    ...model,
    candidates: candidates.map(named),
    canary: canary === null ? null : named(canary),
    max_price_pico: { input: max_price?.input ?? null, output: max_price?.output ?? null },
  }
}

function routingView(tenant: string, record: RoutingRecord | null): object {
  const { version = 0, rules = [], samples = [], models = [], updated_at = null } = record ?? {}
  const domains = [
    ...[...rules, ...samples].map(({ domain }) => domain),
    ...models.flatMap(({ domain, candidates }) => [domain, ...candidates.map((candidate) => candidate.domain)]),
  ]
  const own = domains.filter((domain) => domain !== null && !isKnownDomain(domain))
  return {
    object: 'tenant_routing',
    tenant,
    version,
    rules,
    samples,
    models: Object.fromEntries(models.map(({ id, ...model }) => [id, modelView(model)])),
    // A misspelled domain of the closed set is one too.
    own_domains: [...new Set(own)],
    updated_at: isoOf(updated_at),
  }
}

function modelView({ max_price_pico: { input, output }, ...model }: Omit<VirtualModelRecord, 'id'>): object {
  const cny = (pico: bigint | null): string | null => (pico === null ? null : cnyPerMillionFromPico(pico))
  return { ...model, max_price: input === null && output === null ? null : { input: cny(input), output: cny(output) } }
}

function tenantMistakes(tenant: string, { tenant: named }: RoutingInput): readonly Mistake[] {
  return named === undefined || named === tenant ? [] : [{ path: 'tenant', message: `is of tenant ${shown(named)}, not of ${tenant}` }]
}

/** What can never decide anything, because something before it always does. */
function evidenceMistakes({ rules, samples }: RoutingInput): readonly Mistake[] {
  const mistakes: Mistake[] = []
  const keywords = new Map<string, string>()
  for (const [at, rule] of rules.entries()) {
    for (const [index, keyword] of rule.keywords.entries()) {
      const path = `rules.${at}.keywords.${index}`
      const before = keywords.get(foldKeyword(keyword))
      if (before === undefined) keywords.set(foldKeyword(keyword), path)
      else mistakes.push({ path, message: `is the same as ${before}, which is looked at first` })
    }
  }
  const texts = new Map<string, number>()
  for (const [at, { text, domain }] of samples.entries()) {
    const before = texts.get(text)
    if (before === undefined) texts.set(text, at)
    else if (samples[before]?.domain !== domain)
      mistakes.push({ path: `samples.${at}`, message: `has the text of samples.${before} and another domain` })
  }
  return mistakes
}

function modelMistakes({ models }: RoutingInput, deps: ControlDeps): readonly Mistake[] {
  return Object.entries(models).flatMap(([id, { candidates, canary }]) => {
    const path = `models.${id}`
    const ids = candidates.map(({ model }) => deps.modelOf(model) ?? model)
    return [
      ...nameMistakes(id, path, deps),
      ...candidates.flatMap(({ model }, at) => candidateMistakes(model, ids, at, `${path}.candidates.${at}.model`, deps)),
      ...(canary === null || ids.includes(deps.modelOf(canary.model) ?? canary.model)
        ? []
        : [{ path: `${path}.canary.model`, message: `${shown(canary.model)} is not a candidate` }]),
    ]
  })
}

function nameMistakes(id: string, path: string, { knowsModel }: ControlDeps): readonly Mistake[] {
  if (!VIRTUAL_NAME.test(id))
    return [{ path, message: 'is no name of a model: letters, digits and . _ : / -, at most 128, beginning with a letter or digit' }]
  if (id === 'auto' || id.startsWith('auto/')) return [{ path, message: "names that begin with auto are the operator's" }]
  return knowsModel(id) ? [{ path, message: 'is the name of a model already: take one that nothing has, such as acme/fast' }] : []
}

function candidateMistakes(model: string, ids: readonly string[], at: number, path: string, deps: ControlDeps): readonly Mistake[] {
  const id = deps.modelOf(model)
  if (id === null) return [{ path, message: `the catalogue has no ${shown(model)}` }]
  if (deps.kindOf(id) !== 'chat') return [{ path, message: `${shown(model)} is no chat model` }]
  return ids.indexOf(id) < at ? [{ path, message: `${id} is given twice` }] : []
}
