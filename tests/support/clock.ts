import type { Clock } from '../../src/base/clock.ts'

/** The moment that tests begin at, unless they say otherwise: a Monday morning in Shanghai. */
export const ADMITTED_AT = Date.parse('2026-11-23T10:00:00+08:00')

/** A clock that a test moves. */
export interface TestClock extends Clock {
  advance(by_ms: number): void
}

export function testClock(start_ms = ADMITTED_AT): TestClock {
  let now_ms = start_ms
  return { now_ms: () => now_ms, monotonic_ms: () => now_ms, advance: (by_ms) => void (now_ms += by_ms) }
}
