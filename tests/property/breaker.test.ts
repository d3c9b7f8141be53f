import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { BREAKER_RULES, BreakerBoard } from '../../src/upstream/breaker.ts'
import { FAILURES } from '../../src/upstream/failure.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'

const seed = Number(process.env['WEIR_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
console.info(`seed ${seed} (WEIR_SEED repeats it)`)

const KINDS = Object.keys(FAILURES) as FailureKind[]
const step = fc.record({
  wait_ms: fc.oneof(fc.constant(0), fc.nat(2_000), fc.nat(200_000)),
  outcome: fc.oneof(fc.constant('success' as const), fc.constantFrom(...KINDS), fc.constant('lost' as const)),
  retry_after_ms: fc.option(fc.nat(2_000_000), { freq: 4 }),
})
const LONGEST_MS = Math.max(
  BREAKER_RULES.cooldown_cap_ms,
  BREAKER_RULES.account_cooldown_cap_ms,
  BREAKER_RULES.retry_after_cap_ms,
  BREAKER_RULES.probe_lease_ms,
)

it('never closes an endpoint off for longer than its longest limit, whatever happens', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const board = new BreakerBoard()
      let now_ms = 1
      for (const { wait_ms, outcome, retry_after_ms } of steps) {
        now_ms += wait_ms
        const went = board.begin('e', now_ms)
        if (went && outcome === 'success') board.success('e')
        else if (outcome !== 'lost' && outcome !== 'success') board.failure('e', outcome, now_ms, retry_after_ms)
        expect(board.retryAt('e')).toBeLessThanOrEqual(now_ms + LONGEST_MS)
        expect(board.mayTry('e', now_ms + LONGEST_MS)).toBe(true)
      }
    }),
    { seed },
  )
})

it('lets at most one probe run at a time while it is not closed', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(30_000), fc.nat(5)), { maxLength: 100 }), (rounds) => {
      const board = new BreakerBoard()
      board.failure('e', 'auth', 1, null)
      let now_ms = 1
      let lease_ends_ms = 0
      for (const [wait_ms, callers] of rounds) {
        now_ms += wait_ms
        const went = Array.from({ length: callers }, () => board.begin('e', now_ms)).filter(Boolean).length
        expect(went).toBeLessThanOrEqual(now_ms >= lease_ends_ms ? 1 : 0)
        if (went === 1) lease_ends_ms = now_ms + BREAKER_RULES.probe_lease_ms
      }
    }),
    { seed },
  )
})

it('opens exactly when so many breaking failures of a request came in a row', () => {
  const kinds = KINDS.filter((kind) => !['auth', 'balance', 'quota'].includes(kind))
  fc.assert(
    fc.property(fc.array(fc.constantFrom<FailureKind | 'success'>('success', ...kinds), { maxLength: 60 }), (outcomes) => {
      const board = new BreakerBoard()
      let in_a_row = 0
      for (const outcome of outcomes) {
        if (outcome === 'success') board.success('e')
        else board.failure('e', outcome, 1, null)
        if (outcome === 'success' || ['rate', 'content', 'invalid', 'context_length'].includes(outcome)) in_a_row = 0
        else if (FAILURES[outcome].breaks) in_a_row += 1
        const open = in_a_row >= BREAKER_RULES.failures_to_open
        expect(board.mayTry('e', 1)).toBe(!open)
        if (open) return
      }
    }),
    { seed },
  )
})
