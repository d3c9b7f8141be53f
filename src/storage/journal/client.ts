import { Worker } from 'node:worker_threads'
import type { Clock } from '../../base/clock.ts'
import type { RandomBytes } from '../../base/ids.ts'
import { decodeCheckpointRow, decodeOpenRow, encodeCheckpointRow, encodeOpenRow, encodeUnnumbered } from '../../money/event-json.ts'
import type { CheckpointRow, ClosingEvent, OpenRow, UnfinishedRequest, UsageLog } from '../ports.ts'
import { SchemaError } from '../sql/migrate.ts'
import { JournalUnavailable } from './errors.ts'
import { DataDirectoryInUse } from './lock.ts'
import { type EndingRow, endsOf, isEnding, OwedRows } from './owed.ts'
import type { Answers, Ask, FromWriter, RowMessage, ToWriter, WriterStart } from './protocol.ts'

/** Most rows, and most characters of rows, that may wait for a commit; more are refused. */
const MAX_WAITING_ROWS = 100_000
const MAX_WAITING_CHARACTERS = 128 * 1024 * 1024
const MAX_ASKS = 1000
/** How long storage may take to close: posting what is left and one checkpoint. */
const CLOSE_TIMEOUT_MS = 60_000

export interface JournalOptions {
  readonly data_dir: string
  readonly clock: Clock
  readonly random: RandomBytes
  readonly commit_timeout_ms: number
  readonly keep_days: number
  /** Where events are posted: `here`, to the ledger in the same file, unless it is said otherwise. */
  readonly posting?: WriterStart['posting']
  /** Hears of failures that nobody waits for, e.g. a posting that will be tried again. */
  readonly on_trouble: (error: Error) => void
}

/** Waits for the commit of one row; `resolve` gets an event's number, or 0. */
interface RowWaiter {
  readonly is_event: boolean
  resolve(seq: number): void
  reject(error: Error): void
}
interface Batch {
  readonly number: number
  /** When its first row was given, by the monotonic clock: the commit timeout counts from here. */
  readonly given_at: number
  readonly rows: readonly RowMessage[]
  readonly characters: number
  waiters: readonly RowWaiter[]
  /** Rows that were refused before. */
  readonly again: boolean
}
interface Asked {
  resolve(value: unknown): void
  reject(error: Error): void
}

/**
 * The main thread's side of the journal. Rows of one turn of the event loop, or of one commit's duration, travel as one message,
 * and a message is one commit: waking a thread costs more than writing a row.
 */
export class Journal implements UsageLog {
  readonly #options: JournalOptions
  readonly #worker: Worker
  readonly #started: Promise<string>
  #node = ''
  #rows: RowMessage[] = []
  #waiters: RowWaiter[] = []
  #characters = 0
  /** When the first of `#rows` was given. */
  #first_at: number | null = null
  #batches: Batch[] = []
  #waiting = { rows: 0, characters: 0 }
  #next_number = 1
  #flushing = false
  #timer: NodeJS.Timeout | null = null
  #ok = true
  #unposted = 0
  readonly #owed = new OwedRows()
  /** Ends of requests that there was no room for since the journal last owed none. */
  #lost = 0
  #ended: JournalUnavailable | null = null
  readonly #asked = new Map<number, Asked>()
  #next_ask = 1

