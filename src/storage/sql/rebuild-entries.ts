import type { LostFact, RebuildChange } from '../books.ts'
import type { LedgerEntry, LedgerTransaction } from '../ports.ts'
import {
  type AccountOff,
  accountsOff,
  accountStatements,
  accountText,
  BROKEN_STATEMENT,
  SOUND_STATEMENT,
  WRONG_GRANTS,
} from './audit-accounts.ts'
import { notArchived, wrongDays, wrongHours } from './cells.ts'
import { dayOf } from '../../base/clock.ts'
import type { SqlDialect } from './dialect.ts'
import { numberOf, type SqlExecutor, type SqlRow, textOf } from './executor.ts'
import { brokenSeals } from './seal.ts'

/** Entries of one transaction that makes up for others, if they balance in so few. */
const ENTRIES_SLICE = 200
const DELETE_SLICE = 20
const MOST = 10

export interface EntriesRebuilt {
  readonly changes: readonly RebuildChange[]
  readonly lost: readonly LostFact[]
}

export interface EntriesOptions {
  readonly executor: Pick<SqlExecutor, 'write'>
  readonly auditing: Pick<SqlExecutor, 'read'>
  readonly dialect: SqlDialect
  /** Numbers of events that are nowhere, so that entries may be all that is left of them. */
  readonly lostNumbers: () => Promise<readonly string[]>
  /** Posts entries as a transaction of usage that makes up for others ({@link againTransaction}). */
  readonly post: (entries: readonly LedgerEntry[]) => Promise<void>
}

/** @param name makes its id a new one */
export function againTransaction(name: string, at: number, entries: readonly LedgerEntry[]): LedgerTransaction {
  return { id: `usage-${name}`, at, kind: 'usage', note: 'posted again from events', entries }
}

/**
 * Makes entries of usage what events, and the books of archived days, say. What is missing, too much or under another account is posted
 * as a transaction of its own; usage that cannot be (out of balance, without its transaction) is taken out first and posted again so.
 * Only where events are whole: of an event that is lost, or an archive that is not what was written, entries are all that is left.
 */
export async function rebuildEntries(
  check: boolean,
  options: EntriesOptions,
  archivesAreSound: () => Promise<boolean>,
): Promise<EntriesRebuilt> {
  // One read transaction: an event and its entries are posted together, so that both sides have it or neither.
  const { paid, costs, given } = accountStatements(options.dialect)
  const [broken = [], ...sums] = await options.auditing.read([BROKEN_STATEMENT, paid, costs, given, SOUND_STATEMENT])
  const names = ['paid', 'costs', 'given', 'booked'] as const
  const off = accountsOff((name) => sums[names.indexOf(name)] ?? [])
  if (broken.length + off.length === 0) return { changes: [], lost: [] }
  const why = await notWhole(options, archivesAreSound)
  if (why !== null) {
    const id = off[0] === undefined ? 'usage transactions' : `${off.length} accounts, among them ${accountText(off[0].account)}`
    return { changes: [], lost: [{ what: 'entries of usage that differ from events', id, why }] }
  }
  if (!check) {
    await takeOut(broken, options)
    for (const entries of balancedSlices(off)) await options.post(entries)
  }
  const changes = [
    ...broken.map((row) => ({
      what: 'usage transaction',
      id: textOf(row, 'id'),
      was: textOf(row, 'was'),
      now: 'posted again from events',
    })),
    ...off.map(({ account, events, entries }) => ({
      what: 'entries of usage',
      id: accountText(account),
      was: String(entries),
      now: String(events),
    })),
  ]
  return { changes, lost: [] }
}

async function notWhole(
  { auditing, dialect, lostNumbers }: EntriesOptions,
  archivesAreSound: () => Promise<boolean>,
): Promise<string | null> {
  const [number] = await lostNumbers()
  if (number !== undefined) return `event ${number} is lost, so that the entries may be right`
  const [broken] = await brokenSeals(auditing, dialect)
  if (broken !== undefined) return `transaction ${broken}: what it posted is not known any more`
  const [archives] = await auditing.read([{ sql: 'SELECT 1 FROM archives LIMIT 1', params: [] }])
  const sound = archives === undefined || archives.length === 0 || (await archivesAreSound())
  return sound ? null : 'an archive is not what was written (weir archive verify says which), so that the entries may be right'
}

