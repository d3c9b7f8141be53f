import type { HeldPart, PaymentPart } from './grant.ts'
import type { PaidCalls, TokenUsage, UsageSource } from './usage.ts'

/** How a request ended. `completed` alone means the client was sent a whole answer. */
export type EventStatus = 'completed' | 'truncated' | 'aborted' | 'failed' | 'swept'

/** One try at a target. `outcome` is `answered` or the kind of the upstream error. */
export interface Attempt {
  readonly endpoint: string
  /** Name of the provider's key, where there are several. */
  readonly key?: string
  readonly outcome: string
  readonly http_status: number | null
  readonly duration_ms: number
  /** What this try costs us, as far as it is known. */
  readonly cost_nano: bigint
}

/** What was reserved at admission, kept whole so that a sweeper can close the request without asking anyone. */
export interface HoldReceipt {
  readonly v: 1
  readonly id: string
  readonly tenant: string
  readonly project: string
  readonly key: string
  /** Catalogue model, the `× model` part of limits. */
  readonly model: string
  readonly admitted_at: number
  readonly expires_at: number
  /** Tokens reserved in rate limits and token windows. */
  readonly tokens: number
  readonly amount_nano: bigint
  readonly parts: readonly HeldPart[]
  /** When each `5h` window that counts this request began, Unix ms, by the name of its limit: nothing else tells a restart. */
  readonly begun?: Readonly<Record<string, number>>
}

/**
 * Event v1: the immutable record of one request. What is not in it can never be asked later.
 * In JSON (`encodeEvent`) every bigint is a decimal string. Times are Unix milliseconds; `day` is the UTC+8 date of `admitted_at`.
 */
export interface UsageEvent {
  readonly v: 1
  readonly id: string
  /** 1 is the first close; 2 exists only when a settle came after a sweep, and reverses 1. */
  readonly revision: 1 | 2
  readonly admitted_at: number
  readonly day: string
  readonly ended_at: number
  readonly tenant: string
  readonly project: string
  readonly key: string
  /** Keyed hash of the caller's `user`, or null. */
  readonly end_user: string | null
  readonly tags: Readonly<Record<string, string>>
  readonly protocol: 'chat_completions' | 'embeddings' | 'rerank'
  readonly audience: 'public' | 'internal'
  readonly zone: string
  readonly model_asked: string
  readonly route: string
  readonly domain: string
  readonly model: string
  readonly endpoint: string
  readonly provider: string
  readonly filing: string | null
  readonly registry_date: string | null
  readonly dialect: string
  readonly stream: boolean
  readonly status: EventStatus
  /** Error code of the answer, or null when it completed. */
  readonly code: string | null
  readonly finish_reason: string | null
  readonly usage_source: UsageSource
  readonly tokens: TokenUsage
  readonly calls: PaidCalls
  readonly ttfe_ms: number | null
  readonly duration_ms: number
  readonly attempts: readonly Attempt[]
  readonly price_version: string | null
  readonly price_rule: string | null
  readonly amount_nano: bigint
  readonly cost_nano: bigint
  readonly parts: readonly PaymentPart[]
  readonly hold: HoldReceipt
  readonly overrun_nano: bigint
  readonly node: string
  /** The node's own running number of events: a gap in it is a lost journal row. */
  readonly seq: number
  readonly flags: readonly string[]
}
