import { dayOf } from '../base/clock.ts'
import type { PriceVersion } from '../money/price.ts'
import type { RouteCandidate, VirtualModel } from '../routing/virtual.ts'
import type { ConfigIssue, Configuration, Endpoint, Model, PriceBook, Settings } from './model.ts'
import { DOMAINS } from '../base/domains.ts'

/** Mistakes as text, one per line and its correction below it, in the order given. */
export function formatIssues(issues: readonly ConfigIssue[]): string {
  const lines = issues.map((issue) => {
    const place = issue.line === null ? issue.file : `${issue.file}:${issue.line}`
    const subject = issue.path === '' ? '' : `${issue.path} `
    const expected = issue.expected.startsWith('did you mean') ? issue.expected : `expected ${issue.expected}`
    return `${place}: ${subject}${issue.message}\n    ${expected}`
  })
  const count = issues.length === 1 ? '1 mistake' : `${issues.length} mistakes`
  return `${lines.join('\n')}\n${count} in the configuration\n`
}

/**
 * What a configuration amounts to, for `weir check`: models with their endpoints, the prices in force at `now_ms`,
 * limits and digest. Contains no secret.
 *
 * @param with_models models, endpoints, prices and limits one by one, rather than their numbers alone
 */
export function summarise(configuration: Configuration, now_ms: number, with_models = true): string {
  const { catalogue, prices, settings } = configuration
  const models = [...catalogue.models.values()]
  const active = models.reduce((sum, model) => sum + model.endpoints.length, 0)
  const unpriced = models.filter((model) => !prices.sell.has(model.id))
  const lines = [
    `configuration ${configuration.digest}`,
    `mode ${settings.mode}, data in ${settings.data_dir}`,
    operatorLine(settings),
    `API on ${settings.host}:${settings.port}, admin on ${settings.admin_host}:${settings.admin_port}`,
    `${models.length} models, ${active} active endpoints`,
    ...(with_models ? models.flatMap((model) => modelLines(model, aliasesOf(configuration, model.id), prices, now_ms)) : []),
    ...routesText(configuration, with_models),
    ...(with_models ? ['limits', ...Object.entries(settings.limits).map(([name, value]) => `  ${name} ${value}`)] : []),
    ...calendarLines(prices, now_ms),
    ...(unpriced.length === 0
      ? []
      : [`not sold, for want of a price under sell in price-book.yaml: ${unpriced.map(({ id }) => id).join(', ')}`]),
  ]
  return `${lines.join('\n')}\n`
}

function operatorLine({ operator }: Settings): string {
  if (operator === null) return 'operator not given: write operator in weir.yaml, which /filings and the labels of answers name'
  const { name, registration, contact } = operator
  return `operator ${[name, registration ?? 'without a registration', ...(contact === null ? [] : [contact])].join(', ')}`
}

function aliasesOf(configuration: Configuration, id: string): readonly string[] {
  return [...configuration.catalogue.aliases].filter(([, model]) => model === id).map(([alias]) => alias)
}

function modelLines(model: Model, aliases: readonly string[], prices: PriceBook, now_ms: number): string[] {
  const also = aliases.length === 0 ? '' : `, also ${aliases.join(', ')}`
  return [
    `  ${model.id} (${model.kind}, ${model.domain}, context ${model.context_tokens}, output ${model.max_output_tokens ?? 'not known'}${also})`,
    `    sells by ${versionText(prices.sell.get(model.id), now_ms) ?? 'no price yet: it cannot be sold'}`,
    ...model.endpoints.flatMap((endpoint) => [
      `    endpoint ${endpoint.id}: ${endpointText(endpoint)}`,
      `      costs by ${versionText(prices.cost.get(endpoint.id), now_ms) ?? 'no price: its margin is not known'}`,
    ]),
    ...model.inactive.map((endpoint) => `    endpoint ${endpoint.endpoint}: not active, ${endpoint.reason}`),
  ]
}

function endpointText(endpoint: Endpoint): string {
  const filing = endpoint.filing === null ? 'no filing' : `filing ${endpoint.filing.number}`
  return `${endpoint.base_url} as ${endpoint.upstream_model}, ${endpoint.zone}, tier ${endpoint.tier}, weight ${endpoint.weight}, ${filing}`
}

/** The version in force and the ones to come. */
function versionText(versions: readonly PriceVersion[] | undefined, now_ms: number): string | null {
  const current = versions?.find((version) => version.effective_from <= now_ms)
  const coming = (versions ?? [])
    .filter((version) => version.effective_from > now_ms)
    .map((version) => `${version.id} from ${dayOf(version.effective_from)}`)
  if (current === undefined && coming.length === 0) return null
  return [current?.id ?? 'nothing today', ...coming].join(', then ')
}

/** What each virtual model can choose, and in full why not the rest, and of which domains it has nothing of their own. */
function routesText({ catalogue, routes, prices }: Configuration, in_full: boolean): string[] {
  if (routes.size === 0) return ['no virtual models: there is no routes.yaml']
  const standing = (candidate: RouteCandidate): Standing => {
    const model = catalogue.models.get(candidate.model)
    const why = !prices.sell.has(candidate.model) ? 'no price' : model === undefined || model.endpoints.length === 0 ? 'no key' : null
    return { ...candidate, domain: candidate.domain ?? model?.domain ?? 'general', why }
  }
  const lines = in_full ? routeLines : routeLine
  return [`${routes.size} virtual models`, ...[...routes.values()].flatMap((route) => lines(route, route.candidates.map(standing)))]
}

interface Standing {
  readonly model: string
  readonly domain: string
  readonly weight: number
  readonly quality: number
  /** What keeps it from being chosen by anybody; null for nothing. */
  readonly why: string | null
}

function routeLine({ id, domain, prefer }: VirtualModel, candidates: readonly Standing[]): string[] {
  const able = candidates.filter(({ why }) => why === null).length
  return [`  ${id} (${domain ?? 'by prompt'}, prefers ${prefer}): ${able} of ${candidates.length} candidates can be chosen`]
}

function routeLines({ id, domain, prefer, canary }: VirtualModel, candidates: readonly Standing[]): string[] {
  const share = canary === null ? '' : `, canary ${canary.model} ${canary.percent} %`
  const able = candidates.filter(({ why }) => why === null)
  const unable = candidates.filter(({ why }) => why !== null)
  const verticals = domain === null ? DOMAINS.filter((name) => name !== 'general') : domain === 'general' ? [] : [domain]
  const lacking = verticals.filter((name) => !able.some((candidate) => candidate.domain === name))
  return [
    `  ${id} (${domain ?? 'by prompt'}, prefers ${prefer}${share})`,
    ...(able.length === 0 ? ['    warning: nothing to choose'] : [`    can choose ${able.map(candidateText).join(', ')}`]),
    ...(unable.length === 0 ? [] : [`    cannot choose ${unable.map((one) => `${candidateText(one)}: ${one.why}`).join(', ')}`]),
    ...(lacking.length === 0 ? [] : [`    nothing vertical for ${lacking.join(', ')}`]),
  ]
}

function candidateText({ model, domain, weight, quality }: Standing): string {
  return `${model} (${domain}, weight ${weight}, quality ${quality})`
}

/** Windows hold on working days, so a year without holidays prices its public holidays as working days. */
function calendarLines(prices: PriceBook, now_ms: number): string[] {
  const year = dayOf(now_ms).slice(0, 4)
  const known = [...prices.calendar.holidays].some((date) => date.startsWith(year))
  return known || prices.calendar.windows.size === 0
    ? []
    : [`warning: the calendar has no holidays of ${year}, so windows count them as working days`]
}
