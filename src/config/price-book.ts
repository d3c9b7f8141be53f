import type { z } from 'zod'
import type { PriceCondition, PriceRule, PriceVersion, TradingCalendar } from '../money/price.ts'
import type { CatalogueNames } from './catalogue.ts'
import type { IssueList, Path, SourceFile } from './document.ts'
import type { PriceBook } from './model.ts'
import { parseShape } from './parse.ts'
import { CALENDAR, isDate, PRICE_BOOK, RULE, VERSION, VERSIONS } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

interface Building {
  readonly source: SourceFile
  readonly issues: IssueList
  /** Names of windows; null when the calendar has mistakes of its own. */
  readonly windows: readonly string[] | null
}
type RuleEntry = z.output<typeof RULE>

/** `price-book.yaml`, checked against the catalogue unless that could not be read. Null when nothing of it can be used. */
export function buildPriceBook(source: SourceFile, value: unknown, names: CatalogueNames | null, issues: IssueList): PriceBook | null {
  const top = parseShape(PRICE_BOOK, value, source, [], issues)
  if (top === null) return null
  const given = parseShape(CALENDAR, top.calendar, source, ['calendar'], issues)
  const building: Building = { source, issues, windows: given === null ? null : Object.keys(given.windows) }
  const calendar = given === null ? EMPTY_CALENDAR : buildCalendar(given, source, issues)
  const sell = buildSide('sell', top.sell, building)
  const cost = buildSide('cost', top.cost, building)
  if (names !== null) {
    checkSold(Object.keys(top.sell), names, building)
    if (!names.incomplete) checkCosts(Object.keys(top.cost), names, building)
  }
  return { calendar, sell, cost }
}

const EMPTY_CALENDAR: TradingCalendar = { windows: new Map(), holidays: new Set(), workdays: new Set() }

function checkSold(priced: readonly string[], names: CatalogueNames, building: Building): void {
  const { source, issues } = building
  const known = new Set(priced)
  for (const id of names.models) {
    if (known.has(id) || names.profiles.has(id)) continue
    issues.add(
      source,
      ['sell', id],
      'is missing',
      `a price for the model ${id}: a model without a price cannot be sold until someone sets one`,
    )
  }
  for (const id of priced) {
    if (names.models.has(id)) continue
    const model = names.aliases.get(id)
    const message = model === undefined ? `unknown model "${id}"` : `"${id}" is an alias`
    issues.add(source, ['sell', id], message, model ?? expectedOneOf(id, [...names.models]))
  }
}

function checkCosts(priced: readonly string[], names: CatalogueNames, building: Building): void {
  for (const id of priced) {
    if (names.endpoints.has(id)) continue
    building.issues.add(building.source, ['cost', id], `unknown endpoint "${id}"`, expectedOneOf(id, [...names.endpoints]))
  }
}

/** Instead of versions: no price is known, so the model is listed and cannot be sold (or the cost is not known). */
const UNKNOWN = 'unknown'

function buildSide(
  side: 'sell' | 'cost',
  entries: Readonly<Record<string, unknown>>,
  building: Building,
): ReadonlyMap<string, readonly PriceVersion[]> {
  const prices = new Map<string, readonly PriceVersion[]>()
  for (const [id, value] of Object.entries(entries)) {
    if (value === UNKNOWN) continue
    const list = parseShape(VERSIONS, value, building.source, [side, id], building.issues)
    if (list === null) continue
    const versions: PriceVersion[] = []
    for (const [index, raw] of list.entries()) {
      const version = buildVersion(`${side}:${id}`, raw, [side, id, index], building)
      if (version === null) continue
      refuseTwice(version, versions, [side, id, index], building)
      versions.push(version)
    }
    prices.set(
      id,
      versions.toSorted((left, right) => right.effective_from - left.effective_from),
    )
  }
  return prices
}

function refuseTwice(version: PriceVersion, earlier: readonly PriceVersion[], at: Path, building: Building): void {
  const { source, issues } = building
  if (earlier.some((other) => other.id === version.id))
    issues.add(source, [...at, 'version'], `the version "${version.id}" is given twice`, 'a version of its own')
  if (earlier.some((other) => other.effective_from === version.effective_from)) {
    issues.add(source, [...at, 'effective_from'], 'is the same as in another version', 'one version in force at a time')
  }
}

function buildVersion(owner: string, raw: unknown, at: Path, building: Building): PriceVersion | null {
  const given = parseShape(VERSION, raw, building.source, at, building.issues)
  if (given === null) return null
  const entries = given.rules.map((rule, index) => parseShape(RULE, rule, building.source, [...at, 'rules', index], building.issues))
  checkRules(entries, at, building)
  return {
    id: `${owner}@${given.version}`,
    effective_from: given.effective_from,
    rules: entries.filter((entry) => entry !== null).map(buildRule),
    source: given.source,
    as_of: given.as_of,
  }
}

