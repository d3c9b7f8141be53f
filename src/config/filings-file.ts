import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  EMPTY_REGISTRY,
  type FilingRegistry,
  type FilingRow,
  makeRegistry,
  MAX_FILING_ROWS,
  parseFilingNumber,
} from '../routing/filings.ts'
import { CsvProblem, type CsvRecord, csvLine, readCsv } from './csv.ts'
import { type IssueList, type Place, readContents, type SourceFile } from './document.ts'
import { isDate } from './schema.ts'

/** The registry's file in a configuration directory. */
export const FILINGS_FILE = 'filings.csv'

const COLUMNS = ['number', 'name', 'entity', 'province', 'filed_on', 'source'] as const
/** Longest cell. */
const MAX_CELL_CHARS = 1024
const AS_OF = /^#\s*as_of:\s*(.*?)\s*$/m
const AS_OF_EXPECTED = 'a line "# as_of: 2026-08-24" above the columns: the date of the list that the rows are from'

/** What was read; `source` is null where there is no such file. */
export interface ReadFilings {
  readonly registry: FilingRegistry
  readonly source: Pick<SourceFile, 'name' | 'contents'> | null
}

/** Reads `filings.csv`. No file is an empty registry. Mistakes go to `issues`, each with its line. */
export function readFilings(config_dir: string, issues: IssueList): ReadFilings {
  const path = join(config_dir, FILINGS_FILE)
  if (!existsSync(path)) return { registry: EMPTY_REGISTRY, source: null }
  const contents = readContents(path, FILINGS_FILE, issues)
  if (contents === null) return { registry: EMPTY_REGISTRY, source: null }
  return { registry: parseFilings(contents.toString('utf8').replace(/^\uFEFF/, ''), issues), source: { name: FILINGS_FILE, contents } }
}

/** Where a mistake of the file is. */
function at(line: number): Place {
  return { name: FILINGS_FILE, lineOf: () => line }
}

function parseFilings(text: string, issues: IssueList): FilingRegistry {
  const records = recordsOf(text, issues)
  const [header, ...rest] = records ?? []
  if (records === null) return EMPTY_REGISTRY
  if (header === undefined) {
    issues.add(at(1), [], 'has no columns', `a line with the columns ${COLUMNS.join(',')}`)
    return EMPTY_REGISTRY
  }
  const columns = columnsOf(header, issues)
  const as_of = asOfIn(text, rest.length > 0, issues)
  if (columns === null) return EMPTY_REGISTRY
  if (rest.length > MAX_FILING_ROWS) {
    issues.add(at(header.line), [], `has ${rest.length} rows`, `at most ${MAX_FILING_ROWS}`)
    return EMPTY_REGISTRY
  }
  return makeRegistry(as_of, rowsOf(rest, columns, issues))
}

function recordsOf(text: string, issues: IssueList): readonly CsvRecord[] | null {
  try {
    return readCsv(text, { delimiter: ',', lenient: false })
  } catch (error) {
    if (!(error instanceof CsvProblem)) throw error
    issues.add(at(error.line), [], error.message, 'comma-separated values, quoted where they hold commas or quotes')
    return null
  }
}

/** Position of each column, or null if they are not as they should be. */
function columnsOf({ cells, line }: CsvRecord, issues: IssueList): ReadonlyMap<string, number> | null {
  const names = cells.map((cell) => cell.trim())
  const wrong = names.find((name, index) => !COLUMNS.some((known) => known === name) || names.indexOf(name) !== index)
  if (wrong === undefined && names.includes('number')) return new Map(names.map((name, index) => [name, index]))
  const message =
    wrong === undefined ? 'has no column "number"' : `has the unknown or repeated column ${JSON.stringify(wrong.slice(0, 60))}`
  issues.add(at(line), [], message, `the columns ${COLUMNS.join(',')}; to read another list, use "weir filings import"`)
  return null
}

function asOfIn(text: string, needed: boolean, issues: IssueList): string | null {
  const match = AS_OF.exec(text)
  const as_of = match?.[1] ?? null
  if (as_of === null ? !needed : isDate(as_of)) return as_of
  const line = match === null ? 1 : text.slice(0, match.index).split('\n').length
  issues.add(at(line), ['as_of'], as_of === null ? 'is missing' : `is ${JSON.stringify(as_of.slice(0, 60))}`, AS_OF_EXPECTED)
  return null
}

function rowsOf(records: readonly CsvRecord[], columns: ReadonlyMap<string, number>, issues: IssueList): readonly FilingRow[] {
  const first_lines = new Map<string, number>()
  return records.flatMap(({ cells, line }) => {
    const cell = (name: (typeof COLUMNS)[number]): string => (cells[columns.get(name) ?? -1] ?? '').trim()
    const written = cell('number')
    const number = parseFilingNumber(written)
    const place = at(line)
    if (cells.length > columns.size)
      issues.add(place, [], `has ${cells.length} cells`, `${columns.size} cells, quoted where they hold commas`)
    if (cells.some((text) => text.length > MAX_CELL_CHARS || /[\p{Cc}]/u.test(text)))
      issues.add(place, [], 'has a cell that cannot be used', `at most ${MAX_CELL_CHARS} characters and no control characters`)
    if (number === null) {
      issues.add(place, ['number'], `is ${JSON.stringify(written.slice(0, 60))}`, NUMBER_EXPECTED)
      return []
    }
    const known = first_lines.get(number.folded)
    if (known !== undefined) issues.add(place, ['number'], `is the same as in line ${known}`, 'each number once')
    first_lines.set(number.folded, known ?? line)
    const filed_on = cell('filed_on')
    if (filed_on !== '' && !isDate(filed_on))
      issues.add(place, ['filed_on'], `is ${JSON.stringify(filed_on.slice(0, 60))}`, 'a date such as 2026-08-17, or nothing')
    const { kind, text } = number
    return [
      { number: text, kind, name: cell('name'), entity: cell('entity'), province: cell('province'), filed_on, source: cell('source') },
    ]
  })
}

const NUMBER_EXPECTED = 'a number such as Beijing-DeepseekChat-202404280016 (filed) or Hunan-Sibionics-20250905S0006 (registered)'

const HEAD = `\
# Filing numbers (备案号) and registration numbers (登记号) that exist: traffic that serves the public goes only to endpoints whose number is here.
# "weir filings import" merges the regulator's list into this file, which then belongs to this configuration. Where there is no such file, nothing counts as filed.
# as_of is the date of the newest list that went into it.
# number (any case; the key), name of the service, entity that filed it, province, filed_on (the date of the filing, which the one inside of the number is not), source.
`

/** The file that reads back as this registry. */
export function formatFilings({ as_of, rows }: FilingRegistry): string {
  const lines = [...rows.values()].map(({ number, name, entity, province, filed_on, source }) =>
    csvLine([number, name, entity, province, filed_on, source]),
  )
  return `${HEAD}${as_of === null ? '' : `# as_of: ${as_of}\n`}${COLUMNS.join(',')}\n${lines.join('')}`
}
