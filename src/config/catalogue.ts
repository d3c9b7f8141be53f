import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { z } from 'zod'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import { valueAt } from './document.ts'
import type { IssueList, Path, SourceFile } from './document.ts'
import { buildEndpoint, type EndpointEntry, type ProviderEntry } from './endpoint.ts'
import { checkDates, checkSuccessors, lifeMembers } from './lives.ts'
import type { Catalogue, Endpoint, InactiveEndpoint, Model } from './model.ts'
import { buildProfile, type ProfileEntry } from './profiles.ts'
import { parseShape } from './parse.ts'
import { CATALOGUE, ENDPOINT, MODEL, MODEL_ID, PROFILE_MODEL, PROVIDER } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

/** What the rest of the configuration may refer to, entries with mistakes included. */
export interface CatalogueNames {
  readonly models: ReadonlySet<string>
  readonly endpoints: ReadonlySet<string>
  readonly aliases: ReadonlyMap<string, string>
  /** Models that have their model's price unless they have one of their own. */
  readonly profiles: ReadonlySet<string>
  /** Whether an endpoint could not be read, so that `endpoints` may lack its id. */
  readonly incomplete: boolean
}

interface LoadContext {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly providers: readonly ProviderFacts[]
}
interface Building {
  readonly source: SourceFile
  readonly issues: IssueList
  readonly config_dir: string
  readonly production: boolean
  readonly facts: ReadonlyMap<string, ProviderFacts>
  readonly providers: ReadonlyMap<string, ProviderEntry>
  /** Endpoint id → where it was first given. */
  readonly endpoints: Set<string>
  incomplete: boolean
}
type ModelEntry = z.output<typeof MODEL>

/** `catalogue.yaml`, checked against the facts that are known about providers. Null when nothing of it can be used. */
export function buildCatalogue(
  source: SourceFile,
  value: unknown,
  context: LoadContext,
  issues: IssueList,
): { readonly catalogue: Catalogue; readonly names: CatalogueNames } | null {
  const top = parseShape(CATALOGUE, value, source, [], issues)
  if (top === null) return null
  const facts = new Map(context.providers.map((provider) => [provider.id, provider]))
  const building: Building = {
    source,
    issues,
    config_dir: context.config_dir,
    production: context.env['NODE_ENV'] === 'production',
    facts,
    providers: readProviders(top.providers, source, facts, context.config_dir, issues),
    endpoints: new Set(),
    incomplete: false,
  }
  const own_models = new Map<string, Model>()
  const profiles = new Map<string, ProfileEntry>()
  const aliases = new Map<string, string>()
  const model_ids = new Set(Object.keys(top.models))
  if (model_ids.size === 0) issues.add(source, ['models'], 'has no model', 'at least one model')
  for (const [id, raw] of Object.entries(top.models)) {
    const at = ['models', id]
    parseShape(MODEL_ID, id, source, at, issues)
    refuseReserved(id, at, building)
    if (valueAt(raw, ['profile']) !== undefined) {
      const profile = parseShape(PROFILE_MODEL, raw, source, at, issues)
      if (profile === null) continue
      addAliases(id, profile, { model_ids, aliases }, building)
      profiles.set(id, profile)
      continue
    }
    const entry = parseShape(MODEL, raw, source, at, issues)
    if (entry === null) {
      checkEndpointsOf(id, raw, building)
      continue
    }
    addAliases(id, entry, { model_ids, aliases }, building)
    own_models.set(id, buildModel(id, entry, building))
  }
  const models = withProfiles(own_models, profiles, model_ids, building)
  checkSuccessors(models, { ids: model_ids, aliases }, source, issues)
  const names = {
    models: model_ids,
    endpoints: building.endpoints,
    aliases,
    profiles: new Set(profiles.keys()),
    incomplete: building.incomplete,
  }
  return { catalogue: { models, aliases }, names }
}

