import { localTime, windowAround } from './window.ts'

/** What a report of usage may be split by, as callers write it. */
export type ReportDimension = 'tenant' | 'project' | 'key' | 'model' | 'endpoint' | 'end_user' | `tag:${string}`
/** Spans of local time that a report may have a row for. */
export type BucketName = 'hour' | 'day' | 'week' | 'month'

/** A report was asked for that cannot be made. `param` is the part of the question, the message says what to write instead. */
export class ReportProblem extends Error {
  override name = 'ReportProblem'
  readonly param: string
  constructor(param: string, message: string) {
    super(message)
    this.param = param
  }
}

const HOUR_MS = 3_600_000
const MAX_DIMENSIONS = 3
const BUCKETS: readonly string[] = ['hour', 'day', 'week', 'month'] satisfies BucketName[]

/** The parts of a question that need reading, each as the caller wrote it. */
export interface ReportWords {
  readonly group?: string | undefined
  readonly bucket?: string | undefined
  readonly tag?: string | undefined
  readonly end_user?: string | undefined
}
export interface ReportPeriod {
  readonly from_ms: number
  readonly to_ms: number
}
export interface ReportBounds extends ReportPeriod {
  readonly time_zone: string
  /** Dimensions that this caller may split by, but for `tag:<name>`, which everyone may. */
  readonly dimensions: readonly string[]
  /** Most buckets of one report. */
  readonly most: number
}
/** A question as the ledger understands it. */
export interface Report {
  readonly by: readonly ReportDimension[]
  readonly bucket: BucketName | null
  readonly periods: readonly ReportPeriod[]
}

/**
 * Reads what a report is split by: up to three dimensions, separated by commas, and buckets of local time.
 *
 * @throws ReportProblem
 */
export function readReport({ group = '', bucket, tag, end_user }: ReportWords, bounds: ReportBounds): Report {
  const words = group.split(',').flatMap((word) => (word.trim() === '' ? [] : word.trim()))
  const by = words.map((word) => dimensionOf(word, bounds.dimensions))
  if (by.length > MAX_DIMENSIONS) throw new ReportProblem('group', `group: at most ${MAX_DIMENSIONS} at once`)
  if (new Set(by).size < by.length) throw new ReportProblem('group', 'group: names something twice')
  const special = new Set<string>(by.filter((name) => name === 'end_user' || name.startsWith('tag:')))
  if (end_user !== undefined) special.add('end_user')
  if (tag !== undefined) special.add(`tag:${readTag(tag).name}`)
  if (special.size > 1) {
    const problem = `${[...special].join(' and ')} cannot be combined: usage is kept by end user and by each tag, not by both at once`
    throw new ReportProblem('group', problem)
  }
  const { from_ms, to_ms } = bounds
  if (bucket === undefined) return { by, bucket: null, periods: [{ from_ms, to_ms }] }
  if (!BUCKETS.includes(bucket)) throw new ReportProblem('bucket', `bucket: write one of ${BUCKETS.join(', ')}`)
  const name = bucket as BucketName
  const periods = bucketsOf(name, bounds)
  if (periods !== null) return { by, bucket: name, periods }
  throw new ReportProblem(
    'bucket',
    `bucket: the period has more than ${bounds.most} of ${name}; ask for a shorter one or for larger buckets`,
  )
}

/** A tag and its value, written `name:value`. @throws ReportProblem */
export function readTag(text: string): { readonly name: string; readonly value: string } {
  const [, name, value] = /^([\w.-]{1,64})[:=](.{1,64})$/.exec(text) ?? []
  if (name === undefined || value === undefined) throw new ReportProblem('tag', 'tag: write name:value, such as team:search')
  return { name, value }
}

function dimensionOf(word: string, allowed: readonly string[]): ReportDimension {
  if (/^tag:[\w.-]{1,64}$/.test(word) || allowed.includes(word)) return word as ReportDimension
  throw new ReportProblem('group', `group: write up to three of ${[...allowed, 'tag:NAME'].join(', ')}, separated by commas`)
}

/**
 * A period cut at the beginnings of local hours, days, weeks or months; the first and the last may be cut short.
 *
 * @returns null if there are more than `most`
 * @throws RangeError for an unknown time zone
 */
export function bucketsOf(
  name: BucketName,
  { from_ms, to_ms, time_zone, most }: Pick<ReportBounds, 'from_ms' | 'to_ms' | 'time_zone' | 'most'>,
): readonly ReportPeriod[] | null {
  const buckets: ReportPeriod[] = []
  for (let at_ms = from_ms; at_ms < to_ms;) {
    if (buckets.length === most) return null
    const end_ms = Math.min(to_ms, name === 'hour' ? nextHour(at_ms, time_zone) : windowAround(name, time_zone, at_ms).end_ms)
    buckets.push({ from_ms: at_ms, to_ms: end_ms })
    at_ms = end_ms
  }
  return buckets
}

/** When the clock of a zone next shows a full hour. Where the clock itself is moved meanwhile, the hour is shorter, never longer. */
function nextHour(at_ms: number, time_zone: string): number {
  const shown_ms = localTime(at_ms, time_zone) + (at_ms % 1000)
  const next_ms = at_ms + HOUR_MS - (shown_ms % HOUR_MS)
  const over_ms = localTime(next_ms, time_zone) % HOUR_MS
  return over_ms === 0 || next_ms - over_ms <= at_ms ? next_ms : next_ms - over_ms
}
