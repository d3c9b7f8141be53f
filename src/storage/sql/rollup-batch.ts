import type { UsageEvent } from '../../money/event.ts'

export const MINUTE_MS = 60_000
export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000
/** A day of the rollups is a date of UTC+8, as an event's `day` is. */
const DAY_OFFSET_MS = 8 * HOUR_MS
/** Minutes are kept this long; hours and days for ever. Figures before that are exact to the hour. */
export const MINUTES_KEPT_DAYS = 400

/** What rollups sum, in the order of their columns. */
export const COUNTS = [
  'requests',
  'completed',
  'input',
  'cached_input',
  'cache_write',
  'output',
  'reasoning',
  'searches',
  'images',
] as const
export const AMOUNTS = ['amount_nano', 'cost_nano', 'overrun_nano'] as const
export const SUMS: readonly string[] = [...COUNTS, ...AMOUNTS]
/** The columns behind the tenant that tell rows of a rollup apart, in the order of the primary key. */
export const PLACE: readonly string[] = ['at', 'dimension', 'value', 'project', 'key', 'model', 'endpoint']

/** Start of the rollup day, in UTC+8, that holds an instant. Unix ms. */
export function dayStart(at_ms: number): number {
  return floorTo(at_ms + DAY_OFFSET_MS, DAY_MS) - DAY_OFFSET_MS
}

export function floorTo(at_ms: number, unit_ms: number): number {
  return Math.floor(at_ms / unit_ms) * unit_ms
}

/** One row of sums: what one combination of names used in one minute. */
export interface Cell {
  readonly tenant: string
  readonly minute: number
  readonly dimension: string
  readonly value: string
  readonly names: readonly [project: string, key: string, model: string, endpoint: string]
  readonly counts: number[]
  readonly amounts: bigint[]
  lessened: boolean
}

/** Events of one posting, summed by minute and every dimension, so that a batch of any size writes each row once. */
export class RollupBatch {
  readonly #cells = new Map<string, Cell>()

  /** Adds an event, or takes one back that a later revision replaces. */
  add(event: UsageEvent, sign: 1 | -1 = 1): void {
    const { tenant, project, key, model, endpoint } = event
    const names = [project, key, model, endpoint] as const
    const minute = floorTo(event.admitted_at, MINUTE_MS)
    const place = `${tenant}\n${minute}\n${names.join('\n')}`
    const [counts, amounts] = [countsOf(event), [event.amount_nano, event.cost_nano, event.overrun_nano]]
    const put = (dimension: string, value: string): void => {
      const name = `${place}\n${dimension}\n${value}`
      let cell = this.#cells.get(name)
      if (cell === undefined) {
        cell = { tenant, minute, dimension, value, names, counts: counts.map(() => 0), amounts: amounts.map(() => 0n), lessened: false }
        this.#cells.set(name, cell)
      }
      addTo(cell, counts, amounts, sign)
    }
    put('', '')
    if (event.end_user !== null) put('end_user', event.end_user)
    for (const [tag, value] of Object.entries(event.tags)) put(`tag:${tag}`, value)
  }

  cells(): Iterable<Cell> {
    return this.#cells.values()
  }
}

function countsOf({ status, tokens, calls }: UsageEvent): readonly number[] {
  const { input, cached_input, cache_write, output, reasoning } = tokens
  return [1, status === 'completed' ? 1 : 0, input, cached_input, cache_write, output, reasoning, calls.search, calls.image]
}

function addTo(cell: Cell, counts: readonly number[], amounts: readonly bigint[], sign: 1 | -1): void {
  for (const [index, count] of counts.entries()) cell.counts[index] = (cell.counts[index] ?? 0) + sign * count
  for (const [index, amount] of amounts.entries()) cell.amounts[index] = (cell.amounts[index] ?? 0n) + BigInt(sign) * amount
  cell.lessened ||= sign < 0
}