/** Models and profiles of them, in the order of the file. */
function withProfiles(
  models: ReadonlyMap<string, Model>,
  profiles: ReadonlyMap<string, ProfileEntry>,
  ids: ReadonlySet<string>,
  { source, issues, config_dir }: Building,
): ReadonlyMap<string, Model> {
  const built = [...ids].flatMap((id): [string, Model][] => {
    const entry = profiles.get(id)
    const model = entry === undefined ? models.get(id) : buildProfile(id, entry, { models, ids, profiles, config_dir, source, issues })
    return model === undefined || model === null ? [] : [[id, model]]
  })
  return new Map(built)
}

function readProviders(
  raw: Readonly<Record<string, unknown>>,
  source: SourceFile,
  facts: ReadonlyMap<string, ProviderFacts>,
  config_dir: string,
  issues: IssueList,
): ReadonlyMap<string, ProviderEntry> {
  const providers = new Map<string, ProviderEntry>()
  for (const [id, value] of Object.entries(raw)) {
    const at = ['providers', id]
    if (!facts.has(id)) issues.add(source, at, `unknown provider "${id}"`, expectedOneOf(id, [...facts.keys()]))
    const entry = parseShape(PROVIDER, value, source, at, issues)
    if (entry === null) continue
    providers.set(id, entry)
    checkFiles(entry, at, config_dir, source, issues)
    checkKeys(entry, at, source, issues)
  }
  return providers
}

function refuseReserved(name: string, at: Path, building: Building): void {
  if (name !== 'auto' && !name.startsWith('auto/')) return
  building.issues.add(building.source, at, `the name "${name}" is reserved for routes`, 'a name that does not begin with auto')
}

function addAliases(
  id: string,
  entry: Pick<ModelEntry, 'aliases'>,
  taken: { readonly model_ids: ReadonlySet<string>; readonly aliases: Map<string, string> },
  building: Building,
): void {
  for (const [index, alias] of entry.aliases.entries()) {
    const at = ['models', id, 'aliases', index]
    refuseReserved(alias, at, building)
    const owner = taken.model_ids.has(alias) ? alias : taken.aliases.get(alias)
    if (owner === undefined) taken.aliases.set(alias, id)
    else building.issues.add(building.source, at, `the alias "${alias}" already names the model ${owner}`, 'a name that nothing else has')
  }
}

function buildModel(id: string, entry: ModelEntry, building: Building): Model {
  if (entry.max_output_tokens !== undefined && entry.max_output_tokens > entry.context_tokens) {
    building.issues.add(
      building.source,
      ['models', id, 'max_output_tokens'],
      `is ${entry.max_output_tokens}, above context_tokens`,
      `at most ${entry.context_tokens}`,
    )
  }
  if (entry.kind === 'chat' && entry.max_output_tokens === 0) {
    building.issues.add(building.source, ['models', id, 'max_output_tokens'], 'is 0', 'at least 1 for a chat model')
  }
  checkDates(id, entry, building.source, building.issues)
  const { endpoints, inactive } = buildEndpoints(id, entry, entry.endpoints, building)
  const { kind, domain, owned_by, context_tokens, tokenizer, attachment_tokens, capabilities } = entry
  const created = Date.parse(entry.created) / 1000
  const max_output_tokens = kind === 'chat' ? (entry.max_output_tokens ?? null) : 0
  return {
    ...{ id, kind, domain, owned_by, context_tokens, max_output_tokens, tokenizer, attachment_tokens, capabilities },
    ...lifeMembers(entry),
    profile: null,
    ...{ thinking: entry.thinking ?? null, tenants: entry.tenants ?? null, created, endpoints, inactive },
  }
}

/** The endpoints of a model that has mistakes of its own are still checked. */
function checkEndpointsOf(id: string, raw: unknown, building: Building): void {
  const list = valueAt(raw, ['endpoints'])
  const given = valueAt(raw, ['kind'])
  const kind = given === 'embeddings' || given === 'rerank' ? given : 'chat'
  if (Array.isArray(list)) buildEndpoints(id, { kind }, list, building)
  else building.incomplete = true
}

