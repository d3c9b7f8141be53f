import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, dayOf } from '../../base/clock.ts'
import { type ArchivableDay, type ArchivedDay, type ArchiveFinding, ArchiveRefused, type EventArchive, type OnProgress } from '../books.ts'
import type { ArchiveFacts, ArchiveRun, ArchiveSum } from './archive-file.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, textOf } from './executor.ts'

const DAY_MS = 86_400_000

/** What a database does for its archive. */
export interface ArchiveDriver extends Pick<SqlExecutor, 'read'> {
  /** Runs `work` unless another run is under way. @throws ArchiveRefused */
  alone<Result>(work: () => Promise<Result>): Promise<Result>
  /** Days before `end` that have events and no finished archive, oldest first, and what keeps each from being archived. */
  days(end: string): Promise<readonly ArchivableDay[]>
  /** Writes the file of a day and reads it back. @throws Error if it is not what was written */
  write(day: string, directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts>
  readFile(directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts>
  /** Keeps sums and numbers of a day in place of those that a dead process left. They count once the day is closed. */
  keepBooks(day: string, facts: Pick<ArchiveFacts, 'sums' | 'numbers'>): Promise<void>
  /**
   * Closes a day in one commit, unless its events are not those of the file any more, something of it is to be derived, or another day was
   * closed meanwhile. From then on every reader takes its books for its rows. @returns whether it did
   */
  close(day: ClosingDay): Promise<boolean>
  /** Deletes the rows of a closed day. */
  deleteRows(day: string, on_progress: OnProgress): Promise<void>
  /** Says that no row is left. */
  finish(day: string): Promise<void>
}
export type ClosingDay = Omit<ArchivedDay, 'number' | 'state' | 'bytes'> & { readonly bytes: number }

export interface SqlArchiveOptions {
  readonly directory: string
  readonly driver: ArchiveDriver
  readonly clock: Clock
}

/**
 * Closed days as files below a directory. The order of steps makes a kill at any moment harmless: the file is durable before
 * its books (sums, numbers, digest) are, and those are one commit before the first row is deleted; from that commit on every reader
 * takes the books for the rows.
 */
export class SqlArchive implements EventArchive {
  readonly #directory: string
  readonly #driver: ArchiveDriver
  readonly #clock: Clock

  constructor({ directory, driver, clock }: SqlArchiveOptions) {
    this.#directory = directory
    this.#driver = driver
    this.#clock = clock
  }

  async list(): Promise<readonly ArchivedDay[]> {
    return (await this.#read('SELECT * FROM archives ORDER BY number')).map(archivedOf)
  }

  async days(before: string): Promise<readonly ArchivableDay[]> {
    const today = dayOf(this.#clock.now_ms())
    return await this.#driver.days(before < today ? before : today)
  }

  async archive(day: string, on_progress: OnProgress): Promise<ArchivedDay> {
    return await this.#driver.alone(async () => {
      if ((await this.#find(day)) === null) await this.#writeDay(day, on_progress)
      else await this.#checkWritten(day, on_progress)
      await this.#driver.deleteRows(day, on_progress)
      await this.#driver.finish(day)
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
    return await this.#driver.alone(async () => {
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
    const candidate = (await this.days(dayOf(Date.parse(`${day}T12:00:00+08:00`) + DAY_MS))).find((other) => other.day === day)
    if (candidate === undefined) throw new ArchiveRefused(`${day} has no events to archive, or is not over`)
    if (candidate.blocked !== null) throw new ArchiveRefused(`${day} cannot be archived: ${candidate.blocked}`)
    const file = `events-${day}.jsonl.gz`
    const on_lines = (done: number): void => on_progress({ doing: `writing ${file}`, done, of: candidate.events })
    const facts = await this.#driver.write(day, this.#directory, file, on_lines)
    await this.#driver.keepBooks(day, facts)
    const previous = (await this.list()).at(-1)?.chain ?? ''
    const { events, requests, amount_nano, cost_nano, digest, bytes } = facts
    const chain = chainOf(previous, day, digest)
    const at = this.#clock.now_ms()
    const closed = await this.#driver.close({ day, file, events, requests, amount_nano, cost_nano, digest, previous, chain, at, bytes })
    if (!closed) throw new ArchiveRefused(`events of ${day} came or went meanwhile, or its sums are to be derived again; try again`)
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

  async #verifyFile(archived: ArchivedDay, on_progress: OnProgress): Promise<readonly ArchiveFinding[]> {
    const { day, file } = archived
    try {
      const on_lines = (done: number): void => on_progress({ doing: `reading ${file}`, done, of: archived.events })
      const facts = await this.#driver.readFile(this.#directory, file, on_lines)
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
    const [rows] = await this.#driver.read([{ sql, params }])
    return rows ?? []
  }
}

const HELD_NUMBERS = 'SELECT day, SUM(last_seq - first_seq + 1) AS events FROM archive_numbers GROUP BY day'

/** @throws whatever else is wrong than that there is no such file */
function noFile(error: unknown): null {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
  throw error
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
