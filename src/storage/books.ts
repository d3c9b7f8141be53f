/** Ports that keep the books in order: audits at a cut, closed days as files, and what is derived computed again. */
import type { BalanceView, LedgerEntry, LimitRule, LimitState } from './ports.ts'

// ---------------------------------------------------------------- Cut

/** A place in the usage log: what was given to it before, and nothing after. */
export interface UsageMark {
  readonly node: string
  /** Number of the last event before the mark. */
  readonly event_seq: number
  /** Number of the last row of any kind before the mark. */
  readonly row_seq: number
  /** Every `S` row below this number was closed at the mark: where a search for open ones begins. */
  readonly open_floor?: number
  /** Number of the last ledger transaction before the mark. */
  readonly transaction_seq?: number
  /** Ids of transactions that somebody was waiting for at the mark: in the ledger or about to be, and not applied to limits yet. */
  readonly pending?: readonly string[]
  /** Balances at the mark, where reading them was a part of taking it. */
  readonly balances?: readonly LedgerEntry[]
  /** Likewise what had been used of limits. */
  readonly used?: ReadonlyMap<LimitRule, bigint>
  /** Where several nodes post to one ledger: of each, the number up to which every event must be there. Other nodes are not judged. */
  readonly nodes?: ReadonlyArray<{ readonly node: string; readonly event_seq: number }>
}

/** One moment of admission and where the usage log stood at that moment, so that an audit can compare them while traffic goes on. */
export interface Cut {
  readonly mark: UsageMark
  readonly balances: ReadonlyMap<string, BalanceView>
  /** Ids of the open holds, those marked swept included. */
  readonly holds: ReadonlySet<string>
  /** Where the limits stand that the cut was asked about, in the order given. */
  readonly states: readonly LimitState[]
}

/** What `weir audit` compares. */
export interface AuditFacts {
  /** Transactions whose entries do not sum to zero in some unit. */
  readonly unbalanced: readonly string[]
  /** Journal `U` rows that are not in the ledger, and the reverse, at most 10 of each. */
  readonly missing_events: readonly string[]
  readonly unexplained_events: readonly string[]
  /** Ids with more than one highest revision, or whose stored body differs from the journal's, or columns from the body. */
  readonly differing_events: readonly string[]
  /** Numbers of events that a node gave out and that are in no table, as `node 12–14`. */
  readonly gaps: readonly string[]
  /** Σ of events against Σ of usage entries, per account, and running balances against their entries, where they differ. */
  readonly wrong_sums: readonly string[]
  /** Entries without a transaction, usage without entries, and transactions of other kinds that are missing or not what was posted. */
  readonly wrong_transactions: readonly string[]
  /** Grants whose record has another amount, unit, kind or tenant than what was given. */
  readonly wrong_grants: readonly string[]
  /** Rollups against the events they sum up, and against finer ones, where they differ. */
  readonly wrong_rollups: readonly string[]
  /** Requests still open in the journal. */
  readonly open_requests: readonly string[]
  /** Running balances of every account. */
  readonly balances: readonly LedgerEntry[]
  readonly events: number
  readonly amount_nano: bigint
}

// ---------------------------------------------------------------- Archive

/** One closed day whose events are kept as a file instead of rows. */
export interface ArchivedDay {
  /** In the order in which files were written; the chain follows it. */
  readonly number: number
  readonly day: string
  /** `written`: its file is durable and its rows are still being deleted; the next run goes on. */
  readonly state: 'written' | 'closed'
  /** Name below the archive's directory. */
  readonly file: string
  /** Lines: every revision. */
  readonly events: number
  /** Highest revisions. */
  readonly requests: number
  readonly amount_nano: bigint
  readonly cost_nano: bigint
  /** SHA-256 of the uncompressed bytes, hex. */
  readonly digest: string
  /** Size of the compressed file; null if it was written before sizes were recorded. */
  readonly bytes: number | null
  /** SHA-256 of `previous\nday digest`, hex, where `previous` is the chain of the archive before, or empty. */
  readonly chain: string
  readonly previous: string
  readonly at: number
}
/** A day with events that is not archived, and what keeps it from being so. */
export interface ArchivableDay {
  readonly day: string
  /** Rows of events, every revision. */
  readonly events: number
  readonly blocked: string | null
}
/** Something that an archive's file and the books do not agree on. */
export interface ArchiveFinding {
  readonly day: string
  readonly what: string
  readonly expected: string
  readonly found: string
}
/** Hears how far long work has come. */
export type OnProgress = (progress: { readonly doing: string; readonly done: number; readonly of: number }) => void

/** Events of closed days as files, one per day, and the books about them. Only one of its methods runs at a time. */
export interface EventArchive {
  list(): Promise<readonly ArchivedDay[]>
  /** Days before `before` (a UTC+8 date) that are over, have events and no finished archive, oldest first. Deletes journal rows past their time. */
  days(before: string): Promise<readonly ArchivableDay[]>
  /**
   * Writes the file of a day that nothing blocks, then deletes its rows in small commits. Goes on where a dead process stopped.
   * @throws ArchiveRefused if something blocks it, or the file read back is not what was written
   */
  archive(day: string, on_progress: OnProgress): Promise<ArchivedDay>
  /** Whether every file is there and has its size, and the books about it fit together; what is in it only {@link verify} reads. */
  glance(): Promise<readonly ArchiveFinding[]>
  /** Reads files again, against digests, chain and sums. */
  verify(on_progress: OnProgress): Promise<readonly ArchiveFinding[]>
}
/** A day was not archived. Says why. */
export class ArchiveRefused extends Error {
  override name = 'ArchiveRefused'
}

// ---------------------------------------------------------------- Rebuild

/** Something derived that was wrong; with `check` it still is. */
export interface RebuildChange {
  readonly what: string
  readonly id: string
  readonly was: string
  readonly now: string
}
/** Something that is wrong and follows from nothing that is here. */
export interface LostFact {
  readonly what: string
  readonly id: string
  readonly why: string
}
/** A window or budget of one scope: requests admitted in a half-open interval of Unix ms. */
export interface LimitUse {
  readonly tenant: string
  readonly rule: LimitRule
  readonly from_ms: number
  readonly to_ms: number
}
/** Recomputes what the journal, the events and the ledger's entries determine. With `check` nothing changes. Safe beside a running gateway; one at a time. */
export interface Rebuilder {
  /** Rows of events, from their bodies; those that the ledger lacks or has otherwise, from the journal. */
  events(check: boolean): Promise<readonly RebuildChange[]>
  /**
   * Entries of usage, from events and the books of archived days; where events are lost, or archives not sound, they stay.
   * @param archivesAreSound asked only if entries differ and there are archives
   */
  entries(check: boolean, archivesAreSound: () => Promise<boolean>): Promise<readonly RebuildChange[]>
  /** Running balances, from entries. */
  balances(check: boolean): Promise<readonly RebuildChange[]>
  /** Every account's balance as of a mark; see {@link AuditFacts}. */
  balancesAt(mark: UsageMark): Promise<readonly LedgerEntry[]>
  /** What events up to a mark have used of limits, in the limits' units, in the order given. Archived days count through their sums. */
  usedAt(mark: UsageMark, uses: readonly LimitUse[]): Promise<readonly bigint[]>
  /** Sums of usage, from events. Archived days keep theirs, and while events are lost every minute does. */
  rollups(check: boolean, on_progress: OnProgress): Promise<readonly RebuildChange[]>
  /** What cannot be recomputed, and why: to be asked last. */
  lost(): Promise<readonly LostFact[]>
}