function buildEndpoints(
  id: string,
  model: Pick<ModelEntry, 'kind' | 'thinking'>,
  list: readonly unknown[],
  building: Building,
): Pick<Model, 'endpoints' | 'inactive'> {
  const endpoints: Endpoint[] = []
  const inactive: InactiveEndpoint[] = []
  for (const [index, raw] of list.entries()) {
    const at = ['models', id, 'endpoints', index]
    const given = parseShape(ENDPOINT, raw, building.source, at, building.issues)
    if (given === null) building.incomplete = true
    const built = given === null ? null : readEndpoint(id, model, given, at, building)
    if (built === null) continue
    if ('reason' in built) inactive.push(built)
    else endpoints.push(built)
  }
  return { endpoints, inactive }
}

/** An endpoint, or why it is not active, or null after a mistake. */
function readEndpoint(
  model: string,
  entry: Pick<ModelEntry, 'kind' | 'thinking'>,
  given: EndpointEntry,
  at: Path,
  building: Building,
): Endpoint | InactiveEndpoint | null {
  const { source, issues } = building
  const id = given.id ?? `${given.provider}/${model}`
  if (building.endpoints.has(id))
    issues.add(
      source,
      given.id === undefined ? at : [...at, 'id'],
      `the endpoint id "${id}" is given twice`,
      'an id of its own for each endpoint',
    )
  building.endpoints.add(id)
  checkFiles(given, at, building.config_dir, source, issues)
  checkKeys(given, at, source, issues)
  const facts = building.facts.get(given.provider)
  if (facts === undefined) {
    issues.add(
      source,
      [...at, 'provider'],
      `unknown provider "${given.provider}"`,
      expectedOneOf(given.provider, [...building.facts.keys()]),
    )
    return null
  }
  if (facts.id === 'sandbox' && building.production) {
    issues.add(
      source,
      [...at, 'provider'],
      'the sandbox is not served in production',
      'a real provider: sandbox targets exist in demo mode only',
    )
  }
  const provider = building.providers.get(given.provider) ?? {}
  return buildEndpoint({ id, model, ...entry, given, provider, facts, config_dir: building.config_dir }, (key, message, expected) =>
    issues.add(source, [...at, key], message, expected),
  )
}

function checkKeys(
  { api_key, api_keys = [] }: Pick<ProviderEntry, 'api_key' | 'api_keys'>,
  at: Path,
  source: SourceFile,
  issues: IssueList,
): void {
  if (api_key !== undefined && api_keys.length > 0) issues.add(source, [...at, 'api_keys'], 'is given beside api_key', 'one of the two')
  for (const [index, { name }] of api_keys.entries()) {
    if (api_keys.findIndex((other) => other.name === name) === index) continue
    issues.add(source, [...at, 'api_keys', index, 'name'], `the name "${name}" is given twice`, 'a name of its own for each key')
  }
}

function checkFiles(
  entry: Pick<ProviderEntry, 'ca_file' | 'cert_file' | 'key_file'>,
  at: Path,
  config_dir: string,
  source: SourceFile,
  issues: IssueList,
): void {
  for (const key of ['ca_file', 'cert_file', 'key_file'] as const) {
    const file = entry[key]
    if (file === undefined) continue
    const path = resolve(config_dir, file)
    if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true)
      issues.add(source, [...at, key], `there is no file ${path}`, 'the path of a PEM file')
  }
  if ((entry.cert_file === undefined) === (entry.key_file === undefined)) return
  const [given, missing] = entry.cert_file === undefined ? ['key_file', 'cert_file'] : ['cert_file', 'key_file']
  issues.add(source, [...at, missing ?? ''], 'is missing', `a file for ${missing}, since ${given} is given`)
}
