import type { Configuration } from '../config/model.ts'
import type { AuditReport } from '../control/audit.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { OnProgress } from '../storage/books.ts'
import { formatIssues } from '../config/check.ts'
import { readConfiguration } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { CommandFailed, type CliContext } from './io.ts'
import { grouped } from './table.ts'

/** Moves the books of the configuration's data directory into the PostgreSQL that it names. */
export type MoveBooks = (options: {
  readonly configuration: Configuration
  readonly despite_findings: boolean
  readonly on_progress: OnProgress
}) => Promise<{
  readonly state: 'moved' | 'already moved' | 'refused' | 'differs'
  readonly rows: number
  readonly audit: AuditReport | null
}>

/** What keeps a move from being done, each of which says what to do. */
const EXPECTED: ReadonlySet<string> = new Set([
  ...['MoveRefused', 'DataDirectoryInUse', 'DataDirectoryMoved', 'SchemaError', 'LedgerUnavailable', 'JournalUnavailable'],
])

/** Progress is told when what is done changes, and then every this many rows. */
const TELL_ROWS = 100_000

/** `weir move`, with what does it. */
export function moveCommand(moveBooks: MoveBooks): Command {
  return {
    name: 'move',
    summary: 'Move an embedded installation into a cluster, and audit what has arrived.',
    details:
      'Stop the gateway first, and set WEIR_REDIS_URL and WEIR_DATABASE_URL to the servers that the cluster will have; the database must ' +
      'have no books yet. Everything is copied: tenants, keys, grants, prices, events, the ledger, sums of usage, archives. Keys go on ' +
      'working. A run that was killed is run again and goes on. In the end the books there are audited, and weir.db is kept as ' +
      'weir.db.moved. Files of archives stay where they are: every process that archives must have that directory.\n\n' +
      'Exit code 0: moved, and everything agrees. 1: not moved, or something differs; then the database cannot be used yet.',
    positionals: [],
    options: { 'despite-findings': { help: 'move although an audit has findings now: they are moved as they are' } },
    run: (args, context) => runMove(args, context, moveBooks),
  }
}

async function runMove(args: Arguments, context: CliContext, moveBooks: MoveBooks): Promise<number> {
  const loaded = readConfiguration(context)
  if (!loaded.ok) throw new CommandFailed(`the configuration has mistakes:\n${formatIssues(loaded.issues)}`)
  const on_progress = progressTo(context)
  try {
    const despite_findings = args.flag('despite-findings')
    const { state, rows, audit } = await moveBooks({ configuration: loaded.configuration, despite_findings, on_progress })
    return report(state, rows, audit, context)
  } catch (error) {
    if (!(error instanceof Error && EXPECTED.has(error.name))) throw error
    throw new CommandFailed(`nothing was moved, or not everything: ${error.message}`, { cause: error })
  }
}

function progressTo({ err }: CliContext): OnProgress {
  let told = ''
  return ({ doing, done, of }) => {
    const now = `${doing} ${Math.floor(done / TELL_ROWS)}`
    if (now !== told) err(`${doing}: ${grouped(done)} of ${grouped(of)}\n`)
    told = now
  }
}

function report(state: Awaited<ReturnType<MoveBooks>>['state'], rows: number, audit: AuditReport | null, { out }: CliContext): number {
  if (state === 'already moved') out('Everything had been moved already. Start the gateways.\n')
  if (audit === null) return 0
  const { checked, findings } = audit
  for (const { rule, id, expected, found } of findings) out(`${rule}\n  ${id}\n  expected ${expected}\n  found    ${found}\n`)
  if (state === 'refused') {
    out(
      '\nNothing was moved: the audit of what is here has the findings above. weir rebuild may put them right; --despite-findings moves them too.\n',
    )
    return 1
  }
  out(
    `${grouped(rows)} rows, ${grouped(checked.events)} events of ${grouped(cnyFromNano(checked.amount_nano))} CNY, ${checked.tenants} tenants.\n`,
  )
  if (state === 'differs') {
    out('What has arrived is not what was there before. The database cannot be used; drop the schema "weir" in it and begin again.\n')
    return 1
  }
  out('Everything has arrived and agrees. Start the gateways.\n')
  return 0
}
