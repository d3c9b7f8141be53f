import { describe, expect, it } from 'vitest'
import {
  afterFailure,
  afterSuccess,
  BREAKER_RULES,
  BreakerBoard,
  initialBreaker,
  mayTry,
  retryAt,
  takeProbe,
} from '../../src/upstream/breaker.ts'
import type { BreakerState } from '../../src/upstream/breaker.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'

const NOW = 1_000_000
const RULES = BREAKER_RULES

function failing(times: number, kind: FailureKind = 'server', from: BreakerState = initialBreaker): BreakerState {
  let state = from
  for (let i = 0; i < times; i += 1) state = afterFailure(state, kind, NOW, null)
  return state
}

describe('a breaker', () => {
  it('opens after so many consecutive breaking failures, not one earlier', () => {
    expect(mayTry(failing(RULES.failures_to_open - 1), NOW)).toBe('yes')
    expect(failing(RULES.failures_to_open)).toMatchObject({ phase: 'open', until_ms: NOW + RULES.cooldown_ms })
    expect(mayTry(failing(RULES.failures_to_open), NOW)).toBe('no')
  })

  it('starts counting anew after a success', () => {
    const state = failing(RULES.failures_to_open - 1, 'server', afterSuccess(failing(RULES.failures_to_open - 1)))
    expect(state.phase).toBe('closed')
  })

  it.each(['auth', 'balance', 'quota'] as const)('opens at once and for longer on %s', (kind) => {
    expect(failing(1, kind)).toMatchObject({ phase: 'open', until_ms: NOW + RULES.account_cooldown_ms })
  })

  it.each(['invalid', 'content', 'context_length', 'rate', 'saturated', 'client_gone', 'deadline'] as const)(
    'never opens on %s',
    (kind) => {
      expect(mayTry(failing(100, kind), NOW)).toBe('yes')
    },
  )

  it('lets one probe through after the cool-down, and closes on its success', () => {
    const open = failing(RULES.failures_to_open)
    const then = retryAt(open)
    expect(mayTry(open, then - 1)).toBe('no')
    expect(mayTry(open, then)).toBe('probe')
    const half_open = takeProbe(open, then)
    expect(mayTry(half_open, then)).toBe('no')
    expect(afterSuccess(half_open)).toEqual(initialBreaker)
  })

  it('doubles the cool-down with every failed probe, up to the cap', () => {
    let state = failing(RULES.failures_to_open)
    const cooldowns: number[] = []
    for (let i = 0; i < 8; i += 1) {
      const then = retryAt(state)
      state = afterFailure(takeProbe(state, then), 'headers_timeout', then, null)
      cooldowns.push(retryAt(state) - then)
    }
    expect(cooldowns).toEqual([10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000, 120_000])
  })

  it('does not count requests that were already running when it opened', () => {
    const open = failing(RULES.failures_to_open)
    expect(failing(50, 'server', open)).toBe(open)
    expect(afterSuccess(open)).toBe(open)
  })

  it.each(['client_gone', 'deadline', 'saturated'] as const)('gives the probe back when it ends with %s', (kind) => {
    const open = failing(RULES.failures_to_open)
    const then = retryAt(open)
    expect(mayTry(afterFailure(takeProbe(open, then), kind, then, null), then)).toBe('probe')
  })

  it('allows another probe when one was lost', () => {
    const open = failing(RULES.failures_to_open)
    const half_open = takeProbe(open, retryAt(open))
    expect(mayTry(half_open, retryAt(half_open))).toBe('probe')
  })

  it('leaves a rate-limited upstream alone for as long as it asks, without opening, and never longer than the cap', () => {
    const cooling = afterFailure(initialBreaker, 'rate', NOW, 7_000)
    expect(cooling.phase).toBe('closed')
    expect([mayTry(cooling, NOW + 6_999), mayTry(cooling, NOW + 7_000)]).toEqual(['no', 'yes'])
    expect(retryAt(afterFailure(initialBreaker, 'rate', NOW, 86_400_000))).toBe(NOW + RULES.retry_after_cap_ms)
  })
})

describe('the board', () => {
  it('keeps endpoints apart and remembers only those in trouble', () => {
    const board = new BreakerBoard()
    board.failure('a', 'auth', NOW, null)
    board.failure('b', 'server', NOW, null)
    board.success('b')
    board.success('c')
    expect([board.mayTry('a', NOW), board.mayTry('b', NOW), board.size]).toEqual([false, true, 1])
  })

  it('hands out one probe, and looking does not take it', () => {
    const board = new BreakerBoard()
    board.failure('a', 'balance', NOW, null)
    const then = board.retryAt('a')
    expect([
      board.begin('a', then - 1),
      board.mayTry('a', then),
      board.begin('a', then),
      board.begin('a', then),
      board.mayTry('a', then),
    ]).toEqual([false, true, true, false, false])
    board.success('a')
    expect([board.begin('a', then), board.size]).toEqual([true, 0])
  })

  it('forgets endpoints that left the catalogue', () => {
    const board = new BreakerBoard()
    for (const id of ['a', 'b', 'c']) board.failure(id, 'server', NOW, null)
    board.prune(new Set(['b', 'd']))
    expect(board.size).toBe(1)
    expect(board.stateOf('b').failures).toBe(1)
  })
})
