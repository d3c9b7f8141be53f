import { createHash, type Hash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, open, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import { addAmounts } from '../accounts.ts'

/** A line longer than this is no event; it would have to be held in memory whole. */
const MAX_LINE_CHARACTERS = 16 * 1024 * 1024

/** What a tenant paid from a grant, or (unit `cost`, ref empty) what a provider costs. */
export interface ArchiveSum {
  readonly owner: string
  readonly ref: string
  readonly unit: string
  readonly amount: bigint
}
/** A run of event numbers of one node without a gap. */
export interface ArchiveRun {
  readonly node: string
  readonly first_seq: number
  readonly last_seq: number
}
/** What is in a day's file. */
export interface ArchiveFacts {
  /** Lines: every revision. */
  readonly events: number
  /** Highest revisions, which alone count in the amounts. */
  readonly requests: number
  readonly amount_nano: bigint
  readonly cost_nano: bigint
  /** SHA-256 of the uncompressed bytes, hex. */
  readonly digest: string
  /** Size of the file, compressed. */
  readonly bytes: number
  readonly sums: readonly ArchiveSum[]
  readonly numbers: readonly ArchiveRun[]
}

/** Adds up lines as they pass. They come ordered by id and revision. */
export class ArchiveTally {
  readonly #hash: Hash = createHash('sha256')
  readonly #sums = new Map<string, { readonly owner: string; readonly ref: string; readonly unit: string; amount: bigint }>()
  readonly #numbers = new Map<string, number[]>()
  #events = 0
  #requests = 0
  #amount_nano = 0n
  #cost_nano = 0n
  /** Counts only if no higher revision follows. */
  #last: UsageEvent | null = null

  /** @throws EncodingError if the line is no event; RangeError if it is out of order */
  add(line: string): void {
    const event = decodeEvent(line)
    const last = this.#last
    if (last !== null && (event.id < last.id || (event.id === last.id && event.revision <= last.revision))) {
      throw new RangeError(`line ${this.#events + 1} is out of order`)
    }
    if (last !== null && last.id !== event.id) this.#count(last)
    this.#hash.update(line).update('\n')
    this.#events += 1
    this.#last = event
    const numbers = this.#numbers.get(event.node)
    if (numbers === undefined) this.#numbers.set(event.node, [event.seq])
    else numbers.push(event.seq)
  }

  get events(): number {
    return this.#events
  }

  /** @param bytes size of the file */
  facts(bytes: number): ArchiveFacts {
    if (this.#last !== null) this.#count(this.#last)
    this.#last = null
    return {
      events: this.#events,
      requests: this.#requests,
      amount_nano: this.#amount_nano,
      cost_nano: this.#cost_nano,
      digest: this.#hash.digest('hex'),
      bytes,
      sums: [...this.#sums.values()],
      numbers: [...this.#numbers].flatMap(([node, seqs]) => runsOf(node, seqs)),
    }
  }

  #count(event: UsageEvent): void {
    this.#requests += 1
    this.#amount_nano = addAmounts(this.#amount_nano, event.amount_nano)
    this.#cost_nano = addAmounts(this.#cost_nano, event.cost_nano)
    for (const { grant, unit, amount } of event.parts) this.#add(event.tenant, grant, unit, amount)
    this.#add(event.provider, '', 'cost', event.cost_nano)
  }

  #add(owner: string, ref: string, unit: string, amount: bigint): void {
    const known = this.#sums.get(`${owner}\n${ref}\n${unit}`)
    if (known === undefined) this.#sums.set(`${owner}\n${ref}\n${unit}`, { owner, ref, unit, amount })
    else known.amount = addAmounts(known.amount, amount)
  }
}

function runsOf(node: string, seqs: readonly number[]): readonly ArchiveRun[] {
  const runs: { node: string; first_seq: number; last_seq: number }[] = []
  for (const seq of seqs.toSorted((a, b) => a - b)) {
    const run = runs.at(-1)
    if (run !== undefined && run.last_seq + 1 === seq) run.last_seq = seq
    else runs.push({ node, first_seq: seq, last_seq: seq })
  }
  return runs
}

/**
 * Writes lines as a gzip file that is there whole or not at all: a temporary file, fsynced, renamed, its directory fsynced.
 * @param pages lines by the page, so that a day is never in memory whole
 */
export async function writeArchiveFile(
  directory: string,
  file: string,
  pages: Iterable<readonly string[]> | AsyncIterable<readonly string[]>,
  on_lines: (lines: number) => void,
): Promise<ArchiveFacts> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const temporary = join(directory, `${file}.tmp`)
  const tally = new ArchiveTally()
  const chunks = async function* (): AsyncGenerator<Buffer> {
    for await (const lines of pages) {
      for (const line of lines) tally.add(line)
      yield Buffer.from(lines.map((line) => `${line}\n`).join(''))
      on_lines(tally.events)
    }
  }
  await pipeline(Readable.from(chunks()), createGzip(), createWriteStream(temporary, { mode: 0o600 }))
  await syncPath(temporary)
  await rename(temporary, join(directory, file))
  await syncPath(directory)
  return tally.facts((await stat(join(directory, file))).size)
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Reads a file again. @throws whatever is wrong with it: it is missing, damaged, out of order or not of events */
export async function readArchiveFile(directory: string, file: string, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
  const tally = new ArchiveTally()
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let rest = ''
  const bytes = createReadStream(join(directory, file))
  const source = bytes.pipe(createGunzip())
  // `pipe` does not pass errors on.
  bytes.on('error', (error) => source.destroy(error))
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk as Buffer, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) tally.add(line)
    if (rest.length > MAX_LINE_CHARACTERS) throw new RangeError(`line ${tally.events + 1} is longer than an event can be`)
    on_lines(tally.events)
  }
  if (rest !== '') throw new RangeError('the last line is not whole')
  return tally.facts(bytes.bytesRead)
}
