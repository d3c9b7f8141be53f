import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, dayOf, SHANGHAI_OFFSET_MS } from '../../base/clock.ts'
import { runArchiver } from '../journal/archiver.ts'
import type { Journal } from '../journal/client.ts'
import { type ArchivableDay, type ArchivedDay, type ArchiveFinding, ArchiveRefused, type EventArchive, type OnProgress } from '../books.ts'
import type { ArchiveFacts, ArchiveRun, ArchiveSum } from './archive-file.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, textOf } from './executor.ts'

const DAY_MS = 86_400_000
/** Events deleted per commit: a few milliseconds, which is what another commit may have to wait. */
const DELETE_SLICE = 100
/** Sums stored per commit. */
const SUM_SLICE = 500

export interface SqlArchiveOptions {
  readonly data_dir: string
  readonly executor: SqlExecutor
  /** Reads that take long. */
  readonly auditing: Pick<SqlExecutor, 'read'>
  readonly journal: Journal
  readonly clock: Clock
}

/**
 * Closed days as files below `<data_dir>/archive`. The order of steps makes a kill at any moment harmless: the file is durable before
 * its books (sums, numbers, digest) are, and those are one commit before the first row is deleted; from that commit on every reader
 * takes the books for the rows.
 */
export class SqlArchive implements EventArchive {
  readonly #options: SqlArchiveOptions
  readonly #directory: string
  #busy = false

  constructor(options: SqlArchiveOptions) {
    this.#options = options
    this.#directory = join(options.data_dir, 'archive')
  }

