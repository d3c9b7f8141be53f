import { findFiling, foldEntity, mayServePublic } from '../routing/filings.ts'
import type { Configuration, Endpoint, Model } from './model.ts'

/** The list is published every two months or so; after this many days there is a newer one. */
const MAX_AGE_DAYS = 60
const DAY_MS = 86_400_000

/** What is wrong with the filings of a configuration, and what follows from them. One line each. */
export interface FilingsReport {
  /** Date and size of the registry. */
  readonly registry: string
  /** Numbers that nobody knows: traffic that serves the public does not get there, although somebody meant it to. */
  readonly errors: readonly string[]
  readonly warnings: readonly string[]
  /** Models that cannot serve the public. */
  readonly closed: ReadonlyArray<{ readonly model: string; readonly why: string }>
}

/**
 * Compares a catalogue with the registry. Pure.
 *
 * @param now_ms decides how old the registry is
 * @param entities by provider: the legal persons that it files as; a provider that is not named here is not compared
 */
export function checkFilings(
  configuration: Configuration,
  now_ms: number,
  entities: ReadonlyMap<string, readonly string[]>,
): FilingsReport {
  const { catalogue, filings, settings } = configuration
  const models = [...catalogue.models.values()]
  const named = models.flatMap((model) => everyEndpoint(model).map((endpoint) => ({ endpoint, filing: endpoint.filing })))
  const errors: string[] = []
  const warnings = [...ageWarning(filings.as_of, now_ms)]
  for (const { endpoint, filing } of named) {
    if (filing === null) continue
    if (filing.row === null) {
      errors.push(`endpoint ${endpoint.id}: the filing number ${filing.number} is not in the registry; check it, or import a newer list`)
    } else {
      warnings.push(...entityWarning(endpoint, filing.row.entity, entities))
    }
    if (filing.registration !== null && findFiling(filings, filing.registration) === null) {
      warnings.push(
        `endpoint ${endpoint.id}: the registration ${filing.registration} is not in the registry; provinces publish them themselves`,
      )
    }
  }
  const own = settings.operator?.registration ?? null
  if (own !== null && findFiling(filings, own) === null)
    warnings.push(`operator.registration ${own} is not in the registry; provinces publish registrations themselves`)
  return { registry: registryLine(configuration, now_ms), errors, warnings, closed: models.flatMap(whyNot) }
}

function registryLine({ filings }: Configuration, now_ms: number): string {
  const { size } = filings.rows
  if (filings.as_of === null)
    return `filings: ${size === 0 ? 'no registry, so nothing counts as filed' : `${size} numbers, of no known date`}`
  const days = ageInDays(filings.as_of, now_ms)
  return `filings: ${size} ${size === 1 ? 'number' : 'numbers'} as of ${filings.as_of} (${days} ${days === 1 ? 'day' : 'days'} old)`
}

function ageInDays(as_of: string, now_ms: number): number {
  return Math.max(0, Math.floor((now_ms - Date.parse(`${as_of}T00:00:00+08:00`)) / DAY_MS))
}

function ageWarning(as_of: string | null, now_ms: number): readonly string[] {
  if (as_of === null || ageInDays(as_of, now_ms) <= MAX_AGE_DAYS) return []
  return [
    `the registry of filing numbers is more than ${MAX_AGE_DAYS} days old; get the regulator's newest list and run "weir filings import"`,
  ]
}

function entityWarning({ id, provider }: Endpoint, entity: string, entities: ReadonlyMap<string, readonly string[]>): readonly string[] {
  const known = entities.get(provider) ?? []
  if (entity === '' || known.length === 0 || known.some((name) => foldEntity(name) === foldEntity(entity))) return []
  return [`endpoint ${id}: its number was filed by ${entity}, and ${provider} is known as ${known.join(', ')}`]
}

function everyEndpoint(model: Model): readonly Endpoint[] {
  return [...model.endpoints, ...model.inactive.map(({ target }) => target)]
}

/** Judged by all endpoints, whether their keys are set or not. */
function whyNot(model: Model): FilingsReport['closed'] {
  const endpoints = everyEndpoint(model)
  if (endpoints.some(mayServePublic)) return []
  const reasons = new Set(endpoints.map(whyClosed))
  return [{ model: model.id, why: [...reasons].join('; ') || 'it has no endpoint' }]
}

function whyClosed({ filing, provider }: Endpoint): string {
  if (filing === null) return `no filing is given for ${provider}`
  return `${filing.number} is not in the registry`
}

/** One line for each reason, in the order in which they come. */
function closedLines(closed: FilingsReport['closed']): readonly string[] {
  const by_reason = Map.groupBy(closed, ({ why }) => why)
  return [...by_reason].map(([why, list]) => `  ${why}: ${list.map(({ model }) => model).join(', ')}`)
}

/** The report as `weir check` prints it: the registry, warnings, and what follows. Errors apart. */
export function filingsText({ registry, warnings, closed }: FilingsReport): string {
  return [
    registry,
    ...warnings.map((warning) => `warning: ${warning}`),
    ...(closed.length === 0 ? [] : ['models that cannot serve the public', ...closedLines(closed)]),
  ]
    .map((line) => `${line}\n`)
    .join('')
}
