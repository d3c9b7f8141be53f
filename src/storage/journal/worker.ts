/** The writer's thread: the only connection that writes the data directory's database. Started by `client.ts`. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { assert, unreachable } from '../../base/assert.ts'
import type { PostResult } from '../ports.ts'
import type { SqlRow, SqlStatement } from '../sql/executor.ts'
import { migrate } from '../sql/migrate.ts'
import { Poster } from '../sql/post.ts'
import { Rollups } from '../sql/rollups.ts'
import { type DirectoryLock, lockDirectory } from './lock.ts'
import type { Answers, Ask, FromWriter, ToWriter, WriterStart } from './protocol.ts'
import { Forwarding } from './forwarding.ts'
import { inTransaction, JournalRows } from './rows.ts'

/** Rows wait this long for company before they are posted, unless {@link POST_AT} of them wait. */
const POST_IDLE_MS = 200
const POST_AT = 500
/** Events per posting transaction: a few milliseconds, which is what a commit may have to wait. */
const POST_SLICE = 200
const RETRY_MS = 1000
/** Between two slices of deriving rollups: commits come first. */
const DERIVE_PAUSE_MS = 20
const DELETE_EVERY_MS = 60_000
/** Most messages joined into one transaction. */
const MAX_JOINED = 1000
/** Pages (4 KiB) in the write-ahead log at which a commit also checkpoints; idle time usually comes first. */
const CHECKPOINT_PAGES = 4000
/** Events after which a quiet moment is used for that checkpoint. */
const CHECKPOINT_EVENTS = 500

class Writer {
  readonly #port: MessagePort
  readonly #start: WriterStart
  readonly #lock: DirectoryLock
  readonly #database: DatabaseSync
  readonly #rows: JournalRows
  readonly #forwarding: Forwarding
  /** Null where the ledger is elsewhere. */
  readonly #ledger: { readonly poster: Poster; readonly rollups: Rollups } | null
  readonly #posts: { readonly id: number; events: number; transactions: number }[] = []
  #unposted: number
  #timer: NodeJS.Timeout | null = null
  #immediate = false
  #busy_since_timer = false
  #now_ms: number
  #deleted_at_ms = 0
  #events_since_checkpoint = 0
  #probe: NodeJS.Timeout | null = null
  #derive_timer: NodeJS.Timeout | null = null

  constructor(port: MessagePort, start: WriterStart) {
    this.#port = port
    this.#start = start
    this.#now_ms = start.now_ms
    mkdirSync(start.data_dir, { recursive: true, mode: 0o700 })
    this.#lock = lockDirectory(start.data_dir)
    const path = join(start.data_dir, 'weir.db')
    this.#database = new DatabaseSync(path, { timeout: 5000 })
    this.#database.exec(`PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; PRAGMA temp_store = MEMORY`)
    migrate(this.#database, path, start.now_ms)
    this.#rows = new JournalRows(this.#database, start.new_node)
    this.#forwarding = new Forwarding(this.#database, this.#rows)
    this.#ledger = start.posting === 'here' ? this.#openLedger() : null
    this.#unposted = this.#rows.countUnposted()
    this.#tell({ kind: 'ready', node: this.#rows.node, unposted: this.#unposted })
    this.#planPosting()
    this.#deriveLater()
  }

  #openLedger(): { readonly poster: Poster; readonly rollups: Rollups } {
    const rollups = new Rollups(this.#database)
    return { rollups, poster: new Poster(this.#database, this.#rows, rollups) }
  }

  /** Takes everything that is queued: batches that arrived together are committed together. */
  receive(first: ToWriter): void {
    let batches: Extract<ToWriter, { kind: 'rows' }>[] = []
    let message: ToWriter | undefined = first
    for (let joined = 0; message !== undefined; joined += 1) {
      if (message.kind === 'rows') batches.push(message)
      else {
        this.#commit(batches)
        batches = []
        this.#answer(message.id, message.ask)
      }
      message = joined < MAX_JOINED ? receiveMessageOnPort(this.#port)?.message : undefined
    }
    this.#commit(batches)
    this.#busy_since_timer = true
    this.#planPosting()
  }

  #commit(batches: readonly Extract<ToWriter, { kind: 'rows' }>[]): void {
    const last = batches.at(-1)
    if (last === undefined) return
    this.#now_ms = last.at
    try {
      const { seqs, events } = this.#rows.commit(batches)
      this.#unposted += events
      this.#events_since_checkpoint += events
      this.#tell({ kind: 'committed', number: last.number, seqs, unposted: this.#unposted })
    } catch (error) {
      this.#tell({ kind: 'refused', number: last.number, message: messageOf(error) })
      this.#probeLater(last.number)
    }
  }

  /**
   * Tries a write of its own once a second until one is durable. An unready node gets no traffic, so it cannot be the traffic's
   * next row that shows that there is room again.
   */
  #probeLater(refused_number: number): void {
    this.#probe ??= setTimeout(() => {
      this.#probe = null
      try {
        this.#rows.syncFully(true)
        this.#database.exec("UPDATE meta SET value = value WHERE name = 'node'")
        // The refused batches are forgotten already: what this says is that commits work.
        this.#tell({ kind: 'committed', number: refused_number, seqs: [], unposted: this.#unposted })
      } catch (error) {
        this.#tell({ kind: 'trouble', message: `the journal still refuses commits: ${messageOf(error)}` })
        this.#probeLater(refused_number)
      }
    }, RETRY_MS)
  }

