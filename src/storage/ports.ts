/**
 * The narrow ports between the planes and storage. The planes import this file, never a driver.
 * One conformance suite per port runs on every driver; a driver that passes it is right, nothing else is.
 */
import type { Attempt, HoldReceipt, UsageEvent } from '../money/event.ts'
import type { GrantUnit, PaymentPart } from '../money/grant.ts'
import type { PaidCalls, TokenUsage } from '../money/usage.ts'
import type { AuditFacts, LimitUse, UsageMark } from './books.ts'
import type { GrantRecord } from './records.ts'

// ---------------------------------------------------------------- Limits

export type LimitScope = 'key' | 'project' | 'tenant'
export type LimitKind =
  | 'requests_per_minute'
  | 'tokens_per_minute'
  | 'concurrency'
  | 'requests_window'
  | 'tokens_window'
  | 'amount_window'
  | 'budget'

/** Boundaries of a window in Unix ms. Calendar windows are computed by the caller in the tenant's time zone; `5h` starts at first use. */
export interface WindowBounds {
  readonly name: '5h' | 'day' | 'week' | 'month'
  readonly start_ms: number
  readonly end_ms: number
  readonly next_end_ms: number
}

/** One limit that a hold must fit into, resolved by the caller. Units: requests, tokens, or nano-yuan for `amount_window` and `budget`. */
export interface LimitRule {
  readonly scope: LimitScope
  readonly scope_id: string
  /** Catalogue model when the limit is per model, else null. */
  readonly model: string | null
  readonly kind: LimitKind
  readonly limit: bigint
  readonly window: WindowBounds | null
}

export interface HoldRequest {
  readonly v: 1
  /** Request id, made at ingress: the same id always means the same hold. */
  readonly id: string
  readonly tenant: string
  readonly project: string
  readonly key: string
  readonly model: string
  readonly lease_ms: number
  /** Tokens counted against rates and token windows at admission. */
  readonly tokens: number
  /** Upper bound of tokens of every class: what `tokens` grants must cover to pay for the request. */
  readonly grant_tokens: number
  /** Smallest useful coverage by `tokens` grants: with this many, and too little money, the hold takes them (capped answer). Equal to `grant_tokens` when no cap is possible. */
  readonly minimum_tokens: number
  /** Upper bound of the price. */
  readonly amount_nano: bigint
  /** Smallest useful amount: when money covers this but not `amount_nano`, the hold takes what is there (capped answer). Equal to `amount_nano` when no cap is possible. */
  readonly minimum_nano: bigint
  readonly rules: readonly LimitRule[]
  /** How far below zero the wallet may go. */
  readonly credit_line_nano: bigint
  /** What the tenant's contract says of a time when shared limits are away: refuse, or go on up to the credit line. */
  readonly when_away?: 'closed' | 'open'
  /** Its open row, as far as it is known before the hold: drivers that outlive this process keep it for whoever has to close the request. */
  readonly context?: OpenContext
}

/** State of the tightest rate limits after a hold or refusal, for `x-ratelimit-*`. */
export interface RateState {
  readonly limit: number
  readonly remaining: number
  readonly reset_ms: number
}
export interface RateStates {
  readonly requests: RateState | null
  readonly tokens: RateState | null
}

/** Why a hold was refused. Names one limit; a refusal has changed nothing. */
export interface HoldRefusal {
  readonly reason: 'rate' | 'concurrency' | 'window' | 'budget' | 'balance' | 'key_revoked' | 'tenant_suspended'
  readonly rule: LimitRule | null
  readonly available: bigint
  readonly held: bigint
  readonly needed: bigint
  /** When it frees, Unix ms, or null when waiting does not help. */
  readonly frees_at_ms: number | null
}

export type HoldResult =
  | { readonly ok: true; readonly receipt: HoldReceipt; readonly rates: RateStates }
  | { readonly ok: false; readonly refusal: HoldRefusal; readonly rates: RateStates }