  async list(): Promise<readonly ArchivedDay[]> {
    return (await this.#read('SELECT * FROM archives ORDER BY number')).map(archivedOf)
  }

  async days(before: string): Promise<readonly ArchivableDay[]> {
    const { journal, clock } = this.#options
    const now_ms = clock.now_ms()
    // Rows of the journal that are past their time only wait for a quiet moment.
    while ((await journal.ask<'forget'>({ what: 'forget', now_ms })) > 0);
    const today = dayOf(now_ms)
    const end = before < today ? before : today
    const [counts = [], [kept] = [], stale = []] = await this.#options.auditing.read([
      { sql: DAYS, params: [end] },
      { sql: OLDEST_KEPT, params: [] },
      { sql: STALE, params: [] },
    ])
    const stale_days = new Set(stale.map((row) => dayOf(numberOf(row, 'at'))))
    return counts.map((row) => {
      const day = textOf(row, 'day')
      const blocked = row['state'] === 'written' ? null : blockedBy(day, kept, stale_days)
      return { day, events: numberOf(row, 'events'), blocked }
    })
  }

  async archive(day: string, on_progress: OnProgress): Promise<ArchivedDay> {
    return await this.#alone(async () => {
      if ((await this.#find(day)) === null) await this.#writeDay(day, on_progress)
      else await this.#checkWritten(day, on_progress)
      await this.#deleteRows(day, on_progress)
      const archived = await this.#find(day)
      if (archived === null) throw new ArchiveRefused(`the archive of ${day} has vanished`)
      return archived
    })
  }

  async glance(): Promise<readonly ArchiveFinding[]> {
    const findings: ArchiveFinding[] = []
    let previous = ''
    const archives = await this.list()
    const held = new Map((await this.#read(HELD_NUMBERS)).map((row) => [textOf(row, 'day'), numberOf(row, 'events')]))
    for (const archived of archives) {
      const { day, file, bytes, digest, events } = archived
      if (previous !== archived.previous || chainOf(previous, day, digest) !== archived.chain) {
        findings.push(finding(archived, 'the chain of archives', 'the digest of this file after that of the one before', 'another'))
      }
      previous = archived.chain
      if (held.get(day) !== events) findings.push(finding(archived, `numbers of ${file}`, events, held.get(day) ?? 0))
      const size = await stat(join(this.#directory, file)).then((found) => found.size, noFile)
      if (size === null) findings.push(finding(archived, file, 'a file', 'none'))
      else if (bytes !== null && size !== bytes) findings.push(finding(archived, file, `${bytes} bytes`, `${size} bytes`))
    }
    return findings
  }

  async verify(on_progress: OnProgress): Promise<readonly ArchiveFinding[]> {
    return await this.#alone(async () => {
      const findings: ArchiveFinding[] = []
      let previous = ''
      for (const archived of await this.list()) {
        const { day, digest } = archived
        const differ = (what: string, expected: unknown, found: unknown): void => {
          if (expected !== found) findings.push({ day, what, expected: String(expected), found: String(found) })
        }
        differ('the chain of archives', previous, archived.previous)
        differ('the chain of archives', chainOf(archived.previous, day, digest), archived.chain)
        previous = archived.chain
        findings.push(...(await this.#verifyFile(archived, on_progress)))
      }
      return findings
    })
  }

  async #writeDay(day: string, on_progress: OnProgress): Promise<void> {
    const { clock, executor, data_dir } = this.#options
    const candidate = (await this.days(dayOf(Date.parse(`${day}T12:00:00+08:00`) + DAY_MS))).find((other) => other.day === day)
    if (candidate === undefined) throw new ArchiveRefused(`${day} has no events to archive, or is not over`)
    if (candidate.blocked !== null) throw new ArchiveRefused(`${day} cannot be archived: ${candidate.blocked}`)
    const file = `events-${day}.jsonl.gz`
    const task = { what: 'write', path: join(data_dir, 'weir.db'), day, directory: this.#directory, file } as const
    const facts = await runArchiver(task, (done) => on_progress({ doing: `writing ${file}`, done, of: candidate.events }))
    await this.#keepBooks(day, facts)
    const previous = (await this.list()).at(-1)?.chain ?? ''
    const { events, requests, amount_nano, cost_nano, digest, bytes } = facts
    const values = [
      day,
      file,
      events,
      requests,
      amount_nano,
      cost_nano,
      digest,
      previous,
      chainOf(previous, day, digest),
      clock.now_ms(),
      bytes,
    ]
    // One transaction: what is posted or marked between a look and the insertion would be closed unseen.
    const [, changes] = await executor.write([
      { sql: CLOSE_DAY, params: [...values, day, events, day, previous] },
      { sql: 'SELECT changes() AS closed', params: [] },
    ])
    if (changes?.[0] === undefined || numberOf(changes[0], 'closed') !== 1) {
      throw new ArchiveRefused(`events of ${day} came or went meanwhile, or its sums are to be derived again; try again`)
    }
  }

  /** Sums and numbers count only once the day is in `archives`, so they may come in several commits, and be left by a dead process. */
  async #keepBooks(day: string, { sums, numbers }: ArchiveFacts): Promise<void> {
    const { executor } = this.#options
    await executor.write([
      { sql: 'DELETE FROM archive_sums WHERE day = ?', params: [day] },
      { sql: 'DELETE FROM archive_numbers WHERE day = ?', params: [day] },
    ])
    for (const slice of slicesOf(sums)) {
      const rows = JSON.stringify(slice.map(({ owner, ref, unit, amount }) => [owner, ref, unit, String(amount)]))
      await executor.write([{ sql: KEEP_SUMS, params: [day, rows] }])
    }
    for (const slice of slicesOf(numbers)) {
      const rows = JSON.stringify(slice.map(({ node, first_seq, last_seq }) => [node, first_seq, last_seq]))
      await executor.write([{ sql: KEEP_NUMBERS, params: [day, rows] }])
    }
  }

  /** The process that wrote the file died before every row was deleted: what is still there is deleted only if the file is sound. */
  async #checkWritten(day: string, on_progress: OnProgress): Promise<void> {
    const archived = await this.#find(day)
    if (archived === null || archived.state === 'closed') throw new ArchiveRefused(`${day} is archived already`)
    const [wrong] = await this.#verifyFile(archived, on_progress)
    if (wrong !== undefined) {
      throw new ArchiveRefused(`${archived.file} does not agree with its books (${wrong.what}); no more rows of ${day} were deleted`)
    }
  }

  async #deleteRows(day: string, on_progress: OnProgress): Promise<void> {
    const [row] = await this.#read('SELECT COUNT(*) AS events FROM events WHERE day = ?', day)
    const of = row === undefined ? 0 : numberOf(row, 'events')
    for (let done = 0; ; done += DELETE_SLICE) {
      const [, changes] = await this.#options.executor.write([
        { sql: DELETE_ROWS, params: [day, DELETE_SLICE] },
        { sql: 'SELECT changes() AS deleted', params: [] },
      ])
      if (changes?.[0] === undefined || numberOf(changes[0], 'deleted') < DELETE_SLICE) break
      on_progress({ doing: `deleting rows of ${day}`, done, of })
    }
    await this.#options.executor.write([{ sql: "UPDATE archives SET state = 'closed' WHERE day = ?", params: [day] }])
  }

  async #verifyFile(archived: ArchivedDay, on_progress: OnProgress): Promise<readonly ArchiveFinding[]> {
    const { day, file } = archived
    try {
      const task = { what: 'read', directory: this.#directory, file } as const
      const facts = await runArchiver(task, (done) => on_progress({ doing: `reading ${file}`, done, of: archived.events }))
      return compareFacts(archived, facts, await this.#books(day))
    } catch (error) {
      return [{ day, what: file, expected: 'a file that can be read', found: error instanceof Error ? error.message : String(error) }]
    }
  }

  async #books(day: string): Promise<Pick<ArchiveFacts, 'sums' | 'numbers'>> {
    const [sums, numbers] = [
      await this.#read('SELECT owner, ref, unit, amount FROM archive_sums WHERE day = ?', day),
      await this.#read('SELECT node, first_seq, last_seq FROM archive_numbers WHERE day = ?', day),
    ]
    return { sums: sums.map(sumOf), numbers: numbers.map(runOf) }
  }

  async #find(day: string): Promise<ArchivedDay | null> {
    const [row] = await this.#read('SELECT * FROM archives WHERE day = ?', day)
    return row === undefined ? null : archivedOf(row)
  }

  async #read(sql: string, ...params: readonly string[]): Promise<readonly SqlRow[]> {
    const [rows] = await this.#options.executor.read([{ sql, params }])
    return rows ?? []
  }

  async #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#busy) throw new ArchiveRefused('another run of the archive is under way')
    this.#busy = true
    try {
      return await work()
    } finally {
      this.#busy = false
    }
  }
}

