import { ACCOUNT_COMMANDS } from './accounts.ts'
import { ESTIMATE_COMMAND } from './estimate/command.ts'
import { helpOf, overview, readArguments, type Command } from './command.ts'
import { FILING_COMMANDS } from './filings.ts'
import { GRANT_COMMANDS } from './grants.ts'
import { CommandFailed, UsageError, type CliContext } from './io.ts'
import { LEDGER_COMMANDS } from './ledger.ts'
import { LIMIT_COMMANDS } from './limits.ts'
import { MODEL_COMMANDS } from './models.ts'
import { type MoveBooks, moveCommand } from './move.ts'
import { NODE_COMMANDS } from './nodes.ts'
import { PROVIDER_KEY_COMMANDS } from './provider-keys.ts'
import { REPORT_COMMANDS } from './reports.ts'
import { ROUTING_COMMANDS } from './routing.ts'
import { UPKEEP_COMMANDS } from './upkeep.ts'

export interface RunOptions {
  readonly version: string
  /** Starts the gateway; resolves when it is up (it goes on running). */
  readonly serve: () => Promise<void>
  readonly moveBooks: MoveBooks
}

/**
 * Runs one command line, without the program's name.
 *
 * @returns the exit code: 0 done, 1 a finding or refusal, 2 the command line could not be understood
 */
export async function run(args: readonly string[], context: CliContext, options: RunOptions): Promise<number> {
  const commands = [
    serveCommand(options.serve),
    ...ACCOUNT_COMMANDS,
    ...ROUTING_COMMANDS,
    ...LIMIT_COMMANDS,
    ...GRANT_COMMANDS,
    ...LEDGER_COMMANDS,
    ...REPORT_COMMANDS,
    ESTIMATE_COMMAND,
    ...FILING_COMMANDS,
    ...MODEL_COMMANDS,
    ...UPKEEP_COMMANDS,
    ...NODE_COMMANDS,
    ...PROVIDER_KEY_COMMANDS,
    moveCommand(options.moveBooks),
  ]
  const [first = '--help'] = args
  if (['--help', '-h', 'help'].includes(first)) {
    context.out(overview(commands))
    return args.length === 0 ? 2 : 0
  }
  if (first === '--version') {
    context.out(`weir ${options.version}\n`)
    return 0
  }
  const command = [3, 2, 1].flatMap((words) => commands.find(({ name }) => name === args.slice(0, words).join(' ')) ?? []).at(0)
  if (command === undefined) return unknown(args, commands, context)
  return await runCommand(command, args.slice(command.name.split(' ').length), context)
}

async function runCommand(command: Command, rest: readonly string[], context: CliContext): Promise<number> {
  try {
    const args = readArguments(command, rest)
    if (args !== null) return await command.run(args, context)
    context.out(helpOf(command))
    return 0
  } catch (error) {
    if (error instanceof UsageError) {
      context.err(`weir: ${error.message}\nSee "weir ${command.name} --help".\n`)
      return 2
    }
    if (!(error instanceof CommandFailed)) throw error
    context.err(`weir: ${error.message}\n`)
    return 1
  }
}

function unknown(args: readonly string[], commands: readonly Command[], context: CliContext): number {
  const starting = (words: number): readonly Command[] =>
    commands.filter(({ name }) => name.startsWith(`${args.slice(0, words).join(' ')} `))
  const [longer, shorter] = [starting(2), starting(1)]
  const family = longer.length > 0 ? longer : shorter
  if (family.length > 0) context.err(`weir: say what to do: ${family.map(({ name }) => `weir ${name}`).join(', ')}\n`)
  else context.err(`weir: there is no command ${JSON.stringify(args[0])}. "weir --help" lists them.\n`)
  return args.includes('--help') && family.length > 0 ? 0 : 2
}

function serveCommand(serve: () => Promise<void>): Command {
  return {
    name: 'serve',
    summary: 'Start the gateway, as "npm start" does.',
    positionals: [],
    options: {},
    run: async () => {
      await serve()
      return 0
    },
  }
}