export interface ExtendRequest {
  readonly id: string
  readonly tenant: string
  /** New totals, not differences: sending the same request twice changes nothing more. `tokens` count for rates, windows and grants alike. */
  readonly tokens: number
  readonly amount_nano: bigint
  readonly lease_ms: number
  /** What has been delivered since the last one was sent: drivers that outlive this process keep the latest. */
  readonly checkpoint?: CheckpointRow
  /** The open row as the journal has it, where the hold has turned out to belong to another day or price than was expected. */
  readonly context?: OpenContext
}
/** `lapsed`: the hold is no longer open (swept or settled). */
export type ExtendResult =
  | { readonly id: string; readonly state: 'extended'; readonly receipt: HoldReceipt }
  | { readonly id: string; readonly state: 'refused'; readonly refusal: HoldRefusal }
  | { readonly id: string; readonly state: 'lapsed' }

export interface SettleRequest {
  readonly id: string
  readonly tenant: string
  readonly admitted_at: number
  readonly tokens: number
  readonly amount_nano: bigint
  /** The final split, applied verbatim. */
  readonly parts: readonly PaymentPart[]
  /** The sweeper's charge: applied only to a hold that `sweep` marked and nobody closed since, else `duplicate`. */
  readonly swept?: true
  /** The charge of whoever closes a request for a process that has died: applied to a hold that is open, marked or not, else `duplicate`. A late settle may replace it. */
  readonly orphan?: true
  /**
   * Parts that an earlier settle of this request charged: they are given back first, once. What rates, windows and budgets counted stays
   * counted until they are counted anew. `duplicate` if another charge has replaced that one already.
   */
  readonly replaces?: readonly PaymentPart[]
  /** Drivers with a usage stream append it in the same step, unless the state is `late` or `duplicate`. */
  readonly event?: SettledEvent
}
/** An event as its journal has it. */
export interface SettledEvent {
  /** Tells this close from every other one of the same request: the journal's name and number for it. */
  readonly ref: string
  /** JSON. */
  readonly body: string
}
/** `late`: the charge replaces an earlier one, a sweep's or the one named. `duplicate`: already settled, nothing changed. */
export type SettleState = 'settled' | 'late' | 'duplicate'

/** Terms of a grant as limits need them. */
export interface GrantTerms {
  readonly id: string
  readonly tenant: string
  readonly unit: GrantUnit
  /** Burn order: priority ascending, then soonest expiry, then age. */
  readonly priority: number
  readonly expires_at: number | null
  readonly created_at: number
  /** Catalogue models that it pays for; null pays for all. */
  readonly models: readonly string[] | null
  /** Units that one token takes, per model, as decimal strings with at most 6 decimals up to 100; a model that is not named takes 1. For `tokens` only. */
  readonly weights: Readonly<Record<string, string>> | null
}
export interface CreditRequest {
  readonly grant: GrantTerms
  /** Added to the grant's balance; negative takes away. */
  readonly delta: bigint
  /** The tenant's outbox sequence; a driver applies only `applied + 1` and answers `duplicate` below, `gap` above. */
  readonly seq: number
}
export type CreditState = 'applied' | 'duplicate' | 'gap'

/** Where one limit stands, in the limit's unit. */
export interface LimitState {
  readonly rule: LimitRule
  /** What a request could still take now. */
  readonly available: bigint
  /** Reserved by open requests. Rates count a request's tokens as used at once. */
  readonly held: bigint
  /** Used in the current window or, of a budget without one, ever; null for rates and concurrency. */
  readonly used: bigint | null
  /** When everything is available again, Unix ms: the window's end, or when the rate is refilled; null where nothing resets by itself. */
  readonly resets_at_ms: number | null
}

export interface BalanceView {
  readonly available_nano: bigint
  readonly held_nano: bigint
  readonly open_holds: number
  readonly grants: ReadonlyArray<GrantTerms & { readonly balance: bigint; readonly held: bigint }>
}

