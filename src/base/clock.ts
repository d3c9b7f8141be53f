/** Time as the rest of the code sees it: passed in, never read from the globals. */
export interface Clock {
  /** Wall-clock milliseconds since the epoch; never smaller than an earlier answer of the same clock. */
  now_ms(): number
  /** Milliseconds for measuring durations; unrelated to the calendar. */
  monotonic_ms(): number
}

/**
 * The system's clock, guarded against stepping back (SEMANTICS: admitted_at must not decrease):
 * while the wall clock is behind the latest reading, time goes on at half its speed until the wall clock has caught up.
 */
export function systemClock(): Clock {
  let latest_ms = 0
  let read_at_ms = performance.now()
  return {
    now_ms() {
      const monotonic_ms = performance.now()
      latest_ms = Math.max(latest_ms + (monotonic_ms - read_at_ms) / 2, Date.now())
      read_at_ms = monotonic_ms
      return Math.floor(latest_ms)
    },
    monotonic_ms: () => performance.now(),
  }
}

/** China Standard Time is UTC+8 all year. */
export const SHANGHAI_OFFSET_MS = 8 * 3_600_000

/** The ledger's partition day: the UTC+8 date of an instant, as `2026-11-23`. China has had no daylight saving since 1991. */
export function dayOf(at_ms: number): string {
  return new Date(at_ms + SHANGHAI_OFFSET_MS).toISOString().slice(0, 10)
}
