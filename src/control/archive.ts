import * as z from 'zod'
import { dayOf } from '../base/clock.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { ArchivedDay, OnProgress } from '../storage/books.ts'
import type { ControlDeps } from './deps.ts'
import { isoOf, parse } from './problem.ts'

const Run = z.strictObject({
  before: z.iso.date('write a date such as 2026-11-01').optional(),
  dry_run: z.boolean().default(false),
})

type ArchiveDeps = Pick<ControlDeps, 'archive' | 'ledger' | 'clock'>

/** Reads what a caller wants archived. @throws AdminProblem `invalid_request` */
export function parseRun(body: unknown): z.infer<typeof Run> {
  return parse(Run, body)
}

/** Writes closed days before a date (UTC+8; without one, every closed day) as files, the oldest first, and says which have to wait and why. */
export async function runArchive({ before, dry_run }: z.infer<typeof Run>, deps: ArchiveDeps, on_progress: OnProgress): Promise<object> {
  await deps.ledger.post()
  const days = await deps.archive.days(before ?? dayOf(deps.clock.now_ms()))
  const free = days.filter(({ blocked }) => blocked === null)
  const waiting = days.filter(({ blocked }) => blocked !== null)
  const archived: object[] = []
  for (const { day } of dry_run ? [] : free) archived.push(archivedView(await deps.archive.archive(day, on_progress)))
  return {
    object: 'archive.run',
    dry_run,
    archived,
    would_archive: dry_run ? free.map(({ day, events }) => ({ day, events })) : [],
    waiting: waiting.map(({ day, events, blocked }) => ({ day, events, why: blocked })),
  }
}

/** Every archive, in the order in which they were written. */
export async function listArchives({ archive }: ArchiveDeps): Promise<object> {
  return { object: 'list', data: (await archive.list()).map(archivedView) }
}

/** Reads every file again. */
export async function verifyArchives({ archive }: ArchiveDeps, on_progress: OnProgress): Promise<object> {
  const findings = await archive.verify(on_progress)
  return { object: 'archive.verification', ok: findings.length === 0, archives: (await archive.list()).length, findings }
}

function archivedView({
  day,
  state,
  file,
  events,
  requests,
  amount_nano,
  cost_nano,
  digest,
  bytes,
  previous,
  chain,
  at,
}: ArchivedDay): object {
  const amounts = { amount_cny: cnyFromNano(amount_nano), cost_cny: cnyFromNano(cost_nano) }
  return { object: 'archive', day, state, file, events, requests, ...amounts, digest, bytes, previous, chain, at: isoOf(at) }
}
