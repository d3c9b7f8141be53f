import { describe, expect, it } from 'vitest'
import { afterAnswer, LatencyBoard } from '../../src/upstream/latency.ts'
import { RETRY_FLOOR, RetryBudget } from '../../src/upstream/retry-budget.ts'

const NOW = 1_795_000_000_000

function taken(budget: RetryBudget, at_ms: number): number {
  let count = 0
  while (budget.take(at_ms)) count += 1
  return count
}

describe('the budget of retries', () => {
  it('is a floor where there is little traffic, and a tenth of the requests of a minute where there is more', () => {
    const budget = new RetryBudget()
    expect(taken(budget, NOW)).toBe(RETRY_FLOOR)
    for (let request = 0; request < 1000; request += 1) budget.request(NOW + 1000)
    expect(taken(budget, NOW + 1000)).toBe(100 - RETRY_FLOOR)
    expect(budget.allows(NOW + 1000)).toBe(false)
  })

  it('forgets what is older than a minute, second by second', () => {
    const budget = new RetryBudget()
    for (let request = 0; request < 500; request += 1) budget.request(NOW)
    expect(taken(budget, NOW + 30_000)).toBe(50)
    expect(budget.take(NOW + 59_999)).toBe(false)
    // The requests are forgotten, the retries are not yet.
    expect(budget.take(NOW + 60_000)).toBe(false)
    expect(taken(budget, NOW + 90_000)).toBe(RETRY_FLOOR)
    expect(taken(budget, NOW + 86_400_000)).toBe(RETRY_FLOOR)
  })

  it('does not grow when a clock steps back', () => {
    const budget = new RetryBudget()
    expect(taken(budget, NOW)).toBe(RETRY_FLOOR)
    expect(budget.take(NOW - 3_600_000)).toBe(false)
    expect(budget.take(NOW + 59_000)).toBe(false)
  })
})

describe('the time to the first event', () => {
  it('is a moving average that forgets what was seen ten minutes ago', () => {
    const first = afterAnswer(null, 1000, NOW)
    expect(first.average_ms).toBe(1000)
    expect(afterAnswer(first, 2000, NOW + 1).average_ms).toBe(1200)
    expect(afterAnswer(first, 2000, NOW + 600_001).average_ms).toBe(2000)
  })

  it('is known per endpoint, while it is current and in the catalogue', () => {
    const board = new LatencyBoard()
    board.answered('a', 300, NOW)
    expect([board.of('a', NOW + 600_000), board.of('a', NOW + 600_001), board.of('b', NOW)]).toEqual([300, null, null])
    board.prune(new Set(['b']))
    expect(board.of('a', NOW)).toBeNull()
  })
})
