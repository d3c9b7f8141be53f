/** What a part of the benchmark says, and how it is printed. */

/** One line of the table at the end. */
export interface Row {
  readonly what: string
  readonly budget: string
  readonly measured: string
  readonly figures: string
  readonly verdict: string
}

/** Rows for the table at the end, and tables of their own that are printed before it. */
export interface Report {
  readonly rows: readonly Row[]
  readonly tables: readonly string[]
}

export function us(value: number): string {
  return `${value < 100 ? value.toFixed(1) : value.toFixed(0)} µs`
}

/** `ok` or `over`; `no budget` and `nothing to compare with` are neither. */
export function verdict(value: number | null, budget: number | null): string {
  if (value === null) return 'nothing to compare with'
  if (budget === null) return 'no budget'
  return value <= budget ? 'ok' : 'over'
}

export function markdownTable(head: readonly string[], lines: ReadonlyArray<readonly string[]>): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...lines.map(line)].join('\n')
}

export function summary(rows: readonly Row[]): string {
  const lines = rows.map(({ what, budget, measured, figures, verdict: said }) => [what, budget, measured, figures, said])
  return markdownTable(['', 'budget', 'measured', 'figures', ''], lines)
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** By linear interpolation between the two nearest values. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const place = (sorted.length - 1) * part
  const below = sorted[Math.floor(place)] ?? Number.NaN
  const above = sorted[Math.ceil(place)] ?? Number.NaN
  return below + (above - below) * (place - Math.floor(place))
}
