import * as z from 'zod'
import { windowAround } from '../money/window.ts'
import { AdminProblem } from './problem.ts'

const HALF_DAY_MS = 43_200_000

/** A date or an instant, as callers write them; {@link instantOf} reads it. */
export const Instant = z.union(
  [z.iso.datetime({ offset: true }), z.iso.date()],
  'write a date (2026-11-23) or an instant with its offset (2026-11-23T08:00:00+08:00)',
)

/**
 * Unix ms of what {@link Instant} let pass: of a date, its beginning or its end (the next midnight) in the time zone.
 *
 * @throws AdminProblem `invalid_request` for a date that the zone skipped
 */
export function instantOf(text: string, time_zone: string, edge: 'start_ms' | 'end_ms'): number {
  if (text.includes('T')) return Date.parse(text)
  // Noon UTC is another date in zones beyond UTC+12 and -12: then the neighbour is meant.
  const noon_ms = Date.parse(`${text}T12:00:00Z`)
  for (const around_ms of [noon_ms, noon_ms - 2 * HALF_DAY_MS, noon_ms + 2 * HALF_DAY_MS]) {
    if (dateIn(time_zone, around_ms) === text) return windowAround('day', time_zone, around_ms)[edge]
  }
  throw new AdminProblem('invalid_request', `${text} does not exist in ${time_zone}`)
}

function dateIn(time_zone: string, at_ms: number): string {
  return new Intl.DateTimeFormat('en-CA', { timeZone: time_zone, year: 'numeric', month: '2-digit', day: '2-digit' }).format(at_ms)
}
