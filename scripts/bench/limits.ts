/** The price of a hold and its settle in memory, by the number of keys that have counters. */
import type { LimitsOrder, LimitsReport } from './limits-child.ts'
import type { Bench } from './plan.ts'
import { markdownTable, median, type Report, verdict } from './report.ts'
import { startCrew, type Crew } from './subjects.ts'

/** Flat within what one run of such a measurement scatters. */
export const FLAT_BUDGET = 1.15

interface Size {
  readonly keys: number
  readonly crew: Crew
  readonly ns_per_pair: number[]
  first_ns: number
  resident_bytes: number
}

export async function measureLimits(bench: Bench): Promise<Report> {
  const { quick } = bench.plan
  const sizes = (quick ? [1, 1000, 100_000] : [1, 1000, 100_000, 1_000_000]).map(startSize)
  // As many pairs before for every size, so that what is remembered of settled requests is the same.
  const before = quick ? 100_000 : 1_000_000
  for (const size of sizes) {
    const { ns_per_pair } = await ask(size, { pairs: before, order: 'each' })
    size.first_ns = ns_per_pair
  }
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    for (const size of sizes) size.ns_per_pair.push((await ask(size, { pairs: 100_000, order: 'random' })).ns_per_pair)
  }
  for (const { crew } of sizes) await crew.stop()
  return reportOf(sizes)
}

function startSize(keys: number): Size {
  return {
    keys,
    crew: startCrew('limits-child.ts', 1, [String(keys)], ['--max-old-space-size=8192']),
    ns_per_pair: [],
    first_ns: 0,
    resident_bytes: 0,
  }
}

async function ask(size: Size, order: LimitsOrder): Promise<LimitsReport> {
  const report = (await size.crew.ask(order)) as LimitsReport
  size.resident_bytes = report.resident_bytes
  return report
}

function reportOf(sizes: readonly Size[]): Report {
  const lines = sizes.map(({ keys, ns_per_pair, first_ns, resident_bytes }) => [
    keys.toLocaleString('en'),
    `${(median(ns_per_pair) / 1000).toFixed(2)} µs`,
    `${(Math.min(...ns_per_pair) / 1000).toFixed(2)} to ${(Math.max(...ns_per_pair) / 1000).toFixed(2)} µs`,
    `${(first_ns / 1000).toFixed(2)} µs`,
    `${(resident_bytes / 1024 / 1024).toFixed(0)} MiB`,
  ])
  const table = markdownTable(['keys', 'hold + settle, any key', 'range', 'while counters are made', 'resident'], lines)
  const [few, many] = [sizes[0], sizes.at(-1)]
  if (few === undefined || many === undefined) return { rows: [], tables: [table] }
  const ratio = median(many.ns_per_pair) / median(few.ns_per_pair)
  const row = {
    what: `hold + settle in memory with ${many.keys.toLocaleString('en')} keys, beside 1`,
    budget: `≤ ${FLAT_BUDGET} ×`,
    measured: `${ratio.toFixed(2)} ×`,
    figures: sizes.map(({ keys, ns_per_pair }) => `${keys.toLocaleString('en')}: ${(median(ns_per_pair) / 1000).toFixed(2)} µs`).join('; '),
    verdict: verdict(ratio, FLAT_BUDGET),
  }
  return { rows: [row], tables: [`Limits in memory alone\n\n${table}`] }
}
