import type { HoldRefusal, LimitRule } from '../ports.ts'
import type { NoRoom } from './counters.ts'

/** The key or tenant is blocked, whatever its limits. */
export function blockedRefusal(reason: 'key_revoked' | 'tenant_suspended'): HoldRefusal {
  return { reason, rule: null, available: 0n, held: 0n, needed: 0n, frees_at_ms: null }
}

/** Grants and credit line together have too little; amounts in nano-yuan. */
export function shortOfMoney(available: bigint, held: bigint, needed: bigint): HoldRefusal {
  return { reason: 'balance', rule: null, available, held, needed, frees_at_ms: null }
}

/** One limit has no room, in that limit's unit. */
export function refusalOf(rule: LimitRule, room: NoRoom, needed: bigint): HoldRefusal {
  return { reason: reasonOf(rule), rule, needed, ...room }
}

function reasonOf(rule: LimitRule): HoldRefusal['reason'] {
  switch (rule.kind) {
    case 'requests_per_minute':
    case 'tokens_per_minute':
      return 'rate'
    case 'concurrency':
      return 'concurrency'
    case 'budget':
      return 'budget'
    case 'requests_window':
    case 'tokens_window':
    case 'amount_window':
      return 'window'
  }
}