/**
 * Atomic admission. Every operation is idempotent by the caller's ids and all-or-nothing over every limit at once.
 * Leaves out: who the caller is, what things cost, and the capacity of endpoints (that is the operator's, in `select`).
 */
export interface Limits {
  hold(request: HoldRequest): Promise<HoldResult>
  extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendResult[]>
  settle(request: SettleRequest): Promise<SettleState>
  /** Gives everything back: the request reached no upstream. A second release, or one after a settle, changes nothing. */
  release(id: string, tenant: string): Promise<void>
  /** Receipts of holds whose lease ended before `now_ms`, marked swept. Their parts stay reserved until `settle` charges the sweep. */
  sweep(now_ms: number): Promise<readonly HoldReceipt[]>
  credit(request: CreditRequest): Promise<CreditState>
  /** Written before a revocation call returns: every later hold with this key is refused. */
  block(kind: 'key' | 'tenant', id: string, blocked: boolean): Promise<void>
  balance(tenant: string): Promise<BalanceView>
  /** Where limits stand, in the order given. Changes nothing. */
  states(rules: readonly LimitRule[]): Promise<readonly LimitState[]>
  /** Open holds of all tenants, for metrics and audits. */
  openHolds(): Promise<number>
  /** Holds outlive this process: they want the open row with the hold, and checkpoints with extensions. */
  readonly outlives?: true
}

// ---------------------------------------------------------------- UsageLog (the journal)

/** A target that this request may be sent to, with the price versions fixed at admission. */
export interface PricedTarget {
  readonly endpoint: string
  readonly provider: string
  readonly model: string
  readonly zone: string
  readonly filing: string | null
  readonly dialect: string
  readonly price_version: string
  readonly cost_version: string | null
}

/** Row `S`: everything that is known at admission, so that a sweeper needs nobody's memory to close it. */
export interface OpenRow {
  readonly v: 1
  readonly hold: HoldReceipt
  readonly day: string
  readonly end_user: string | null
  readonly tags: Readonly<Record<string, string>>
  readonly protocol: UsageEvent['protocol']
  readonly audience: UsageEvent['audience']
  readonly registry_date: string | null
  readonly model_asked: string
  readonly route: string
  readonly domain: string
  readonly stream: boolean
  readonly thinking: boolean
  readonly prompt_tokens: number
  readonly targets: readonly PricedTarget[]
}

/** An open row before its hold. */
export type OpenContext = Omit<OpenRow, 'hold'>

/** Row `C`: what had been delivered when it was written. The latest counts. */
export interface CheckpointRow {
  readonly v: 1
  readonly id: string
  readonly at: number
  readonly endpoint: string
  readonly tokens: TokenUsage
  readonly ttfe_ms: number | null
  readonly attempts: readonly Attempt[]
  /** The hold's receipt as far as it had been extended; absent while it is still the open row's. */
  readonly hold?: HoldReceipt
}

/** An `S` row without `U` or `R`, with its last checkpoint. */
export interface UnfinishedRequest {
  readonly open: OpenRow
  readonly last: CheckpointRow | null
}

/** An event as the caller of `close` knows it: the log adds the node and its running number. */
export type ClosingEvent = Omit<UsageEvent, 'node' | 'seq'>

/** The durable record of what this process served. Rows `S` open, `C` checkpoint, `U` event, `R` released without event. */
export interface UsageLog {
  /** Resolves when the row survives a kill of the process. */
  open(row: OpenRow): Promise<void>
  /** Written with the next batch; at most one batch is lost on a kill. */
  checkpoint(rows: readonly CheckpointRow[]): void
  /**
   * Resolves with the event's sequence number when the row survives a power cut (fsync). Rejects after `commit_timeout_ms`, or when it
   * cannot be written now: it then is kept, within limits, and written once commits work again, as is a refused release.
   */
  close(event: ClosingEvent): Promise<number>
  release(id: string): void
  /** Requests that an earlier owner of this journal left open; with `ids`, those of them that are open now, whoever opened them. */
  unfinished(ids?: readonly string[]): Promise<readonly UnfinishedRequest[]>
  /** Rows waiting to be posted to the ledger, and whether the last commit worked. */
  health(): { readonly unposted: number; readonly ok: boolean }
}

