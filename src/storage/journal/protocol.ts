import type { UsageMark } from '../books.ts'
import type { LedgerTransaction, PostResult } from '../ports.ts'
import type { ArchiveFacts } from '../sql/archive-file.ts'
import type { SqlRow, SqlStatement } from '../sql/executor.ts'

/** What the writer's thread is started with. */
export interface WriterStart {
  readonly data_dir: string
  readonly keep_days: number
  /** Name for a journal that has none yet. */
  readonly new_node: string
  readonly now_ms: number
  /** `here`: the ledger is in this file too. `elsewhere`: events are read from here and forwarded to a ledger that processes share. */
  readonly posting: 'here' | 'elsewhere'
}

/** What is known of an event's charge; see migration 007. `epoch` is 0 where limits never charge it. */
export interface ChargeNote {
  readonly id: string
  readonly revision: number
  readonly epoch: number
  readonly appended: boolean
  readonly void: boolean
}
/** A `U` row that the ledger may lack. */
export interface UnpostedRow {
  readonly seq: number
  readonly event_seq: number
  readonly id: string
  readonly revision: number
  readonly day: string
  /** When it was committed, Unix ms. */
  readonly at: number
  readonly body: string
  readonly note: ChargeNote | null
}

/** A journal row on its way to the writer: short tuples, because copying them between threads is on the hot path. */
export type RowMessage =
  | readonly [kind: 'S' | 'C', id: string, body: string]
  | readonly [kind: 'U', id: string, unnumbered_body: string, revision: number, day: string]
  | readonly [kind: 'R', id: string]

export type Ask =
  | { readonly what: 'write'; readonly statements: readonly SqlStatement[] }
  | { readonly what: 'transact'; readonly transaction: LedgerTransaction }
  | { readonly what: 'post' }
  | { readonly what: 'unfinished'; readonly ids: readonly string[] | null }
  /** Where journal and ledger stand once every row given before is committed. */
  | { readonly what: 'mark' }
  /** Deletes one small batch of rows that are past their time. */
  | { readonly what: 'forget'; readonly now_ms: number }
  /** Writes the events of `U` rows again, by number, that the ledger lacks or has otherwise. */
  | { readonly what: 'repost'; readonly seqs: readonly number[] }
  /** Has the hour or day of a tenant that holds an instant derived again. */
  | { readonly what: 'derive'; readonly grain: 'hour' | 'day'; readonly tenant: string; readonly at: number }
  /** `U` rows behind a row number that may not be in the ledger, oldest first, with what is known of their charge. */
  | { readonly what: 'unposted'; readonly after: number; readonly limit: number }
  | { readonly what: 'note'; readonly notes: readonly ChargeNote[] }
  /** Every `U` row up to and with this number is in the ledger. */
  | { readonly what: 'posted'; readonly seq: number }
  /** The `U` row of a request's revision. */
  | { readonly what: 'event'; readonly id: string; readonly revision: number }
  /** Events in the order of their rows, beginning after one; at most so many. */
  | { readonly what: 'events_after'; readonly row: number; readonly limit: number }
  | { readonly what: 'close' }

/** Answers by question. */
export interface Answers {
  readonly write: readonly (readonly SqlRow[])[]
  readonly transact: 'posted' | 'duplicate'
  readonly post: PostResult
  readonly unfinished: ReadonlyArray<{ readonly open: string; readonly last: string | null }>
  readonly mark: Omit<UsageMark, 'pending'>
  /** Rows deleted; 0 means that there is no more. */
  readonly forget: number
  readonly repost: null
  readonly derive: null
  readonly unposted: readonly UnpostedRow[]
  readonly note: null
  /** `U` rows that are left. */
  readonly posted: number
  readonly event: string | null
  readonly events_after: ReadonlyArray<{ readonly row: number; readonly body: string }>
  readonly close: null
}

export type ToWriter =
  | { readonly kind: 'rows'; readonly number: number; readonly at: number; readonly rows: readonly RowMessage[] }
  | { readonly kind: 'ask'; readonly id: number; readonly ask: Ask }

export type FromWriter =
  | { readonly kind: 'ready'; readonly node: string; readonly unposted: number }
  | { readonly kind: 'not_started'; readonly name: string; readonly message: string }
  /** Batches up to `number` are committed; `seqs` numbers their U rows in order. */
  | { readonly kind: 'committed'; readonly number: number; readonly seqs: readonly number[]; readonly unposted: number }
  /** Batches up to `number` that had not been committed are not, and will not be. */
  | { readonly kind: 'refused'; readonly number: number; readonly message: string }
  | { readonly kind: 'answer'; readonly id: number; readonly value: Answers[keyof Answers] }
  | { readonly kind: 'no_answer'; readonly id: number; readonly name: string; readonly message: string }
  | { readonly kind: 'posted'; readonly unposted: number }
  /** Work that nobody waits for failed and will be tried again. */
  | { readonly kind: 'trouble'; readonly message: string }

export type ToReader = { readonly id: number; readonly statements: readonly SqlStatement[] }
export type FromReader =
  | { readonly id: number; readonly rows: readonly (readonly SqlRow[])[] }
  | { readonly id: number; readonly message: string }

/** What the archiver's thread is started with. `path` is the database's file. */
export type ArchiveTask =
  | { readonly what: 'write'; readonly path: string; readonly day: string; readonly directory: string; readonly file: string }
  | { readonly what: 'read'; readonly directory: string; readonly file: string }
export type FromArchiver =
  | { readonly kind: 'lines'; readonly lines: number }
  | { readonly kind: 'done'; readonly facts: ArchiveFacts }
  | { readonly kind: 'failed'; readonly message: string }
