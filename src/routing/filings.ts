/**
 * Filing numbers (备案号), registration numbers (登记号) and the registry that says which of them exist. Pure.
 *
 * The number is the key, never the name: two companies filed 天问. The regulator's list shows no withdrawals, and the date inside of a
 * number is not the date of the filing. Source of the two shapes: the list of filed services of the Cyberspace Administration of China,
 * https://www.cac.gov.cn/2024-04/02/c_1713729983803145.htm
 */

/** A model or service is filed; an application that uses a filed one is registered. */
export type FilingKind = 'filed' | 'registered'

/** One number, taken apart. */
export interface FilingNumber {
  readonly kind: FilingKind
  /** As written. */
  readonly text: string
  /** The same for every spelling of the number. */
  readonly folded: string
  /** The part before the name: a province, or `ZhongYangQiYe`. Need not be the province that filed it. */
  readonly prefix: string
  readonly name: string
  /** `YYYYMMDD`, as written. Not the date of the filing. */
  readonly date: string
  /** The digits after the date; empty where there are none. */
  readonly serial: string
}

/** One row of the registry. What the list does not say is an empty text. */
export interface FilingRow {
  readonly number: string
  readonly kind: FilingKind
  /** The filed service. Not unique. */
  readonly name: string
  readonly entity: string
  readonly province: string
  /** `YYYY-MM-DD`, or empty. */
  readonly filed_on: string
  readonly source: string
}

/** Every number that is known, as of a date. Made by {@link makeRegistry}. */
export interface FilingRegistry {
  /** Date of the newest list that went into it, `YYYY-MM-DD`; null for a registry without a list. */
  readonly as_of: string | null
  /** By folded number, in that order. */
  readonly rows: ReadonlyMap<string, FilingRow>
  /** By folded name of the entity. */
  readonly by_entity: ReadonlyMap<string, readonly FilingRow[]>
}

/** Most rows of a registry. The list of 2026-08 has 1,112. */
export const MAX_FILING_ROWS = 50_000
/** Longest number; the longest known one has 60 characters. */
const MAX_NUMBER_CHARS = 128

// ASCII only, as every number of the list is: a number goes into a response header.
const NUMBER = /^([a-z]+)-([a-z0-9_.-]+)-(\d{8})(\d{4}|\d{6}|s\d{4})?$/i

/** Reads a number of either shape, without looking whether it exists; null if it has neither. */
export function parseFilingNumber(text: string): FilingNumber | null {
  if (text.length > MAX_NUMBER_CHARS) return null
  const match = NUMBER.exec(text)
  if (match === null) return null
  const [, prefix = '', name = '', date = '', rest = ''] = match
  const registered = /^s/i.test(rest)
  return { kind: registered ? 'registered' : 'filed', text, folded: foldNumber(text), prefix, name, date, serial: rest.replace(/^s/i, '') }
}

/** True for two spellings of one number. */
export function sameNumber(left: string, right: string): boolean {
  return foldNumber(left) === foldNumber(right)
}

/** Numbers are compared without regard to case: the list itself writes `ZheJiang` and `Zhejiang`. */
function foldNumber(text: string): string {
  return text.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())
}

/** Company names are compared without regard to width, case and blanks: `（北京）` is `(北京)`. */
export function foldEntity(name: string): string {
  return name.normalize('NFKC').replaceAll(/\s+/g, '').toLowerCase()
}

export const EMPTY_REGISTRY: FilingRegistry = { as_of: null, rows: new Map(), by_entity: new Map() }

/**
 * The registry of these rows, by number. Of rows with one number the first counts.
 *
 * @throws RangeError for more than {@link MAX_FILING_ROWS} numbers
 */
export function makeRegistry(as_of: string | null, given: Iterable<FilingRow>): FilingRegistry {
  const found = new Map<string, FilingRow>()
  for (const row of given) {
    const key = foldNumber(row.number)
    if (!found.has(key)) found.set(key, row)
    if (found.size > MAX_FILING_ROWS) throw new RangeError(`a registry has at most ${MAX_FILING_ROWS} numbers`)
  }
  const rows = new Map([...found].toSorted(([left], [right]) => (left < right ? -1 : 1)))
  const by_entity = new Map<string, FilingRow[]>()
  for (const row of rows.values()) {
    if (row.entity === '') continue
    const key = foldEntity(row.entity)
    const list = by_entity.get(key)
    if (list === undefined) by_entity.set(key, [row])
    else list.push(row)
  }
  return { as_of, rows, by_entity }
}

/** The row of a number, however it is spelled; null where the registry does not have it. */
export function findFiling({ rows }: FilingRegistry, number: string): FilingRow | null {
  return rows.get(foldNumber(number)) ?? null
}

/** What an entity has filed and registered, by number. */
export function filingsOf({ by_entity }: FilingRegistry, entity: string): readonly FilingRow[] {
  return by_entity.get(foldEntity(entity)) ?? []
}