// ---------------------------------------------------------------- Ledger

/** Chart of accounts. Money and each other unit balance alone. */
export type AccountCode =
  | 'wallet_liability'
  | 'prepaid_grant'
  | 'contract_commitment'
  | 'receivable'
  | 'usage_revenue'
  | 'promo'
  | 'breakage'
  | 'supplier_cost'
  | 'supplier_payable'
  | 'cash_clearing'
  | 'vat_payable'
  | 'rounding_carry'

/** `owner` is a tenant or provider id; `ref` a grant id or empty. */
export interface Account {
  readonly code: AccountCode
  readonly owner: string
  readonly ref: string
  readonly unit: GrantUnit
}
/** Debit positive, credit negative. */
export interface LedgerEntry {
  readonly account: Account
  readonly amount: bigint
}
/** Append-only; the entries of each unit sum to zero. `id` makes posting idempotent. */
export interface LedgerTransaction {
  readonly id: string
  readonly at: number
  readonly kind: 'usage' | 'top_up' | 'promo' | 'grant' | 'expiry' | 'reversal' | 'adjustment'
  readonly note: string
  readonly entries: readonly LedgerEntry[]
}

/** Which events or sums are meant. Members that are absent do not restrict. */
export interface UsageFilter {
  readonly tenant?: string
  readonly project?: string
  readonly key?: string
  readonly model?: string
  readonly endpoint?: string
  readonly end_user?: string
  readonly tag?: { readonly name: string; readonly value: string }
}
export interface EventQuery extends UsageFilter {
  /** Half-open interval of `admitted_at`, Unix ms. */
  readonly from_ms?: number
  readonly to_ms?: number
  /** Only events that cost more than their hold. */
  readonly overrun?: boolean
  readonly limit: number
  /** Opaque, from the page before. @throws BadCursor when it is not */
  readonly cursor?: string
}
export interface EventPage {
  readonly events: readonly UsageEvent[]
  readonly next_cursor: string | null
}

/** A half-open interval of `admitted_at`, Unix ms. */
export interface Period {
  readonly from_ms: number
  readonly to_ms: number
}
/** What sums can be split by. Sums by tag leave out events without that tag, sums by end user those without one. */
export type UsageDimension = 'tenant' | 'project' | 'key' | 'model' | 'endpoint' | 'end_user' | `tag:${string}`
/** Sums of usage, read from rollups. */
export interface UsageQuery extends UsageFilter {
  /** In order, not overlapping, at most {@link MAX_PERIODS}. Each gives its own rows. */
  readonly periods: readonly Period[]
  /** At most three. An end user and a tag cannot be combined with each other or with a second tag, here and in the filter together. @throws RangeError */
  readonly by: readonly UsageDimension[]
  readonly limit: number
  /** Opaque, from the page before. @throws BadCursor when it is not */
  readonly cursor?: string
}
export const MAX_PERIODS = 400
export interface UsageSums {
  readonly requests: number
  readonly completed: number
  readonly tokens: TokenUsage
  readonly calls: PaidCalls
  readonly amount_nano: bigint
  readonly cost_nano: bigint
  readonly overrun_nano: bigint
}
/** Sums of one period and one combination of values; `group` has the values in the order of `by`. */
export interface UsageRow extends UsageSums {
  readonly period: number
  readonly group: readonly string[]
}
export interface UsagePage {
  /** By period, then by group. Combinations without usage have no row. */
  readonly rows: readonly UsageRow[]
  readonly next_cursor: string | null
}

/** A cursor that this query did not give. */
export class BadCursor extends Error {
  override name = 'BadCursor'
}

