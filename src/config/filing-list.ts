import { type FilingRow, MAX_FILING_ROWS, parseFilingNumber } from '../routing/filings.ts'
import { CsvProblem, type CsvOptions, type CsvRecord, readCsv } from './csv.ts'
import { isDate } from './schema.ts'

/** Something of a list that could not be taken over. */
export interface ListProblem {
  readonly line: number
  readonly message: string
}

/** A list as somebody published it, read. */
export interface FilingList {
  readonly encoding: 'UTF-8' | 'GB18030' | 'UTF-16'
  /** Each number once: its first row. */
  readonly rows: readonly FilingRow[]
  /** Rows of a number that an earlier row has too. */
  readonly duplicates: number
  readonly problems: readonly ListProblem[]
  /** The newest date of a filing: the list is of that day or later. Null where it has no dates. */
  readonly newest: string | null
}

/** The whole file is no list. */
export class ListUnreadable extends Error {
  override name = 'ListUnreadable'
}

type Column = 'number' | 'name' | 'entity' | 'province' | 'filed_on' | 'source'

/** Names of columns as the regulator's lists and their copies have them, folded. The first of a list's columns that is named here counts. */
const HEADERS: Readonly<Record<Column, readonly string[]>> = {
  number: [
    ...['number', 'filingnumber', 'filingno', 'registrationnumber', 'recordnumber', 'recordno'],
    ...['备案编号', '备案号', '模型备案号', '备案登记号', '登记编号', '登记号', '上线编号', '备案编号登记编号'],
  ],
  name: [
    ...['name', 'namezh', 'model', 'modelname', 'service', 'servicename', 'application'],
    ...['模型名称', '服务名称', '名称', '产品名称', '应用名称', '应用功能名称', '应用或功能名称', '大模型名称'],
  ],
  entity: [
    ...['entity', 'company', 'filer', 'provider', 'organisation', 'organization'],
    ...['备案单位', '登记单位', '主体', '主体名称', '企业', '企业名称', '公司名称', '单位名称'],
  ],
  province: ['province', 'region', '属地', '省份', '地区', '省市'],
  filed_on: ['filedon', 'registeredon', 'date', 'filingdate', '备案时间', '备案日期', '登记时间', '登记日期', '日期'],
  source: ['source', '来源', '出处'],
}

/** As many lines as a list may have above its columns: titles and remarks. */
const MAX_TITLE_ROWS = 20
const DELIMITERS: readonly CsvOptions['delimiter'][] = [',', '\t', ';']
/** Longer cells are cut. */
const MAX_CELL_CHARS = 512

/**
 * Reads a list of filed or registered services: UTF-8, GB18030 (GBK) or UTF-16, with or without a byte order mark, separated by commas, semicolons
 * or tabs, with Chinese or English names of columns in any order and others between them. Pure.
 *
 * @throws ListUnreadable
 */
export function readFilingList(bytes: Buffer): FilingList {
  const { text, encoding } = decode(bytes)
  const { records, header_at } = findHeader(text)
  const header = records[header_at]
  if (header === undefined) {
    const found = records[0]?.cells.map((cell) => cell.trim().slice(0, 40)).join(', ') ?? 'nothing'
    const expected = 'one must be called 备案编号, 备案号, 登记编号, filing_number or number'
    throw new ListUnreadable(`has no column of numbers: ${expected}; its first line has ${found}`)
  }
  const rest = records.slice(header_at + 1)
  if (rest.length > MAX_FILING_ROWS) throw new ListUnreadable(`has ${rest.length} rows; at most ${MAX_FILING_ROWS} are read`)
  return { encoding, ...takeRows(rest, columnsOf(header.cells)) }
}

/** The records as the separator has it by which there is a column of numbers; `header_at` is -1 where there is none by any. */
function findHeader(text: string): { readonly records: readonly CsvRecord[]; readonly header_at: number } {
  const found = DELIMITERS.map((delimiter) => {
    const records = recordsOf(text, delimiter)
    if (records instanceof CsvProblem) return { records: [], header_at: -1, problem: records }
    return { records, header_at: records.slice(0, MAX_TITLE_ROWS).findIndex(({ cells }) => columnsOf(cells).has('number')), problem: null }
  })
  const [by_comma] = found
  const best = found.find(({ header_at }) => header_at >= 0) ?? by_comma
  if (best === undefined || best.problem !== null) throw new ListUnreadable(`line ${best?.problem?.line} ${best?.problem?.message}`)
  return best
}