const DAYS =
  'SELECT day, COUNT(*) AS events, (SELECT state FROM archives AS a WHERE a.day = e.day) AS state FROM events AS e WHERE day < ?1 ' +
  "GROUP BY day UNION ALL SELECT day, 0, state FROM archives WHERE state = 'written' AND day < ?1 " +
  'AND day NOT IN (SELECT day FROM events) ORDER BY day'

const OLDEST_KEPT = "SELECT MIN(at) AS at, MIN(CASE kind WHEN 'U' THEN day END) AS day FROM journal"

const HELD_NUMBERS = 'SELECT day, SUM(last_seq - first_seq + 1) AS events FROM archive_numbers GROUP BY day'

const STALE = 'SELECT DISTINCT at FROM usage_stale'

const DELETE_ROWS = 'DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE day = ? ORDER BY id, revision LIMIT ?)'

const CLOSE_DAY =
  'INSERT INTO archives (day, state, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes) ' +
  "SELECT ?, 'written', ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT COUNT(*) FROM events WHERE day = ?) = ? " +
  "AND NOT EXISTS (SELECT 1 FROM usage_stale WHERE date(at / 1000 + 28800, 'unixepoch') = ?) " +
  "AND COALESCE((SELECT chain FROM archives ORDER BY number DESC LIMIT 1), '') = ?"

const KEEP_SUMS =
  "INSERT INTO archive_sums SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), " +
  "CAST(json_extract(value, '$[3]') AS INTEGER) FROM json_each(?)"

