/** Calendar windows of a plan, in a tenant's time zone. */
export type WindowName = '5h' | 'day' | 'week' | 'month'

/** Boundaries in Unix ms: the window that holds an instant, and the end of the one after it. */
export interface WindowSpan {
  readonly name: WindowName
  readonly start_ms: number
  readonly end_ms: number
  readonly next_end_ms: number
}

const FIVE_HOURS_MS = 5 * 3_600_000
const DAY_MS = 86_400_000

/**
 * The window around an instant. Days, weeks (from Monday, ISO 8601) and months begin at local midnight, whatever
 * daylight saving does to their length. `5h` begins at `at_ms`: whoever keeps it starts it at first use.
 *
 * @throws RangeError for an unknown time zone
 */
export function windowAround(name: WindowName, time_zone: string, at_ms: number): WindowSpan {
  if (name === '5h') return { name, start_ms: at_ms, end_ms: at_ms + FIVE_HOURS_MS, next_end_ms: at_ms + 2 * FIVE_HOURS_MS }
  const known = LATEST.get(`${name} ${time_zone}`)
  if (known !== undefined && known.start_ms <= at_ms && at_ms < known.end_ms) return known
  const span = spanAround(name, time_zone, at_ms)
  LATEST.set(`${name} ${time_zone}`, span)
  return span
}

/** The latest answer per name and zone: at most three for each of the few hundred zones there are. */
const LATEST = new Map<string, WindowSpan>()

function spanAround(name: Exclude<WindowName, '5h'>, time_zone: string, at_ms: number): WindowSpan {
  const local = localDate(at_ms, time_zone)
  const start = startOf(name, local)
  const boundary = (steps: number): number => midnight(shift(name, start, steps), time_zone)
  return { name, start_ms: boundary(0), end_ms: boundary(1), next_end_ms: boundary(2) }
}

/**
 * The runtime's own spelling of an IANA time zone, or null if it knows none of that name. There are a few hundred, so that what is kept
 * per zone stays bounded; offsets such as +08:00, of which there are thousands, are no names.
 */
export function timeZoneOf(name: string): string | null {
  if (!/^[A-Za-z]/.test(name)) return null
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}

/** A calendar date as midnight UTC of that date: plain arithmetic, no zone. */
type PlainDate = number

function startOf(name: Exclude<WindowName, '5h'>, date: PlainDate): PlainDate {
  if (name === 'day') return date
  if (name === 'week') return date - ((new Date(date).getUTCDay() + 6) % 7) * DAY_MS
  return date - (new Date(date).getUTCDate() - 1) * DAY_MS
}

function shift(name: Exclude<WindowName, '5h'>, date: PlainDate, steps: number): PlainDate {
  if (name === 'day') return date + steps * DAY_MS
  if (name === 'week') return date + steps * 7 * DAY_MS
  const day = new Date(date)
  return Date.UTC(day.getUTCFullYear(), day.getUTCMonth() + steps, 1)
}

const FORMATS = new Map<string, Intl.DateTimeFormat>()

function formatIn(time_zone: string): Intl.DateTimeFormat {
  const known = FORMATS.get(time_zone)
  if (known !== undefined) return known
  const format = new Intl.DateTimeFormat('en-CA', {
    timeZone: time_zone,
    calendar: 'gregory',
    hourCycle: 'h23',
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
  })
  FORMATS.set(time_zone, format)
  return format
}

/** Local wall time of an instant, as if it were UTC. */
export function localTime(at_ms: number, time_zone: string): number {
  const parts = Object.fromEntries(
    formatIn(time_zone)
      .formatToParts(at_ms)
      .map(({ type, value }) => [type, Number(value)]),
  )
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts
  return Date.UTC(year, month - 1, day, hour, minute, second)
}

function localDate(at_ms: number, time_zone: string): PlainDate {
  return Math.floor(localTime(at_ms, time_zone) / DAY_MS) * DAY_MS
}

/** The first instant of a local date. Where midnight is skipped by daylight saving, the first instant after it. */
function midnight(date: PlainDate, time_zone: string): number {
  const offset = (at_ms: number): number => localTime(at_ms, time_zone) - Math.floor(at_ms / 1000) * 1000
  const guess = date - offset(date)
  const refined = date - offset(guess)
  return localDate(refined, time_zone) < date ? Math.max(guess, refined) : refined
}