export interface TransactionQuery {
  /** Transactions that touch one of the tenant's accounts. */
  readonly tenant?: string
  readonly kind?: LedgerTransaction['kind']
  readonly from_ms?: number
  readonly to_ms?: number
  readonly limit: number
  readonly cursor?: string
}
export interface TransactionPage {
  readonly transactions: readonly LedgerTransaction[]
  readonly next_cursor: string | null
}
export interface PostResult {
  readonly events: number
  readonly transactions: number
}

export interface Ledger {
  /** Posts everything that the usage log has closed by now. Safe to call at any time, also twice at once. */
  post(): Promise<PostResult>
  transact(transaction: LedgerTransaction): Promise<'posted' | 'duplicate'>
  transaction(id: string): Promise<LedgerTransaction | null>
  /** Newest first. */
  transactions(query: TransactionQuery): Promise<TransactionPage>
  balances(): Promise<ReadonlyArray<LedgerEntry>>
  event(id: string): Promise<UsageEvent | null>
  /** Highest revisions only, newest first. Events of archived days are in their archive, not here. */
  events(query: EventQuery): Promise<EventPage>
  usage(query: UsageQuery): Promise<UsagePage>
  /** Archived days (UTC+8) that a half-open interval of Unix ms touches, oldest first: their events are in files, not here. */
  archivedDays(range: { readonly from_ms?: number; readonly to_ms?: number }): Promise<readonly string[]>
  /** Facts for the audit, computed in one read transaction. Call `post` first; with a mark, balances and open requests are those of that moment. */
  auditFacts(mark?: UsageMark): Promise<AuditFacts>
}
// ---------------------------------------------------------------- What joins the ports

/** Ends requests: how a hold becomes its charge while the event becomes durable. */
export interface Closing {
  /**
   * Resolves when the event is durable and limits have taken the charge, or certainly will.
   * @returns the event as it was recorded: with revision 2 if its hold had been swept meanwhile
   * @throws what keeps the event from being durable; it then is written once it can be
   */
  close(event: ClosingEvent): Promise<ClosingEvent>
  /** Takes back the charge of an event of which nothing left, in a second revision. @returns the event as it stands */
  withdraw(event: ClosingEvent): Promise<ClosingEvent>
  /** Gives a hold back whose request reached no upstream. */
  release(id: string, tenant: string): Promise<void>
}

/** How what the ledger has given or taken reaches limits: each transaction once. */
export interface Credits {
  /** The ledger has just taken this transaction. Resolves when limits know of it or, where they are away, certainly will. */
  deliver(transaction: LedgerTransaction): Promise<void>
  /** Whether the ledger has taken it is not known, since posting failed. */
  doubt(transaction: LedgerTransaction): void
  /** Delivers what is still lacking of a transaction that the ledger has. */
  makeUp(id: string): Promise<void>
  /** The same for everything that was doubted, or could not be delivered. */
  makeUpAll(): Promise<void>
  /** Whether the ledger has something for a tenant of which limits have not been told yet. */
  owes(tenant: string): Promise<boolean>
  /** The terms under which admission spends a grant are these now. */
  changeTerms(grant: GrantRecord): Promise<void>
  /** Puts right what admission believes of a grant; the ledger stays as it is. */
  correct(terms: GrantTerms, delta: bigint): Promise<void>
  /** Puts right what admission believes was used of a window or budget. */
  correctMeter(use: LimitUse, delta: bigint): Promise<void>
}

/** Work on one thing at a time, whichever process does it. */
export interface Turns {
  /** Runs `work` when everything that was asked before under this name has ended, so that looking and writing are one step. */
  run<Result>(name: string, work: () => Promise<Result>): Promise<Result>
}

// ---------------------------------------------------------------- Changes

/** Tells this process that records or configuration changed. A hint: followers read `changesAfter`. */
export interface Changes {
  publish(seq: number): Promise<void>
  subscribe(listener: (seq: number) => void): () => void
  /** The newest number that was published, as far as processes share it; null where they do not. */
  version(): Promise<number | null>
}