  #answer(id: number, ask: Ask): void {
    if (ask.what === 'post' && this.#start.posting === 'here') {
      this.#posts.push({ id, events: 0, transactions: 0 })
      return
    }
    try {
      this.#tell({ kind: 'answer', id, value: this.#do(ask) })
    } catch (error) {
      this.#tell({ kind: 'no_answer', id, name: error instanceof Error ? error.name : 'Error', message: messageOf(error) })
    }
  }

  #do(ask: Ask): Answers[keyof Answers] {
    switch (ask.what) {
      case 'post':
        throw new Error('events of this journal are posted elsewhere')
      case 'write':
        this.#rows.syncFully(true)
        return inTransaction(this.#database, () => ask.statements.map((statement) => this.#run(statement)))
      case 'transact':
        this.#rows.syncFully(true)
        return this.#books().poster.transact(ask.transaction)
      case 'unfinished':
        return this.#rows.unfinished(ask.ids)
      case 'mark':
        return this.#mark()
      case 'forget':
        // Nothing else tells a server without traffic that hours and days have ended.
        this.#now_ms = Math.max(this.#now_ms, ask.now_ms)
        this.#deriveLater()
        return this.#rows.deleteOld(this.#start.keep_days, ask.now_ms)
      case 'repost':
        this.#rows.syncFully(true)
        this.#books().poster.repost(ask.seqs)
        return null
      case 'derive':
        this.#deriveAgain(ask)
        return null
      case 'unposted':
        return this.#forwarding.unposted(ask.after, ask.limit)
      case 'note':
        this.#rows.syncFully(false)
        this.#forwarding.note(ask.notes)
        return null
      case 'posted':
        this.#rows.syncFully(false)
        this.#forwarding.posted(ask.seq)
        this.#unposted = this.#rows.countUnposted()
        this.#tell({ kind: 'posted', unposted: this.#unposted })
        return this.#unposted
      case 'event':
        return this.#forwarding.event(ask.id, ask.revision)
      case 'events_after':
        return this.#rows.eventsAfter(ask.row, ask.limit)
      case 'close':
        return this.#close()
      default:
        return unreachable(ask)
    }
  }

  #books(): { readonly poster: Poster; readonly rollups: Rollups } {
    assert(this.#ledger !== null, 'the ledger is not in this file')
    return this.#ledger
  }

  #deriveAgain({ grain, tenant, at }: Extract<Ask, { what: 'derive' }>): void {
    this.#rows.syncFully(false)
    inTransaction(this.#database, () => this.#books().rollups.touch(grain, tenant, at))
    this.#deriveLater()
  }

  #mark(): Answers['mark'] {
    const transaction_seq = Number(this.#database.prepare('SELECT MAX(rowid) AS seq FROM ledger_transactions').get()?.['seq'] ?? 0)
    const { node, last_event_seq: event_seq, last_seq: row_seq, open_floor } = this.#rows
    return { node, event_seq, row_seq, open_floor, transaction_seq }
  }

  #run({ sql, params }: SqlStatement): readonly SqlRow[] {
    const statement = this.#database.prepare(sql)
    statement.setReadBigInts(true)
    return plainRows(statement.all(...params))
  }

  /** Posting runs between commits: soon when many wait or someone asked, else after a quiet moment. */
  #planPosting(): void {
    if (this.#posts.length > 0 || (this.#ledger !== null && this.#unposted >= POST_AT)) {
      if (this.#immediate) return
      this.#immediate = true
      setImmediate(() => {
        this.#immediate = false
        this.#post()
      })
      return
    }
    if (this.#timer === null && this.#unposted > 0) this.#timer = setTimeout(() => this.#idle(), POST_IDLE_MS)
  }

  #idle(): void {
    this.#timer = null
    const busy = this.#busy_since_timer
    this.#busy_since_timer = false
    // The first look comes while the rows that set the timer are fresh; one more turn waits for what follows them.
    if (busy && (this.#ledger === null || this.#unposted < POST_AT)) this.#timer = setTimeout(() => this.#quiet(), POST_IDLE_MS)
    else this.#quiet()
  }

  #quiet(): void {
    this.#timer = null
    this.#post()
    if (this.#ledger !== null && this.#unposted > 0) return
    this.#deriveLater()
    try {
      this.#tidy()
    } catch (error) {
      this.#deleted_at_ms = this.#now_ms
      this.#tell({ kind: 'trouble', message: `the journal was not tidied: ${messageOf(error)}` })
    }
  }

  /** Work for a quiet moment: move the write-ahead log into the file, delete one batch of old rows. */
  #tidy(): void {
    if (this.#events_since_checkpoint >= CHECKPOINT_EVENTS) {
      this.#events_since_checkpoint = 0
      this.#database.exec('PRAGMA wal_checkpoint(PASSIVE)')
    }
    if (this.#now_ms - this.#deleted_at_ms < DELETE_EVERY_MS) return
    const more = this.#ledger?.rollups.deleteSome(this.#now_ms) ?? false
    const deleted = this.#rows.deleteOld(this.#start.keep_days, this.#now_ms)
    if (deleted === 0 && !more) this.#deleted_at_ms = this.#now_ms
  }

  /** Hours and days of the rollups, a slice at a time until none is left. Rows to post and batches to commit come in between. */
  #deriveLater(): void {
    if (this.#ledger === null) return
    this.#derive_timer ??= setTimeout(() => {
      this.#derive_timer = null
      this.#derive()
    }, DERIVE_PAUSE_MS)
  }

  #derive(): void {
    try {
      this.#rows.syncFully(false)
      if (this.#ledger?.rollups.deriveSome(this.#now_ms) === true) this.#deriveLater()
    } catch (error) {
      this.#tell({ kind: 'trouble', message: `rollups were not derived: ${messageOf(error)}` })
    }
  }

  #post(): void {
    if (this.#ledger === null) return this.#answerPosts()
    try {
      this.#rows.syncFully(false)
      const { rows, events, transactions } = this.#ledger.poster.postSome(POST_SLICE)
      this.#unposted = rows < POST_SLICE ? 0 : this.#unposted - rows
      if (rows > 0) this.#tell({ kind: 'posted', unposted: this.#unposted })
      for (const post of this.#posts) {
        post.events += events
        post.transactions += transactions
      }
      if (rows < POST_SLICE) this.#answerPosts()
      // Whoever asked for a posting is about to read.
      if (rows < POST_SLICE && rows > 0) this.#deriveLater()
      this.#planPosting()
    } catch (error) {
      this.#postFailed(messageOf(error))
    }
  }

  #answerPosts(): void {
    for (const { id, events, transactions } of this.#posts.splice(0)) {
      this.#tell({ kind: 'answer', id, value: { events, transactions } satisfies PostResult })
    }
  }

  #postFailed(message: string): void {
    for (const { id } of this.#posts.splice(0)) this.#tell({ kind: 'no_answer', id, name: 'Error', message })
    this.#tell({ kind: 'trouble', message: `events were not posted to the ledger: ${message}` })
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#quiet(), RETRY_MS)
  }

  #close(): null {
    if (this.#ledger !== null) {
      while (this.#ledger.poster.postSome(POST_SLICE).rows > 0);
      this.#unposted = 0
    }
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#probe !== null) clearTimeout(this.#probe)
    if (this.#derive_timer !== null) clearTimeout(this.#derive_timer)
    this.#database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    this.#database.close()
    this.#lock.close()
    // After the answer to this has been sent; with the port the thread ends.
    setImmediate(() => this.#port.close())
    return null
  }

  #tell(message: FromWriter): void {
    this.#port.postMessage(message)
  }
}

/** Rows of node:sqlite have no prototype, which copies badly between threads. */
function plainRows(rows: readonly Record<string, unknown>[]): readonly SqlRow[] {
  return rows.map((row) => ({ ...row }) as SqlRow)
}

/** What SQLite says of an error; it names tables and files, never their content. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function main(): void {
  assert(parentPort !== null, 'the writer is started as a thread')
  const port = parentPort
  try {
    const writer = new Writer(port, workerData as WriterStart)
    port.on('message', (message: ToWriter) => writer.receive(message))
  } catch (error) {
    const name = error instanceof Error ? error.name : 'Error'
    port.postMessage({ kind: 'not_started', name, message: messageOf(error) } satisfies FromWriter)
  }
}

main()