  private constructor(options: JournalOptions) {
    this.#options = options
    const { data_dir, keep_days, clock } = options
    const new_node = `n-${Buffer.from(options.random(4)).toString('hex')}`
    const start: WriterStart = { data_dir, keep_days, new_node, now_ms: clock.now_ms(), posting: options.posting ?? 'here' }
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: start, execArgv: [] })
    this.#started = this.#listen()
  }

  /**
   * Opens the journal of a data directory and takes ownership of it.
   * @throws DataDirectoryInUse if another process owns it
   * @throws SchemaError if the database is of a newer release
   */
  static async start(options: JournalOptions): Promise<Journal> {
    const journal = new Journal(options)
    journal.#node = await journal.#started
    return journal
  }

  /** Name of this journal: made once, kept in its file. */
  get node(): string {
    return this.#node
  }

  open(row: OpenRow): Promise<void> {
    return this.#durable(['S', row.hold.id, encodeOpenRow(row)]).then(() => undefined)
  }

  checkpoint(rows: readonly CheckpointRow[]): void {
    for (const row of rows) this.#enqueue(['C', row.id, encodeCheckpointRow(row)], null)
  }

  close(event: ClosingEvent): Promise<number> {
    return this.#durable(['U', event.id, encodeUnnumbered(event), event.revision, event.day])
  }

  release(id: string): void {
    this.#enqueue(['R', id], null)
  }

  async unfinished(ids?: readonly string[]): Promise<readonly UnfinishedRequest[]> {
    const rows = await this.ask<'unfinished'>({ what: 'unfinished', ids: ids ?? null })
    return rows.map(({ open, last }) => ({
      open: decodeOpenRow<OpenRow>(open),
      last: last === null ? null : decodeCheckpointRow<CheckpointRow>(last),
    }))
  }

  /** Where journal and ledger stand when every row given before this call is committed, and none given after it. */
  mark(): Promise<Answers['mark']> {
    return this.ask<'mark'>({ what: 'mark' })
  }

  health(): { readonly unposted: number; readonly ok: boolean } {
    return { unposted: this.#unposted, ok: this.#ok }
  }

  /**
   * Asks the writer's thread for something that is not a row; it happens after every row given before.
   * @throws JournalUnavailable if too many questions wait or the thread has ended
   */
  ask<What extends Ask['what']>(ask: Extract<Ask, { what: What }>): Promise<Answers[What]> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) return reject(this.#ended)
      if (this.#asked.size >= MAX_ASKS) return reject(new JournalUnavailable('overloaded', `${MAX_ASKS} questions are waiting`))
      this.#flush()
      const id = this.#next_ask
      this.#next_ask += 1
      this.#asked.set(id, { resolve: (value) => resolve(value as Answers[What]), reject })
      this.#worker.postMessage({ kind: 'ask', id, ask } satisfies ToWriter)
    })
  }

  /** Commits and posts what is left, checkpoints, frees the directory and ends the thread. */
  async shutdown(): Promise<void> {
    if (this.#ended !== null) return
    const exited = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()))
    const timer = setTimeout(() => void this.#worker.terminate(), CLOSE_TIMEOUT_MS)
    // What was refused has this last chance; else the next start closes those requests.
    if (this.#owed.size > 0) this.#giveAgain(this.#owed.all())
    try {
      await this.ask<'close'>({ what: 'close' })
    } catch (error) {
      await this.#worker.terminate()
      throw error
    } finally {
      await exited
      clearTimeout(timer)
    }
  }

  #durable(row: RowMessage): Promise<number> {
    return new Promise((resolve, reject) => this.#enqueue(row, { is_event: row[0] === 'U', resolve, reject }))
  }

  #enqueue(row: RowMessage, waiter: RowWaiter | null): void {
    const characters = row[2]?.length ?? 0
    const refusal = this.#refusal(characters)
    if (refusal !== null) {
      this.#ok = false
      if (isEnding(row)) this.#owe([row])
      else if (waiter === null) this.#options.on_trouble(refusal)
      waiter?.reject(refusal)
      return
    }
    this.#rows.push(row)
    this.#characters += characters
    if (waiter !== null) this.#waiters.push(waiter)
    this.#first_at ??= this.#options.clock.monotonic_ms()
    if (!this.#held) this.#flushLater()
  }

  /** While a commit is under way rows wait here rather than in the thread's queue: one message then carries them all. */
  get #held(): boolean {
    return this.#ok && this.#batches.length > 0
  }

  #flushLater(): void {
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => this.#flush())
  }

  #refusal(characters: number): JournalUnavailable | null {
    if (this.#ended !== null) return this.#ended
    const rows = this.#waiting.rows + this.#rows.length
    if (rows >= MAX_WAITING_ROWS) return new JournalUnavailable('overloaded', `${rows} journal rows wait for a commit`)
    if (this.#waiting.characters + this.#characters + characters > MAX_WAITING_CHARACTERS) {
      return new JournalUnavailable('overloaded', `journal rows of ${MAX_WAITING_CHARACTERS} characters wait for a commit`)
    }
    return null
  }

  #flush(): void {
    this.#flushing = false
    if (this.#rows.length === 0 || this.#ended !== null) return
    const [rows, waiters, characters] = [this.#rows, this.#waiters, this.#characters]
    const given_at = this.#first_at ?? this.#options.clock.monotonic_ms()
    this.#rows = []
    this.#waiters = []
    this.#characters = 0
    this.#first_at = null
    this.#send({ rows, waiters, characters, given_at, again: false })
  }

  #send(batch: Omit<Batch, 'number'>): void {
    const [number, { rows, characters }] = [this.#next_number, batch]
    this.#next_number += 1
    this.#batches.push({ ...batch, number })
    this.#waiting.rows += rows.length
    this.#waiting.characters += characters
    this.#worker.postMessage({ kind: 'rows', number, at: this.#options.clock.now_ms(), rows } satisfies ToWriter)
    this.#timer ??= setTimeout(() => this.#checkTimeouts(), this.#options.commit_timeout_ms)
  }

  #listen(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#worker.on('message', (message: FromWriter) => {
        if (message.kind === 'ready') {
          this.#unposted = message.unposted
          resolve(message.node)
        } else if (message.kind === 'not_started') {
          reject(startError(message.name, message.message, this.#options.data_dir))
        } else this.#hear(message)
      })
      this.#worker.on('error', (cause) => {
        this.#end(new JournalUnavailable('crashed', 'the journal thread failed', cause))
        reject(cause)
      })
      this.#worker.on('exit', () => this.#end(new JournalUnavailable('closed', 'the journal is closed')))
    })
  }

  #hear(message: Exclude<FromWriter, { kind: 'ready' | 'not_started' }>): void {
    switch (message.kind) {
      case 'committed':
        this.#committed(message.number, message.seqs)
        this.#unposted = message.unposted
        this.#flushLater()
        return
      case 'refused':
        this.#refused(message.number, new JournalUnavailable('io', `the journal refused a commit: ${message.message}`))
        return
      case 'posted':
        this.#unposted = message.unposted
        return
      case 'trouble':
        this.#options.on_trouble(new JournalUnavailable('io', message.message))
        return
      case 'answer':
        this.#asked.get(message.id)?.resolve(message.value)
        this.#asked.delete(message.id)
        return
      case 'no_answer':
        this.#asked.get(message.id)?.reject(namedError(message.name, message.message))
        this.#asked.delete(message.id)
    }
  }

  #committed(number: number, seqs: readonly number[]): void {
    this.#ok = true
    let next = 0
    for (const batch of this.#taken(number)) {
      this.#owed.settle(batch.rows)
      for (const waiter of batch.waiters) {
        waiter.resolve(waiter.is_event ? (seqs[next] ?? 0) : 0)
        if (waiter.is_event) next += 1
      }
    }
    if (this.#owed.size === 0) this.#lost = 0
    else if (!this.#batches.some(({ again }) => again)) this.#giveAgain(this.#owed.next())
  }

  /** Whoever waits is told; what ends a request is kept, since limits have counted its end already. */
  #refused(number: number, error: JournalUnavailable): void {
    this.#ok = false
    const refused = this.#taken(number)
    this.#owe(endsOf(refused.flatMap(({ rows }) => rows)))
    this.#reject(refused, error)
    this.#flushLater()
  }

  #owe(rows: readonly EndingRow[]): void {
    const lost = rows.filter((row) => !this.#owed.keep(row)).length
    const first = this.#lost === 0 && lost > 0
    this.#lost += lost
    if (!first) return
    const words = `ends of ${this.#owed.size} requests wait for a journal that can be written; those of more are left to the next start`
    this.#options.on_trouble(new JournalUnavailable('overloaded', words))
  }

  /** As a message of its own, so that a commit of what was refused is one of what is known. Nobody waits for it. */
  #giveAgain(rows: readonly EndingRow[]): void {
    const nobody: RowWaiter = { is_event: true, resolve: () => undefined, reject: () => undefined }
    const waiters = rows.filter(([kind]) => kind === 'U').map(() => nobody)
    const characters = rows.reduce((sum, row) => sum + (row[2]?.length ?? 0), 0)
    this.#send({ rows, waiters, characters, given_at: this.#options.clock.monotonic_ms(), again: true })
  }

  /** Batches that the writer is done with. */
  #taken(number: number): readonly Batch[] {
    const first_left = this.#batches.findIndex((batch) => batch.number > number)
    const taken = this.#batches.splice(0, first_left === -1 ? this.#batches.length : first_left)
    for (const batch of taken) {
      this.#waiting.rows -= batch.rows.length
      this.#waiting.characters -= batch.characters
    }
    return taken
  }

  /** A batch that is late keeps its place, since the writer may still commit it; only those who wait are told. */
  #checkTimeouts(): void {
    const { clock, commit_timeout_ms } = this.#options
    const late = this.#batches.filter((batch) => clock.monotonic_ms() - batch.given_at >= commit_timeout_ms)
    if (late.length > 0) {
      this.#ok = false
      this.#reject(late, new JournalUnavailable('timeout', `the journal did not commit within ${commit_timeout_ms} ms`))
      for (const batch of late) batch.waiters = batch.waiters.map(withoutListener)
      // Rows that waited for that commit have a timeout of their own, which counts once they are a batch.
      this.#flush()
    }
    this.#timer = null
    const next = this.#batches.find((batch) => !late.includes(batch))
    if (next === undefined) return
    const wait_ms = Math.max(1, commit_timeout_ms - (clock.monotonic_ms() - next.given_at))
    this.#timer = setTimeout(() => this.#checkTimeouts(), wait_ms)
  }

  #reject(batches: readonly Batch[], error: JournalUnavailable): void {
    for (const batch of batches) for (const waiter of batch.waiters) waiter.reject(error)
  }

  #end(error: JournalUnavailable): void {
    if (this.#ended !== null) return
    this.#ended = error
    this.#ok = false
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#reject(this.#batches.splice(0), error)
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
    for (const asked of this.#asked.values()) asked.reject(error)
    this.#asked.clear()
  }
}

/** Keeps a row's place among the event numbers of its batch. */
function withoutListener({ is_event }: RowWaiter): RowWaiter {
  return { is_event, resolve: () => undefined, reject: () => undefined }
}

function startError(name: string, message: string, data_dir: string): Error {
  if (name === 'DataDirectoryInUse') return new DataDirectoryInUse(data_dir)
  if (name === 'SchemaError') return new SchemaError(message)
  return new JournalUnavailable('io', `the data directory ${data_dir} could not be opened: ${message}`)
}

function namedError(name: string, message: string): Error {
  const error = new Error(message)
  error.name = name
  return error
}
