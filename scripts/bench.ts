/**
 * `npm run bench`: what Weir costs, with everything switched on. CPU per request and memory beside nginx as a bare reverse proxy (same
 * upstream, same client, one run, rounds in turn; ratios of medians, with the budgets of ARCHITECTURE.md), whether admission stays
 * flat, what storage alone does, what Weir adds to the time of an answer, and where its CPU goes. A table at the end.
 *
 *   npm run bench -- --quick              fewer and shorter rounds, fewer keys
 *   npm run bench -- --only whole,burst   some of whole, burst, paced, cluster, redis, memory, admission, limits, ledger, latency, stages
 *   npm run bench -- --beside <main.ts>   another checkout's src/main.ts too, in the same rounds of whole, burst and paced
 *   npm run bench -- --entry <main.ts>    another checkout's src/main.ts instead
 *
 * Exit code 0 whatever the figures are; 1 when it cannot run. Linux only: the kernel is asked for the CPU that was used.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measureAdmission } from './bench/admission.ts'
import { measureCluster } from './bench/cluster.ts'
import { measureLatency } from './bench/latency.ts'
import { measureLedger } from './bench/ledger.ts'
import { measureLimits } from './bench/limits.ts'
import type { Bench, Plan } from './bench/plan.ts'
import { measureMemory, measureScenarios } from './bench/ratios.ts'
import { type Report, summary } from './bench/report.ts'
import { measureRedis } from './bench/redis.ts'
import { measureStages } from './bench/stages.ts'
import { startClient, startNginx, startUpstream, stopAll } from './bench/subjects.ts'

/** What each part is measured by; the scenarios share their processes. */
const MEASURES: ReadonlyArray<readonly [parts: readonly string[], measure: (bench: Bench) => Promise<Report>]> = [
  [['whole', 'burst', 'paced'], measureScenarios],
  [['cluster'], measureCluster],
  [['redis'], measureRedis],
  [['memory'], measureMemory],
  [['admission'], measureAdmission],
  [['limits'], measureLimits],
  [['ledger'], measureLedger],
  [['latency'], measureLatency],
  [['stages'], measureStages],
]
const PARTS = MEASURES.flatMap(([parts]) => parts)

function readPlan(): Plan {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      entry: { type: 'string' },
      beside: { type: 'string' },
    },
  })
  const parts = new Set(values.only?.split(',') ?? PARTS)
  const unknown = [...parts].filter((part) => !PARTS.includes(part))
  if (unknown.length > 0) throw new Error(`--only takes some of ${PARTS.join(', ')}; there is no ${unknown.join(', ')}`)
  const entry = values.entry ?? join(import.meta.dirname, '../src/main.ts')
  return { quick: values.quick, parts, entry, beside: values.beside ?? null }
}

async function measureAll(bench: Bench): Promise<readonly Report[]> {
  const reports: Report[] = []
  for (const [parts, measure] of MEASURES) {
    if (parts.some((part) => bench.plan.parts.has(part))) reports.push(await measure(bench))
  }
  return reports
}

async function main(): Promise<void> {
  const plan = readPlan()
  const dir = mkdtempSync(join(tmpdir(), 'weir-bench-'))
  const started_at = performance.now()
  try {
    const upstream_port = await startUpstream()
    const nginx = await startNginx(join(dir, 'nginx'), upstream_port)
    if (typeof nginx === 'string') console.log(`No ratios: ${nginx}. What follows are Weir's own figures.\n`)
    const bench: Bench = { plan, dir, upstream_port, client: startClient(), nginx: typeof nginx === 'string' ? null : nginx }
    const reports = await measureAll(bench)
    for (const table of reports.flatMap(({ tables }) => tables)) console.log(`${table}\n`)
    const rows = reports.flatMap((report) => report.rows)
    if (rows.length > 0) console.log(`${summary(rows)}\n`)
    const command = ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' ')
    console.log(`\`${command}\`, Node ${process.version}, ${((performance.now() - started_at) / 1000).toFixed(0)} s`)
  } finally {
    await stopAll()
    rmSync(dir, { recursive: true, force: true })
  }
}

try {
  await main()
  process.exit(0)
} catch (error) {
  console.error(`The benchmark could not run: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}
