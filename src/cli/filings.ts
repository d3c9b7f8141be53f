import { closeSync, existsSync, fsyncSync, openSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { IssueList, MAX_FILE_BYTES } from '../config/document.ts'
import { formatIssues } from '../config/check.ts'
import { type FilingList, ListUnreadable, readFilingList } from '../config/filing-list.ts'
import { FILINGS_FILE, formatFilings, readFilings } from '../config/filings-file.ts'
import { configDirectory } from '../config/load.ts'
import { isDate } from '../config/schema.ts'
import {
  type FilingRegistry,
  type FilingRow,
  makeRegistry,
  MAX_FILING_ROWS,
  type MergedFilings,
  mergeFilings,
  searchFilings,
} from '../routing/filings.ts'
import { JSON_OPTION, printJson } from './accounts.ts'
import { readConfiguration } from './client.ts'
import type { Arguments, Command, OptionSpec } from './command.ts'
import { CommandFailed, UsageError, type CliContext } from './io.ts'
import { reportFilings } from './reports.ts'
import { grouped, table } from './table.ts'

const CONFIG_DIR_OPTION: OptionSpec = { value: 'DIR', help: 'instead of WEIR_CONFIG_DIR or ./config' }
/** Lines of each kind that are shown; the rest is counted. */
const SHOWN = 20

const importCommand: Command = {
  name: 'filings import',
  summary: "Merge the regulator's list of filed (or registered) services into the registry, config/filings.csv.",
  details:
    'Reads CSV in UTF-8, GBK or UTF-16, with Chinese or English names of columns. Nothing is removed: a list shows no withdrawals, so a number that it lacks is kept. ' +
    'Rows that cannot be taken over are named by their line.',
  positionals: ['csv'],
  options: {
    'as-of': { value: 'DATE', help: 'the date of the list; without it, the newest date of a filing in it' },
    source: { value: 'TEXT', help: 'where the list was published, for rows that do not say so themselves' },
    'dry-run': { help: 'only say what would change' },
    'config-dir': CONFIG_DIR_OPTION,
  },
  run: (args, context) => Promise.resolve(runImport(args, context)),
}

function runImport(args: Arguments, context: CliContext): number {
  const config_dir = args.text('config-dir') ?? configDirectory(context.env)
  const list = readList(args.positional(0) ?? '')
  const known = readRegistry(config_dir)
  const source = args.text('source') ?? ''
  const rows = list.rows.map((row) => (row.source === '' ? { ...row, source } : row))
  const merged = merge(known, makeRegistry(dateOf(list, args), rows))
  context.out(importText(list, merged))
  const { registry } = merged
  const summary = `${grouped(registry.rows.size)} numbers as of ${registry.as_of ?? 'no known date'}`
  if (args.flag('dry-run')) {
    context.out(`Nothing was written (--dry-run). The registry would have ${summary}.\n`)
    return 0
  }
  const path = writeRegistry(config_dir, registry)
  context.out(
    `Wrote ${path}: ${summary}. A running server takes it with its next reload, by itself within seconds; "weir reload" does it at once.\n`,
  )
  return 0
}

function readList(path: string): FilingList {
  try {
    const { size } = statSync(path)
    if (size > MAX_FILE_BYTES) throw new CommandFailed(`${path} is larger than ${MAX_FILE_BYTES} bytes`)
    const list = readFilingList(readFileSync(path))
    if (list.rows.length === 0) throw new CommandFailed(`${path} has no row with a number, so nothing was changed`)
    return list
  } catch (error) {
    if (error instanceof ListUnreadable) throw new CommandFailed(`${path} ${error.message}`)
    if (error instanceof Error && 'code' in error) throw new CommandFailed(`${path} cannot be read (${String(error.code)})`)
    throw error
  }
}

/** @throws CommandFailed if the file that is there has mistakes */
function readRegistry(config_dir: string): FilingRegistry {
  const issues = new IssueList()
  const { registry } = readFilings(config_dir, issues)
  if (issues.issues.length > 0) throw new CommandFailed(`${FILINGS_FILE} has mistakes, correct them first:\n${formatIssues(issues.issues)}`)
  return registry
}

function dateOf({ newest }: FilingList, args: Arguments): string {
  const given = args.text('as-of')
  if (given !== undefined && !isDate(given)) throw new UsageError(`--as-of must be a date such as 2026-08-24, not ${JSON.stringify(given)}`)
  const date = given ?? newest
  if (date === null) throw new UsageError('the list has no dates: say with --as-of of which day it is')
  return date
}

function merge(known: FilingRegistry, list: FilingRegistry): MergedFilings {
  try {
    return mergeFilings(known, list)
  } catch (error) {
    if (error instanceof RangeError) throw new CommandFailed(error.message)
    throw error
  }
}

function importText(list: FilingList, { added, changed, unchanged, not_in_list }: MergedFilings): string {
  const problems = list.problems.map(({ line, message }) => `line ${line}: ${message}`)
  const again = list.duplicates === 0 ? '' : `, ${grouped(list.duplicates)} rows that repeat a number left out`
  return [
    ...some(problems),
    `read ${grouped(list.rows.length)} numbers (${list.encoding})${again}`,
    ...some(changed.map(({ before, after }) => `changed ${after.number}: ${differences(before, after)}`)),
    `added ${grouped(added.length)}, changed ${grouped(changed.length)}, kept as they were ${grouped(unchanged)}`,
    ...(not_in_list === 0 ? [] : [`${grouped(not_in_list)} known numbers are not in this list and stay: it shows no withdrawals`]),
  ]
    .map((line) => `${line}\n`)
    .join('')
}

function some(lines: readonly string[]): readonly string[] {
  return lines.length <= SHOWN ? lines : [...lines.slice(0, SHOWN), `and ${lines.length - SHOWN} more like these`]
}

function differences(before: FilingRow, after: FilingRow): string {
  const members = (['name', 'entity', 'province', 'filed_on'] as const).filter((member) => before[member] !== after[member])
  return members.map((member) => `${member} ${JSON.stringify(before[member])} is now ${JSON.stringify(after[member])}`).join(', ')
}

/** Whole or not at all, also when the power fails. A link is followed, so that it stays one. @returns the path of the file */
function writeRegistry(config_dir: string, registry: FilingRegistry): string {
  const named = join(config_dir, FILINGS_FILE)
  const path = existsSync(named) ? realpathSync(named) : named
  const temporary = `${path}.new`
  try {
    const mode = existsSync(path) ? statSync(path).mode & 0o777 : 0o644
    const file = openSync(temporary, 'w', mode)
    try {
      writeSync(file, formatFilings(registry))
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
    syncDirectory(dirname(path))
    return named
  } catch (error) {
    rmSync(temporary, { force: true })
    if (error instanceof Error && 'code' in error) throw new CommandFailed(`${path} cannot be written (${String(error.code)})`)
    throw error
  }
}

function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

const listCommand: Command = {
  name: 'filings list',
  summary: 'Show the registry of filing numbers.',
  positionals: [],
  options: {
    search: { value: 'TEXT', help: 'only rows with this in their number, name, entity or province' },
    'config-dir': CONFIG_DIR_OPTION,
    json: JSON_OPTION,
  },
  run: (args, context) => {
    const registry = readRegistry(args.text('config-dir') ?? configDirectory(context.env))
    const rows = searchFilings(registry, args.text('search') ?? '', MAX_FILING_ROWS)
    if (args.flag('json')) printJson({ as_of: registry.as_of, total: registry.rows.size, rows }, context)
    else {
      context.out(table(['NUMBER', 'KIND', 'FILED', 'PROVINCE', 'NAME', 'ENTITY'], rows.map(cellsOf)))
      context.out(`${grouped(rows.length)} of ${grouped(registry.rows.size)} numbers as of ${registry.as_of ?? 'no known date'}\n`)
    }
    return Promise.resolve(0)
  },
}

function cellsOf({ number, kind, filed_on, province, name, entity }: FilingRow): readonly string[] {
  return [number, kind, filed_on, province, name, entity]
}

const checkCommand: Command = {
  name: 'filings check',
  summary: "Compare the catalogue's filing numbers with the registry.",
  details:
    'Exit code 1 if a number is not in the registry. Warns of an old registry, and where a number was filed by somebody else than the provider.',
  positionals: [],
  options: { 'config-dir': CONFIG_DIR_OPTION },
  run: (args, context) => {
    const result = readConfiguration(context, args.text('config-dir'))
    if (result.ok) return Promise.resolve(reportFilings(result.configuration, context))
    context.err(formatIssues(result.issues))
    return Promise.resolve(1)
  },
}

/** Commands about the registry of filing numbers: files only, no server. */
export const FILING_COMMANDS: readonly Command[] = [importCommand, listCommand, checkCommand]
