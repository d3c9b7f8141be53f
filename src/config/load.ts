import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PriceVersion } from '../money/price.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import { buildCatalogue } from './catalogue.ts'
import { type FilingRegistry, lookUpFiling } from '../routing/filings.ts'
import { IssueList, readOptionalSource, readSource } from './document.ts'
import type { SourceFile } from './document.ts'
import { FILINGS_FILE, readFilings } from './filings-file.ts'
import type { Catalogue, ConfigIssue, Configuration, Endpoint, Model, PriceBook } from './model.ts'
import { buildPriceBook } from './price-book.ts'
import { promptFiles } from './profiles.ts'
import { resolveReferences } from './references.ts'
import { buildRoutes } from './routes.ts'
import { buildSettings } from './settings.ts'

const REQUIRED_FILES = ['weir.yaml', 'catalogue.yaml', 'price-book.yaml'] as const
/** Without it there are no virtual models. */
const ROUTES_FILE = 'routes.yaml'
/** Files that need not be there. */
const OPTIONAL_FILES = [ROUTES_FILE, FILINGS_FILE] as const
/** The files of a configuration directory, in the order in which they are read and reported. */
export const CONFIG_FILES = [...REQUIRED_FILES, ...OPTIONAL_FILES] as const

/** A configuration, or every mistake that keeps it from being one. */
export type LoadResult =
  | { readonly ok: true; readonly configuration: Configuration }
  | { readonly ok: false; readonly issues: readonly ConfigIssue[] }

export interface LoadOptions {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
  /** What is known about providers; the catalogue may name only these. */
  readonly providers: readonly ProviderFacts[]
}

/** A frozen copy of the environment, taken once at start. Nothing else reads `process.env`. */
export function readEnvironment(): Readonly<Record<string, string | undefined>> {
  return Object.freeze({ ...process.env })
}

/** The configuration directory: `WEIR_CONFIG_DIR`, else `./config`. */
export function configDirectory(env: Readonly<Record<string, string | undefined>>): string {
  return env['WEIR_CONFIG_DIR'] === undefined || env['WEIR_CONFIG_DIR'] === '' ? './config' : env['WEIR_CONFIG_DIR']
}

/**
 * Reads `weir.yaml`, `catalogue.yaml`, `price-book.yaml`, prompts of profiles in `profiles/` and, where they are, `routes.yaml` and `filings.csv`, and
 * checks them against each other. Every mistake is reported at once. Without `filings.csv` no number counts as filed. The result is deeply frozen, its
 * maps and sets only by type. Throws nothing for what a user wrote.
 */
export function loadConfiguration(options: LoadOptions): LoadResult {
  const list = new IssueList()
  const [weir, catalogue_file, price_file] = REQUIRED_FILES.map((name) => readSource(options.config_dir, name, list))
  const routes_file = readOptionalSource(options.config_dir, ROUTES_FILE, list)
  const resolved = (source: SourceFile): unknown => resolveReferences(source, options, list)
  const settings = weir ? buildSettings(weir, resolved(weir), options.env, list) : null
  const catalogue = catalogue_file ? buildCatalogue(catalogue_file, resolved(catalogue_file), options, list) : null
  const book = price_file ? buildPriceBook(price_file, resolved(price_file), catalogue?.names ?? null, list) : null
  const routes = routes_file ? buildRoutes(routes_file, resolved(routes_file), catalogue, list) : new Map<string, VirtualModel>()
  const { registry, source: filings_file } = readFilings(options.config_dir, list)
  if (list.issues.length > 0 || settings === null || catalogue === null || book === null) {
    return { ok: false, issues: Object.freeze(inFileOrder(list.issues)) }
  }
  const digest = digestOf([weir, catalogue_file, price_file, routes_file, filings_file, ...promptFiles(options.config_dir)])
  const prices = withProfiles(book, catalogue.catalogue)
  const known = withFilings(sellable(catalogue.catalogue, prices), registry)
  return { ok: true, configuration: deepFreeze({ settings, catalogue: known, prices, routes, filings: registry, digest }) }
}

/** Each endpoint with what the registry has under its number. */
function withFilings(catalogue: Catalogue, registry: FilingRegistry): Catalogue {
  const filed = (endpoint: Endpoint): Endpoint =>
    endpoint.filing === null ? endpoint : { ...endpoint, filing: lookUpFiling(endpoint.filing, registry) }
  const models = [...catalogue.models].map(([id, model]): [string, Model] => {
    const inactive = model.inactive.map((entry) => ({ ...entry, target: filed(entry.target) }))
    return [id, { ...model, endpoints: model.endpoints.map(filed), inactive }]
  })
  return { ...catalogue, models: new Map(models) }
}

/** A profile without a price of its own has its model's. */
function withProfiles(prices: PriceBook, { models }: Catalogue): PriceBook {
  const inherited = [...models.values()].flatMap(({ id, profile }): [string, readonly PriceVersion[]][] => {
    const versions = profile === null || prices.sell.has(id) ? undefined : prices.sell.get(profile.of)
    return versions === undefined ? [] : [[id, versions]]
  })
  return inherited.length === 0 ? prices : { ...prices, sell: new Map([...prices.sell, ...inherited]) }
}

/** A model without a price is known, and not served: nobody could say what an answer costs. */
function sellable(catalogue: Catalogue, prices: PriceBook): Catalogue {
  const models = [...catalogue.models].map(([id, model]): [string, Model] => {
    if (prices.sell.has(id)) return [id, model]
    const reason = 'the model has no price: write one under sell in price-book.yaml to sell it'
    const unpriced = [...model.endpoints, ...model.inactive.map(({ target }) => target)]
    return [id, { ...model, endpoints: [], inactive: unpriced.map((target) => ({ endpoint: target.id, reason, target })) }]
  })
  return { ...catalogue, models: new Map(models) }
}

/** The digest that a load of the directory's present contents would have, without reading what they mean; null if one cannot be read. */
export function digestOnDisk(config_dir: string): string | null {
  try {
    const present = CONFIG_FILES.filter(
      (name) => !OPTIONAL_FILES.some((optional) => optional === name) || existsSync(join(config_dir, name)),
    )
    const files = present.map((name) => ({ name, contents: readFileSync(join(config_dir, name)) }))
    return digestOf([...files, ...promptFiles(config_dir)])
  } catch (error) {
    if (error instanceof Error && 'code' in error) return null
    throw error
  }
}

/** Each name and length is hashed as well, so that text moved from one file to another changes the digest. */
function digestOf(sources: readonly (Pick<SourceFile, 'name' | 'contents'> | null | undefined)[]): string {
  const hash = createHash('sha256')
  for (const source of sources) {
    if (source) hash.update(`${source.name} ${source.contents.length}\n`).update(source.contents)
  }
  return hash.digest('hex')
}

function inFileOrder(issues: readonly ConfigIssue[]): ConfigIssue[] {
  const position = (issue: ConfigIssue): number => CONFIG_FILES.findIndex((name) => name === issue.file)
  return issues.toSorted((left, right) => position(left) - position(right) || (left.line ?? 0) - (right.line ?? 0))
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  const members: Iterable<unknown> = value instanceof Map || value instanceof Set ? value.values() : Object.values(value)
  for (const member of members) deepFreeze(member)
  return value
}