function decode(bytes: Buffer): { readonly text: string; readonly encoding: FilingList['encoding'] } {
  const utf16 = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : null
  const tries =
    utf16 === null
      ? ([
          ['utf-8', 'UTF-8'],
          ['gb18030', 'GB18030'],
        ] as const)
      : ([[utf16, 'UTF-16']] as const)
  for (const [label, encoding] of tries) {
    try {
      return { text: new TextDecoder(label, { fatal: true }).decode(bytes), encoding }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
    }
  }
  throw new ListUnreadable('is neither UTF-8 nor GBK nor UTF-16 text')
}

function recordsOf(text: string, delimiter: CsvOptions['delimiter']): readonly CsvRecord[] | CsvProblem {
  try {
    return readCsv(text, { delimiter, lenient: true })
  } catch (error) {
    if (error instanceof CsvProblem) return error
    throw error
  }
}

/** Which cell has what. */
function columnsOf(cells: readonly string[]): ReadonlyMap<Column, number> {
  const columns = new Map<Column, number>()
  for (const [index, cell] of cells.entries()) {
    const folded = cell
      .normalize('NFKC')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}]/gu, '')
    const column = (Object.keys(HEADERS) as Column[]).find((name) => HEADERS[name].includes(folded))
    if (column !== undefined && !columns.has(column)) columns.set(column, index)
  }
  return columns
}

function takeRows(records: readonly CsvRecord[], columns: ReadonlyMap<Column, number>): Omit<FilingList, 'encoding'> {
  const rows = new Map<string, { readonly row: FilingRow; readonly line: number }>()
  const problems: ListProblem[] = []
  let duplicates = 0
  for (const { cells, line } of records) {
    const cell = (column: Column): string => tidy(cells[columns.get(column) ?? -1] ?? '')
    if (cells.every((text) => tidy(text) === '')) continue
    const written = cell('number')
    const number = parseFilingNumber(asciiNumber(written))
    if (number === null) {
      const shown = JSON.stringify(written.slice(0, 60))
      problems.push({ line, message: written === '' ? 'has no number' : `${shown} is neither a filing nor a registration number` })
      continue
    }
    const filed_on = readDate(cell('filed_on'))
    if (filed_on === null)
      problems.push({ line, message: `the date ${JSON.stringify(cell('filed_on').slice(0, 60))} cannot be read and is left out` })
    const { kind, text, folded } = number
    const row = {
      number: text,
      kind,
      filed_on: filed_on ?? '',
      name: cell('name'),
      entity: cell('entity'),
      province: cell('province'),
      source: cell('source'),
    }
    const known = rows.get(folded)
    if (known === undefined) rows.set(folded, { row, line })
    else {
      duplicates += 1
      if (known.row.entity !== row.entity || known.row.name !== row.name)
        problems.push({ line, message: `says something else of ${text} than line ${known.line}, which counts` })
    }
  }
  const dates = [...rows.values()].map(({ row }) => row.filed_on).filter((date) => date !== '')
  return { rows: [...rows.values()].map(({ row }) => row), duplicates, problems, newest: dates.toSorted().at(-1) ?? null }
}

function tidy(cell: string): string {
  return cell
    .replaceAll(/[\p{Cc}\s\u200b\ufeff]+/gu, ' ')
    .trim()
    .slice(0, MAX_CELL_CHARS)
}

/** Typesetting leaves wide letters, other dashes and blanks in numbers. */
function asciiNumber(text: string): string {
  return text
    .normalize('NFKC')
    .replaceAll(/[\u2010-\u2015\u2212]/g, '-')
    .replaceAll(' ', '')
}

/** `2023-08-31`, `2023/8/31`, `2023.8.31`, `20230831`, `2023年8月31日`, each also with a time behind it; empty for nothing, null for anything else. */
function readDate(text: string): string | null {
  if (text === '') return ''
  const match = /^(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*日?(?:[T ].*)?$/.exec(text) ?? /^(\d{4})(\d{2})(\d{2})$/.exec(text)
  if (match === null) return null
  const [, year = '', month = '', day = ''] = match
  const date = `${year}-${month.padStart(2, '0')}-${day.padStart(2, '0')}`
  return isDate(date) ? date : null
}
