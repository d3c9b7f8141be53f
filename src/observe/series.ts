import { Counter, Histogram, type Registry } from 'prom-client'

/**
 * Counters and histograms for the request path. prom-client sorts and hashes the labels of every observation; here a series is
 * found by its label values in one map and kept as plain numbers, and prom-client reads them when it is scraped.
 *
 * Every metric holds at most {@link MAX_SERIES} series; whatever would make one more is counted in a series whose labels all say `other`.
 */
export const MAX_SERIES = 20_000

/** Separates label values in a series' key; ids cannot contain it. */
const SEPARATOR = '\0'
const OTHER = 'other'

export interface SeriesConfig {
  readonly name: string
  readonly help: string
  readonly labels: readonly string[]
  readonly registry: Registry
}

interface Count {
  readonly labels: Readonly<Record<string, string>>
  value: number
}

/** A counter whose labels are given by position, in the order of `config.labels`. */
export class SeriesCounter extends Counter {
  readonly #names: readonly string[]
  readonly #counts = new Map<string, Count>()

  constructor({ name, help, labels, registry }: SeriesConfig) {
    super({ name, help, labelNames: labels, registers: [registry] })
    this.#names = labels
  }

  /** Adds `amount` to the series with these label values. */
  add(amount: number, values: readonly string[]): void {
    seriesOf(this.#counts, values, (labels) => ({ labels, value: 0 }), this.#names).value += amount
  }

  /** Drops series of which `keep` is false, given their labels. */
  prune(keep: (labels: Readonly<Record<string, string>>) => boolean): void {
    pruneSeries(this.#counts, keep)
  }

  override async get(): ReturnType<Counter['get']> {
    const known = await super.get()
    return { ...known, values: Array.from(this.#counts.values(), ({ labels, value }) => ({ labels: { ...labels }, value })) }
  }
}

interface Distribution {
  readonly labels: Readonly<Record<string, string>>
  /** One more than there are bounds: the last is above all of them. */
  readonly buckets: number[]
  sum: number
}

/** A histogram whose labels are given by position, in the order of `config.labels`. */
export class SeriesHistogram extends Histogram {
  readonly #name: string
  readonly #help: string
  readonly #names: readonly string[]
  readonly #bounds: readonly number[]
  readonly #distributions = new Map<string, Distribution>()

  constructor({ name, help, labels, registry }: SeriesConfig, bounds: readonly number[]) {
    super({ name, help, labelNames: labels, buckets: [...bounds], registers: [registry] })
    this.#name = name
    this.#help = help
    this.#names = labels
    this.#bounds = bounds
  }

  /** Counts `value` in the series with these label values. */
  count(value: number, values: readonly string[]): void {
    const empty = (labels: Readonly<Record<string, string>>): Distribution => ({ labels, buckets: this.#zeros(), sum: 0 })
    const series = seriesOf(this.#distributions, values, empty, this.#names)
    let index = 0
    while (index < this.#bounds.length && value > (this.#bounds[index] ?? Infinity)) index++
    series.buckets[index] = (series.buckets[index] ?? 0) + 1
    series.sum += value
  }

  /** Drops series of which `keep` is false, given their labels. */
  prune(keep: (labels: Readonly<Record<string, string>>) => boolean): void {
    pruneSeries(this.#distributions, keep)
  }

  /** What prom-client renders: it calls this for its text, and `get` (for its JSON) calls it in turn. */
  async getForPromString(): Promise<{ name: string; help: string; type: 'histogram'; aggregator: 'sum'; values: Sample[] }> {
    const values = [...this.#distributions.values()].flatMap((series) => this.#samples(series))
    return { name: this.#name, help: this.#help, type: 'histogram', aggregator: 'sum', values }
  }

  #zeros(): number[] {
    return Array.from({ length: this.#bounds.length + 1 }, () => 0)
  }

  #samples({ labels, buckets, sum }: Distribution): Sample[] {
    let count = 0
    const samples: Sample[] = buckets.map((in_bucket, index) => {
      count += in_bucket
      return { metricName: `${this.#name}_bucket`, labels: { le: this.#bounds[index] ?? '+Inf' }, sharedLabels: labels, value: count }
    })
    samples.push({ metricName: `${this.#name}_sum`, labels: {}, sharedLabels: labels, value: sum })
    samples.push({ metricName: `${this.#name}_count`, labels: {}, sharedLabels: labels, value: count })
    return samples
  }
}

interface Sample {
  readonly metricName: string
  readonly labels: Record<string, string | number>
  /** The series' own: as JSON they become part of the others. */
  readonly sharedLabels: Readonly<Record<string, string>>
  readonly value: number
}

function seriesOf<Series>(
  all: Map<string, Series>,
  values: readonly string[],
  make: (labels: Readonly<Record<string, string>>) => Series,
  names: readonly string[],
): Series {
  const key = values.join(SEPARATOR)
  const known = all.get(key)
  if (known !== undefined) return known
  if (all.size >= MAX_SERIES && values.some((value) => value !== OTHER))
    return seriesOf(
      all,
      names.map(() => OTHER),
      make,
      names,
    )
  const series = make(Object.freeze(Object.fromEntries(names.map((name, index) => [name, values[index] ?? '']))))
  all.set(key, series)
  return series
}

function pruneSeries(
  all: Map<string, { readonly labels: Readonly<Record<string, string>> }>,
  keep: (labels: Readonly<Record<string, string>>) => boolean,
): void {
  for (const [key, { labels }] of all) {
    if (!keep(labels)) all.delete(key)
  }
}