async function takeOut(broken: readonly SqlRow[], { executor }: EntriesOptions): Promise<void> {
  for (let from = 0; from < broken.length; from += DELETE_SLICE) {
    const ids = broken.slice(from, from + DELETE_SLICE).map((row) => textOf(row, 'id'))
    await executor.write(
      ids.flatMap((id) => [
        { sql: 'DELETE FROM ledger_entries WHERE transaction_id = ?', params: [id] },
        { sql: "DELETE FROM ledger_transactions WHERE id = ? AND kind = 'usage'", params: [id] },
      ]),
    )
  }
}

/** Owners that balance alone, a few at a time; what balances only together is posted together. */
function balancedSlices(off: readonly AccountOff[]): readonly (readonly LedgerEntry[])[] {
  const slices: LedgerEntry[][] = []
  const rest: LedgerEntry[] = []
  for (const accounts of Map.groupBy(off, ({ account }) => account.owner).values()) {
    const entries = accounts.map(({ account, events, entries: found }) => ({ account, amount: events - found }))
    const last = slices.at(-1)
    if (!balances(entries)) rest.push(...entries)
    else if (last !== undefined && last.length + entries.length <= ENTRIES_SLICE) last.push(...entries)
    else slices.push(entries)
  }
  return rest.length === 0 ? slices : [...slices, rest]
}

function balances(entries: readonly LedgerEntry[]): boolean {
  const units = Map.groupBy(entries, ({ account }) => account.unit)
  return [...units.values()].every((of_unit) => of_unit.reduce((sum, { amount }) => sum + amount, 0n) === 0n)
}

const LOST_ENTRIES =
  "SELECT DISTINCT transaction_id AS id FROM ledger_entries WHERE transaction_id NOT LIKE 'usage-%' " +
  `AND transaction_id NOT IN (SELECT id FROM ledger_transactions) LIMIT ${MOST}`

const RETURNED = `SELECT DISTINCT day AS id FROM events WHERE day IN (SELECT day FROM archives WHERE state = 'closed') LIMIT ${MOST}`

/** Days of cells. */
const archivedDays = (cells: string): string => `SELECT DISTINCT at FROM (${cells}) AS c`
const archived = (dialect: SqlDialect): string => `NOT (${notArchived('t.at', dialect)})`

/** What is wrong and follows from nothing that is here. */
export async function lostFacts({
  auditing,
  dialect,
  lostNumbers,
}: Omit<EntriesOptions, 'executor' | 'post'>): Promise<readonly LostFact[]> {
  const plain = (sql: string) => ({ sql, params: [] })
  const [orphans = [], returned = [], grants = [], hours = [], days = []] = await auditing.read([
    plain(LOST_ENTRIES),
    plain(RETURNED),
    WRONG_GRANTS,
    plain(archivedDays(wrongHours(archived(dialect)))),
    plain(archivedDays(wrongDays(archived(dialect)))),
  ])
  const each = (what: string, ids: readonly string[], why: string): readonly LostFact[] => ids.map((id) => ({ what, id, why }))
  const idsOf = (rows: readonly SqlRow[]): readonly string[] => rows.map((row) => textOf(row, 'id'))
  const sums = [...new Set([...hours, ...days].map((row) => dayOf(numberOf(row, 'at'))))].toSorted()
  return [
    ...each(
      'event number',
      await lostNumbers(),
      'no event has it, nor a row of the journal, nor an archive; sums of usage by minute stay as they are',
    ),
    ...each(
      'transaction',
      await brokenSeals(auditing, dialect),
      'nothing else says what was posted: compare with a copy of the database from before',
    ),
    ...each('entries without their transaction', idsOf(orphans), 'nothing else says when and why they were posted'),
    ...each('grant', idsOf(grants), 'its record is not what was given; the transaction that gave it says which of both was meant'),
    ...each('events of an archived day', idsOf(returned), 'the file of the day is closed; the rows count nowhere'),
    ...each('sums of an archived day', sums, 'minutes, hours and days differ, and the events are in its file: they stay as they are'),
  ]
}