/** Rows with this text in their number, name, entity or province, in the order of numbers, `limit` at most. */
export function searchFilings({ rows }: FilingRegistry, text: string, limit: number): readonly FilingRow[] {
  const wanted = foldEntity(text)
  const found: FilingRow[] = []
  for (const row of rows.values()) {
    if (found.length >= limit) break
    const { number, name, entity, province } = row
    if ([number, name, entity, province].some((value) => foldEntity(value).includes(wanted))) found.push(row)
  }
  return found
}

/** What became of a list that was merged into a registry. Counts are numbers, not rows. */
export interface MergedFilings {
  readonly registry: FilingRegistry
  readonly added: readonly FilingRow[]
  readonly changed: readonly { readonly before: FilingRow; readonly after: FilingRow }[]
  readonly unchanged: number
  /** Numbers that the list does not have. They stay: a list shows no withdrawals. */
  readonly not_in_list: number
}

/**
 * Adds a list to what is known. Nothing is removed. Of what both say the newer one is right (the list, if neither is), but for what it leaves
 * empty; a number keeps its spelling. The date becomes the later of the two.
 *
 * @throws RangeError for more than {@link MAX_FILING_ROWS} numbers in all
 */
export function mergeFilings(known: FilingRegistry, list: FilingRegistry): MergedFilings {
  const list_is_older = (list.as_of ?? '') < (known.as_of ?? '')
  const rows = new Map(known.rows)
  const added: FilingRow[] = []
  const changed: { before: FilingRow; after: FilingRow }[] = []
  for (const [key, row] of list.rows) {
    const before = rows.get(key)
    const after = before === undefined ? row : list_is_older ? completed(before, row) : completed({ ...row, number: before.number }, before)
    rows.set(key, after)
    if (before === undefined) added.push(row)
    else if (!sameRow(before, after)) changed.push({ before, after })
  }
  const as_of = list_is_older ? known.as_of : list.as_of
  const in_both = list.rows.size - added.length
  return {
    registry: makeRegistry(as_of, rows.values()),
    added,
    changed,
    unchanged: in_both - changed.length,
    not_in_list: known.rows.size - in_both,
  }
}

/** The row with its gaps filled from another. */
function completed(row: FilingRow, other: FilingRow): FilingRow {
  return {
    ...row,
    name: row.name || other.name,
    entity: row.entity || other.entity,
    province: row.province || other.province,
    filed_on: row.filed_on || other.filed_on,
    source: row.source || other.source,
  }
}

/** Where a row was read does not change what it says. */
function sameRow(left: FilingRow, right: FilingRow): boolean {
  return (['number', 'name', 'entity', 'province', 'filed_on'] as const).every((member) => left[member] === right[member])
}

/** What an endpoint says of its filing, beside what the registry knows of the number. */
export interface EndpointFiling {
  /** Of the model that is served, as the registry spells it. */
  readonly number: string
  /** Of the application that uses the model and is what is served, where it is one. */
  readonly registration: string | null
  readonly evidence: string
  /** Null where the registry does not have the number. */
  readonly row: FilingRow | null
}

/** The filing that a catalogue names, looked up. */
export function lookUpFiling(
  filing: Pick<EndpointFiling, 'number' | 'registration' | 'evidence'>,
  registry: FilingRegistry,
): EndpointFiling {
  const { number, registration, evidence } = filing
  const row = findFiling(registry, number)
  return { number: row?.number ?? number, registration, evidence, row }
}

/** What of an endpoint decides what it may serve and say. */
export interface Filed {
  readonly filing: EndpointFiling | null
  readonly sandbox: boolean
}

/**
 * Traffic that serves the public goes to filed models only (Interim Measures for Generative AI Services, art. 2 and 17). A number that is not
 * in the registry is no filing: such numbers circulate.
 */
export function mayServePublic({ filing }: Pick<Filed, 'filing'>): boolean {
  return filing !== null && filing.row !== null
}

/** The filing that answers may name: one that the registry has, and never for the sandbox, which is nobody's service. */
export function shownFiling({ filing, sandbox }: Filed): EndpointFiling | null {
  return sandbox || filing === null || filing.row === null ? null : filing
}

/** `Beijing-ChatGLM-20230821`, or `Beijing-ChatGLM-20230821; registration=Hunan-Sibionics-20250905S0006`; null where nothing may be named. */
export function filingText(endpoint: Filed): string | null {
  const filing = shownFiling(endpoint)
  if (filing === null) return null
  return filing.registration === null ? filing.number : `${filing.number}; registration=${filing.registration}`
}

/** True if both are said to have the same filing, known or not. */
export function sameFiling(left: Pick<Filed, 'filing'>, right: Pick<Filed, 'filing'>): boolean {
  return left.filing?.number === right.filing?.number && left.filing?.registration === right.filing?.registration
}
