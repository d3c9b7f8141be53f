import { parseArgs } from 'node:util'
import { UsageError, type CliContext } from './io.ts'

/** One option of a command. */
export interface OptionSpec {
  /** What stands for its value in the help; absent for a flag. */
  readonly value?: string
  readonly help: string
  readonly many?: boolean
}

/** One command: what it is called, what it takes, what it does. */
export interface Command {
  /** One to three words: `audit`, `key create`, `tenant routing show`. */
  readonly name: string
  readonly summary: string
  /** Names of positional arguments; those in brackets may be left out. */
  readonly positionals: readonly string[]
  readonly options: Readonly<Record<string, OptionSpec>>
  /** More than the summary says, for `--help`. */
  readonly details?: string
  /** @returns the exit code: 0 done, 1 a finding or refusal, 2 could not be understood or run */
  run(args: Arguments, context: CliContext): Promise<number>
}

/** What was given on the command line. */
export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>
  readonly #positionals: readonly string[]

  constructor(values: Readonly<Record<string, unknown>>, positionals: readonly string[]) {
    this.#values = values
    this.#positionals = positionals
  }

  flag(name: string): boolean {
    return this.#values[name] === true
  }

  text(name: string): string | undefined {
    const value = this.#values[name]
    return typeof value === 'string' ? value : undefined
  }

  /** Every value of an option that may be repeated; each may also hold several, separated by commas. */
  list(name: string): readonly string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value.flatMap((item) => String(item).split(',')).filter((item) => item !== '') : []
  }

  /** @throws UsageError unless it is a whole number from `least` to `most` */
  number(name: string, least: number, most: number): number | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    const number = Number(text)
    if (/^\d{1,15}$/.test(text) && number >= least && number <= most) return number
    throw new UsageError(`--${name} must be a whole number from ${least} to ${most}, not ${JSON.stringify(text)}`)
  }

  positional(index: number): string | undefined {
    return this.#positionals[index]
  }
}

const HELP: OptionSpec = { help: 'show this help' }

/** A word such as `-5`, which is an amount below zero and no option. */
const NEGATIVE = /^-[\d.]/
/** Put before it while options are told from values: a character that no argument can hold. */
const GUARD = '\0'

function unguarded(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unguarded)
  return typeof value === 'string' && value.startsWith(GUARD) ? value.slice(GUARD.length) : value
}

/**
 * Reads a command's arguments.
 *
 * @returns null when help was asked for
 * @throws UsageError for an unknown option, a missing value or a wrong number of positionals
 */
export function readArguments(command: Command, args: readonly string[]): Arguments | null {
  const specs = Object.entries(command.options).map(
    ([name, { value, many }]) => [name, { type: value === undefined ? 'boolean' : 'string', multiple: many === true }] as const,
  )
  const options = { ...Object.fromEntries(specs), help: { type: 'boolean', short: 'h', multiple: false } as const }
  let parsed: { values: Record<string, unknown>; positionals: string[] }
  try {
    const guarded = args.map((arg) => (NEGATIVE.test(arg) ? GUARD + arg : arg))
    parsed = parseArgs({ args: guarded, options, allowPositionals: true, strict: true })
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(error.message.replace(/\. To specify.*$/s, '.'))
    throw error
  }
  if (parsed.values['help'] === true) return null
  const needed = command.positionals.filter((name) => !name.startsWith('['))
  if (parsed.positionals.length < needed.length) throw new UsageError(`${needed[parsed.positionals.length] ?? ''} is missing`)
  const extra = parsed.positionals[command.positionals.length]
  if (extra !== undefined) throw new UsageError(`${JSON.stringify(unguarded(extra))} is one argument too many`)
  const values = Object.fromEntries(Object.entries(parsed.values).map(([name, value]) => [name, unguarded(value)]))
  return new Arguments(
    values,
    parsed.positionals.map((word) => String(unguarded(word))),
  )
}

/** The help of one command. */
export function helpOf(command: Command): string {
  const options = Object.entries({ ...command.options, help: HELP })
  const shown = options.map(([name, { value, help }]) => [`  --${name}${value === undefined ? '' : ` ${value}`}`, help] as const)
  const width = Math.max(...shown.map(([left]) => left.length))
  const usage = ['weir', command.name, ...command.positionals.map((name) => (name.startsWith('[') ? name : `<${name}>`)), '[options]'].join(
    ' ',
  )
  const lines = [`Usage: ${usage}`, '', command.summary, ...(command.details === undefined ? [] : ['', command.details]), '', 'Options:']
  return `${[...lines, ...shown.map(([left, help]) => `${left.padEnd(width)}  ${help}`)].join('\n')}\n`
}

/** The help of everything. */
export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  const lines = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`)
  const head = ['Usage: weir <command> [options]', '', 'Commands:']
  const tail = [
    '',
    'weir <command> --help says more about each. Commands talk to the running server, or open the data directory themselves when none runs.',
  ]
  return `${[...head, ...lines, ...tail].join('\n')}\n`
}
