import { CsvError, parse } from 'csv-parse/sync'

/** One record of a CSV text and the line on which it begins, from 1. */
export interface CsvRecord {
  readonly cells: readonly string[]
  readonly line: number
}

/** The text is no CSV. `line` is where that was noticed. */
export class CsvProblem extends Error {
  override name = 'CsvProblem'
  readonly line: number
  constructor(message: string, line: number) {
    super(message)
    this.line = line
  }
}

export interface CsvOptions {
  readonly delimiter: ',' | ';' | '\t'
  /** Quotes in the middle of a field are a part of it, and no line is a comment. */
  readonly lenient: boolean
}

/** Longest record, so that an open quote is noticed before it has taken in the whole text. */
const MAX_RECORD_CHARS = 65_536

/**
 * Reads CSV (RFC 4180). Empty lines and comments (lines that begin with `#`) are left out. Records may differ in length; cells are as written.
 *
 * @param text without a byte order mark
 * @throws CsvProblem
 */
export function readCsv(text: string, { delimiter, lenient }: CsvOptions): readonly CsvRecord[] {
  try {
    // Of line ends within quotes the parser counts some twice, so there is one kind of them.
    const records = parse(text.replaceAll(/\r\n?/g, '\n'), {
      ...{ delimiter, record_delimiter: '\n', skip_empty_lines: true, relax_column_count: true, info: true },
      ...{ relax_quotes: lenient, max_record_size: MAX_RECORD_CHARS },
      ...(lenient ? {} : { comment: '#', comment_no_infix: true }),
    }) as unknown as readonly { readonly info: { readonly lines: number }; readonly record: readonly string[] }[]
    return records.map(({ info, record }) => ({ cells: record, line: info.lines - linesWithin(record) }))
  } catch (error) {
    if (!(error instanceof CsvError)) throw error
    const line: unknown = error['lines']
    throw new CsvProblem(PROBLEMS[error.code] ?? `cannot be read (${error.code})`, typeof line === 'number' ? line : 1)
  }
}

const PROBLEMS: Readonly<Partial<Record<CsvError['code'], string>>> = {
  CSV_QUOTE_NOT_CLOSED: 'has a quote that is never closed',
  CSV_INVALID_CLOSING_QUOTE: 'has text behind a closing quote',
  INVALID_OPENING_QUOTE: 'has a quote in the middle of a field that is not quoted',
  CSV_MAX_RECORD_SIZE: `has a record of more than ${MAX_RECORD_CHARS} characters, perhaps after a quote that is not closed`,
}

function linesWithin(cells: readonly string[]): number {
  return cells.reduce((sum, cell) => sum + cell.split('\n').length - 1, 0)
}

/** One line of CSV, fields quoted where they have to be. */
export function csvLine(cells: readonly string[]): string {
  const fields = cells.map((cell) => (/[",\r\n]|^[#\s]|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell))
  return `${fields.join(',')}\n`
}
