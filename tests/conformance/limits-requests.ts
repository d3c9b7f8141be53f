import type { PaymentPart } from '../../src/money/grant.ts'
import type {
  GrantTerms,
  HoldRequest,
  HoldResult,
  LimitKind,
  LimitRule,
  Limits,
  SettleRequest,
  WindowBounds,
} from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock } from '../support/clock.ts'

export function holdRequest(id: string, overrides: Partial<HoldRequest> = {}): HoldRequest {
  return {
    v: 1,
    id,
    tenant: 'acme',
    project: 'web',
    key: 'key-1',
    model: 'qwen3-max',
    lease_ms: 30_000,
    tokens: 100,
    amount_nano: 100n,
    grant_tokens: overrides.tokens ?? 100,
    minimum_tokens: overrides.tokens ?? 100,
    minimum_nano: overrides.amount_nano ?? 100n,
    rules: [],
    credit_line_nano: 0n,
    ...overrides,
  }
}

export function grant(id: string, overrides: Partial<GrantTerms> = {}): GrantTerms {
  return { id, tenant: 'acme', unit: 'nano_cny', priority: 10, expires_at: null, created_at: 1, models: null, weights: null, ...overrides }
}

export function rule(kind: LimitKind, limit: bigint, window: WindowBounds | null = null): LimitRule {
  return { scope: 'key', scope_id: 'key-1', model: null, kind, limit, window }
}

export function settleRequest(id: string, amount_nano: bigint, parts?: readonly PaymentPart[], tokens = 50): SettleRequest {
  const wallet = { grant: 'wallet', unit: 'nano_cny', amount: amount_nano } as const
  return { id, tenant: 'acme', admitted_at: ADMITTED_AT, tokens, amount_nano, parts: parts ?? [wallet] }
}

export function reasonOf(result: HoldResult): string {
  return result.ok ? 'held' : result.refusal.reason
}

export function receiptOf(result: HoldResult) {
  if (!result.ok) throw new Error(`refused: ${result.refusal.reason}`)
  return result.receipt
}

/** The limits under test and how a test moves them. */
export interface Subject {
  readonly limits: Limits
  readonly clock: TestClock
  readonly credit: (terms: GrantTerms, delta: bigint) => Promise<void>
}
