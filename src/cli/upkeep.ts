import * as z from 'zod'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { CommandFailed, type CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const POLL_FIRST_MS = 50
const POLL_MOST_MS = 1000

const Job = z.object({
  id: z.number(),
  state: z.enum(['running', 'done', 'failed']),
  progress: z.object({ doing: z.string(), done: z.number(), of: z.number() }).nullable(),
  result: z.record(z.string(), z.unknown()).nullable(),
  error: z.string().nullable(),
})

/**
 * Starts a job and waits for its end, however long it takes. Progress goes to standard error.
 * @throws CommandFailed with what kept it from its end
 */
export async function runJob(path: string, body: object, client: AdminClient, context: CliContext): Promise<Record<string, unknown>> {
  let job = Job.parse(await client.request('POST', path, body))
  let told = ''
  for (let wait_ms = POLL_FIRST_MS; job.state === 'running'; wait_ms = Math.min(POLL_MOST_MS, wait_ms * 2)) {
    await new Promise((resolve) => setTimeout(resolve, wait_ms))
    job = Job.parse(await client.request('GET', `/admin/v1/jobs/${job.id}`))
    const { doing = '', done = 0, of = 0 } = job.progress ?? {}
    const line = doing === '' ? '' : `${doing}: ${grouped(done)} of ${grouped(of)}\n`
    // What ends within a second needs no commentary.
    if (line !== told && wait_ms >= POLL_MOST_MS) context.err(line)
    told = line
  }
  if (job.state === 'failed' || job.result === null) throw new CommandFailed(job.error ?? 'the server gave no result')
  return job.result
}

const Rebuild = z.object({
  lost: z.array(z.object({ what: z.string(), id: z.string(), why: z.string() })),
  changes: z.array(z.object({ what: z.string(), id: z.string(), was: z.string(), now: z.string() })),
})

const rebuild: Command = {
  name: 'rebuild',
  summary: 'Recompute what journal, events and entries determine, and say what was wrong.',
  details:
    'Rows of events, events that the ledger lacks, entries of usage, running balances, sums of usage, and the balances, windows and ' +
    'budgets that admission uses. What cannot be put right is named, with the reason, and the exit code is 1. ' +
    'Runs beside traffic; a second run finds nothing. Events of archived days are not here: their sums stay as they are. ' +
    'With --check nothing changes, and the exit code is 1 if something would.',
  positionals: [],
  options: { check: { help: 'only look; exit with 1 if something is wrong' }, json: JSON_OPTION },
  run: (args, context) => withClient(context, (client) => runRebuild(args, client, context)),
}

async function runRebuild(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const check = args.flag('check')
  const result = await runJob('/admin/v1/rebuild', { check }, client, context)
  const { changes, lost } = Rebuild.parse(result)
  if (args.flag('json')) printJson(result, context)
  else if (changes.length + lost.length === 0) context.out('Everything is as it should be; nothing has changed.\n')
  else if (changes.length > 0) {
    context.out(`${check ? 'Wrong' : 'Was wrong and is right now'}:\n\n`)
    context.out(
      changes
        .map(({ what, id, was, now }) => `${what}\n  ${id}\n  ${check ? 'is       ' : 'was      '} ${was}\n  should be ${now}\n`)
        .join(''),
    )
  }
  if (!args.flag('json') && lost.length > 0) {
    context.out('Cannot be put right from what is here:\n\n')
    context.out(lost.map(({ what, id, why }) => `${what}\n  ${id}\n  ${why}\n`).join(''))
  }
  return lost.length > 0 || (check && changes.length > 0) ? 1 : 0
}

const Archive = z.object({
  day: z.string(),
  state: z.string(),
  file: z.string(),
  events: z.number(),
  requests: z.number(),
  amount_cny: z.string(),
  digest: z.string(),
})
const ArchiveRun = z.object({
  dry_run: z.boolean(),
  archived: z.array(Archive),
  would_archive: z.array(z.object({ day: z.string(), events: z.number() })),
  waiting: z.array(z.object({ day: z.string(), events: z.number(), why: z.string() })),
})

const archive: Command = {
  name: 'archive',
  summary: 'Move the events of closed days into one compressed file per day.',
  details:
    "A day is closed when the journal keeps none of its rows any more (keep_days), so that nothing about it can change. The files are below the data directory's " +
    'archive/; sums of usage and the ledger stay where they are. It goes on where a killed run stopped.',
  positionals: [],
  options: {
    before: { value: 'DATE', help: 'only days before this one (UTC+8), such as 2026-11-01' },
    'dry-run': { help: 'only say what would be archived' },
    json: JSON_OPTION,
  },
  run: (args, context) => withClient(context, (client) => runArchive(args, client, context)),
}

async function runArchive(args: Arguments, client: AdminClient, context: CliContext): Promise<number> {
  const before = args.text('before')
  const body = { dry_run: args.flag('dry-run'), ...(before === undefined ? {} : { before }) }
  const result = await runJob('/admin/v1/archives', body, client, context)
  const { dry_run, archived, would_archive, waiting } = ArchiveRun.parse(result)
  if (args.flag('json')) {
    printJson(result, context)
    return 0
  }
  for (const { day, events } of would_archive) context.out(`${day}  ${grouped(events)} events would be archived\n`)
  for (const { day, events, file } of archived) context.out(`${day}  ${grouped(events)} events are in archive/${file}\n`)
  for (const { day, events, why } of waiting) context.out(`${day}  ${grouped(events)} events have to wait: ${why}\n`)
  if (would_archive.length + archived.length === 0) context.out(`Nothing ${dry_run ? 'would be' : 'was'} archived.\n`)
  return 0
}

const list: Command = {
  name: 'archive list',
  summary: 'Show the archived days.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('GET', '/admin/v1/archives')
      if (args.flag('json')) printJson(answer, context)
      else {
        const { data } = z.object({ data: z.array(Archive) }).parse(answer)
        const rows = data.map((row) => [row.day, row.state, grouped(row.requests), grouped(row.amount_cny), row.file, row.digest])
        context.out(table(['DAY', 'STATE', 'REQUESTS', 'CNY', 'FILE', 'SHA-256 UNCOMPRESSED'], rows))
      }
      return 0
    }),
}

const Verification = z.object({
  ok: z.boolean(),
  archives: z.number(),
  findings: z.array(z.object({ day: z.string(), what: z.string(), expected: z.string(), found: z.string() })),
})

const verify: Command = {
  name: 'archive verify',
  summary: 'Read every archived file again, against its digest and sums.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const result = await runJob('/admin/v1/archives/verify', {}, client, context)
      const { ok, archives, findings } = Verification.parse(result)
      if (args.flag('json')) printJson(result, context)
      else if (ok) context.out(`${archives} archived day${archives === 1 ? '' : 's'}: every file is as it was written.\n`)
      else
        context.out(
          findings.map(({ day, what, expected, found }) => `${day}: ${what}\n  expected ${expected}\n  found    ${found}\n`).join(''),
        )
      return ok ? 0 : 1
    }),
}

/** Commands that keep the books in order. */
export const UPKEEP_COMMANDS: readonly Command[] = [rebuild, archive, list, verify]