function buildRule(given: RuleEntry): PriceRule {
  return {
    name: given.name,
    when: conditionOf(given),
    tokens: {
      input: given.input,
      cached_input: given.cached_input ?? given.input,
      cache_write: given.cache_write ?? given.input,
      output: given.output,
    },
    calls: { search: given.search ?? 0n, image: given.image ?? 0n },
  }
}

function conditionOf(given: RuleEntry): PriceCondition {
  const entries = Object.entries(given.when ?? {}).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as PriceCondition
}

/** Null stands for a rule with mistakes of its own. */
function checkRules(rules: readonly (RuleEntry | null)[], at: Path, building: Building): void {
  const { source, issues, windows } = building
  const names = new Set<string>()
  for (const [index, rule] of rules.entries()) {
    if (rule === null) continue
    const path = [...at, 'rules', index]
    if (names.has(rule.name))
      issues.add(source, [...path, 'name'], `the rule "${rule.name}" is given twice`, 'a name of its own for each rule')
    names.add(rule.name)
    const when = conditionOf(rule)
    const last = index === rules.length - 1
    const unconditional = Object.keys(when).length === 0
    if (last && !unconditional)
      issues.add(
        source,
        [...path, 'when'],
        'the last rule has a condition',
        'a last rule without `when`, which applies to all that is left',
      )
    if (!last && unconditional)
      issues.add(source, path, 'no rule after this one can ever apply', 'a condition under `when`, or this rule as the last')
    if (when.window !== undefined && windows !== null && !windows.includes(when.window)) {
      issues.add(source, [...path, 'when', 'window'], `unknown window "${when.window}"`, expectedOneOf(when.window, windows))
    }
    checkRange(when.input_above, when.input_up_to, [...path, 'when', 'input_up_to'], building)
    checkRange(when.output_above, when.output_up_to, [...path, 'when', 'output_up_to'], building)
  }
}

function checkRange(above: number | undefined, up_to: number | undefined, at: Path, building: Building): void {
  if (above === undefined || up_to === undefined || above < up_to) return
  building.issues.add(building.source, at, `is ${up_to}, so that nothing lies between`, `more than ${above}`)
}

function buildCalendar(given: z.output<typeof CALENDAR>, source: SourceFile, issues: IssueList): TradingCalendar {
  const windows = new Map<string, readonly { readonly from_minute: number; readonly to_minute: number }[]>()
  for (const [name, spans] of Object.entries(given.windows)) {
    windows.set(
      name,
      spans.flatMap((span, index) => readSpan(span, ['calendar', 'windows', name, index], source, issues)),
    )
  }
  const holidays = readDates(given.holidays, ['calendar', 'holidays'], source, issues)
  const workdays = readDates(given.workdays, ['calendar', 'workdays'], source, issues)
  for (const date of workdays) {
    if (holidays.has(date)) issues.add(source, ['calendar', 'workdays'], `${date} is a holiday as well`, 'each date in one list')
  }
  return { windows, holidays, workdays }
}

function readSpan(span: string, at: Path, source: SourceFile, issues: IssueList): { from_minute: number; to_minute: number }[] {
  const match = /^([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))$/.exec(span)
  const from_minute = Number(match?.[1]) * 60 + Number(match?.[2])
  const to_minute = Number(match?.[3] ?? match?.[5]) * 60 + Number(match?.[4] ?? match?.[6])
  if (match !== null && from_minute < to_minute) return [{ from_minute, to_minute }]
  issues.add(
    source,
    at,
    `is ${JSON.stringify(span.slice(0, 60))}`,
    'a span within one day such as "09:00-12:00"; two spans for one across midnight',
  )
  return []
}

/** Longest range of dates in one entry. */
const MAX_RANGE_DAYS = 366
const DAY_MS = 86_400_000

function readDates(entries: readonly string[], at: Path, source: SourceFile, issues: IssueList): ReadonlySet<string> {
  const dates = new Set<string>()
  for (const [index, entry] of entries.entries()) {
    const [first = '', last = first, ...rest] = entry.split('..')
    const days = isDate(first) && isDate(last) ? (Date.parse(last) - Date.parse(first)) / DAY_MS + 1 : 0
    if (days < 1 || days > MAX_RANGE_DAYS || rest.length > 0) {
      issues.add(
        source,
        [...at, index],
        `is ${JSON.stringify(entry.slice(0, 60))}`,
        'a date such as "2026-10-01" or a range such as "2026-10-01..2026-10-07"',
      )
      continue
    }
    for (let day = 0; day < days; day++) dates.add(new Date(Date.parse(first) + day * DAY_MS).toISOString().slice(0, 10))
  }
  return dates
}