const KEEP_NUMBERS =
  "INSERT INTO archive_numbers SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)"

/** @throws whatever else is wrong than that there is no such file */
function noFile(error: unknown): null {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
  throw error
}

function blockedBy(day: string, kept: SqlRow | undefined, stale_days: ReadonlySet<string>): string | null {
  const end_ms = Date.parse(`${day}T00:00:00Z`) - SHANGHAI_OFFSET_MS + DAY_MS
  if (kept !== undefined && kept['at'] !== null) {
    const first_day = kept['day']
    if (numberOf(kept, 'at') < end_ms || (typeof first_day === 'string' && first_day <= day)) {
      return 'the journal still keeps rows of that day: it was less than keep_days ago, or a request of it is open or not posted'
    }
  }
  return stale_days.has(day) ? 'its sums are not derived yet; try again in a minute' : null
}

function chainOf(previous: string, day: string, digest: string): string {
  return createHash('sha256').update(`${previous}\n${day} ${digest}`).digest('hex')
}

function compareFacts(
  archived: ArchivedDay,
  facts: ArchiveFacts,
  books: Pick<ArchiveFacts, 'sums' | 'numbers'>,
): readonly ArchiveFinding[] {
  const names = ['digest', 'events', 'requests', 'amount_nano', 'cost_nano'] as const
  const differing: (keyof ArchiveFacts & keyof ArchivedDay)[] = names.filter((name) => archived[name] !== facts[name])
  if (differing.length === 0 && archived.bytes !== null && archived.bytes !== facts.bytes) differing.push('bytes')
  const findings = differing.map((name) => finding(archived, `${name} of ${archived.file}`, archived[name], facts[name]))
  const sums = (list: readonly ArchiveSum[]): string => textOfAll(list, ({ owner, ref, unit, amount }) => [owner, ref, unit, amount])
  const runs = (list: readonly ArchiveRun[]): string => textOfAll(list, ({ node, first_seq, last_seq }) => [node, first_seq, last_seq])
  if (sums(books.sums) !== sums(facts.sums)) findings.push(finding(archived, `sums of ${archived.file}`, 'equal sums', 'others'))
  if (runs(books.numbers) !== runs(facts.numbers))
    findings.push(finding(archived, `numbers of ${archived.file}`, 'equal numbers', 'others'))
  return findings
}

function finding({ day }: ArchivedDay, what: string, expected: unknown, found: unknown): ArchiveFinding {
  return { day, what, expected: String(expected), found: String(found) }
}

function textOfAll<Item>(list: readonly Item[], fields: (item: Item) => readonly unknown[]): string {
  return list
    .map((item) => fields(item).join(' '))
    .toSorted()
    .join('\n')
}

function* slicesOf<Item>(list: readonly Item[]): Generator<readonly Item[]> {
  for (let from = 0; from < list.length; from += SUM_SLICE) yield list.slice(from, from + SUM_SLICE)
}

function archivedOf(row: SqlRow): ArchivedDay {
  return {
    number: numberOf(row, 'number'),
    day: textOf(row, 'day'),
    state: textOf(row, 'state') as ArchivedDay['state'],
    file: textOf(row, 'file'),
    events: numberOf(row, 'events'),
    requests: numberOf(row, 'requests'),
    amount_nano: bigOf(row, 'amount_nano'),
    cost_nano: bigOf(row, 'cost_nano'),
    digest: textOf(row, 'digest'),
    previous: textOf(row, 'previous'),
    chain: textOf(row, 'chain'),
    bytes: row['bytes'] === null ? null : numberOf(row, 'bytes'),
    at: numberOf(row, 'at'),
  }
}

function sumOf(row: SqlRow): ArchiveSum {
  return { owner: textOf(row, 'owner'), ref: textOf(row, 'ref'), unit: textOf(row, 'unit'), amount: bigOf(row, 'amount') }
}

function runOf(row: SqlRow): ArchiveRun {
  return { node: textOf(row, 'node'), first_seq: numberOf(row, 'first_seq'), last_seq: numberOf(row, 'last_seq') }
}
