/**
 * `npm run bench`: CPU per request of the whole process, Weir with everything switched on beside nginx as a bare reverse proxy,
 * same upstream, same client, one run, rounds in turn. Ratios of medians, with the budgets of ARCHITECTURE.md.
 *
 *   npm run bench -- --quick              fewer and shorter rounds: about 40 s
 *   npm run bench -- --only whole,burst   some of whole, burst, paced, memory, admission
 *   npm run bench -- --beside <main.ts>   another checkout's src/main.ts too, in the same rounds
 *
 * Exit code 0 whatever the figures are; 1 when it cannot run.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measure, median, memoryPerStream, type Measured, type Scenario } from './bench/scenarios.ts'
import { seed, type Seed } from './bench/seed.ts'
import { startClient, startNginx, startUpstream, startWeirProcess, stopAll, type Client, type Subject } from './bench/subjects.ts'

const MEMORY_BUDGET_KIB = 64
/** Flat within what one run of such a measurement scatters. */
const FLAT_BUDGET = 1.15
const PARTS = ['whole', 'burst', 'paced', 'memory', 'admission']

interface Plan {
  readonly quick: boolean
  readonly parts: ReadonlySet<string>
  readonly entry: string
  readonly beside: string | null
}

interface Bench {
  readonly plan: Plan
  readonly dir: string
  readonly upstream_port: number
  readonly client: Client
  readonly nginx: Subject | null
}

interface Row {
  readonly what: string
  readonly budget: string
  readonly ratio: string
  readonly figures: string
  readonly verdict: string
}

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

function scenarios({ quick, parts }: Plan): readonly Scenario[] {
  const rounds = quick ? { rounds: 2, duration_ms: 1000, warm_up_ms: 1500 } : { rounds: 6, duration_ms: 2500, warm_up_ms: 5000 }
  const paced = quick ? { rounds: 2, duration_ms: 1200, warm_up_ms: 500 } : { rounds: 4, duration_ms: 4000, warm_up_ms: 1500 }
  const all: readonly Scenario[] = [
    { title: 'CPU per non-streamed request', answer: 'whole', stream: false, connections: 32, budget: 5, ...rounds },
    { title: 'CPU per streamed answer of 64 events, unpaced', answer: 'burst', stream: true, connections: 32, budget: 1.6, ...rounds },
    { title: 'the same, an event every 10 ms, 64 connections', answer: 'paced', stream: true, connections: 64, budget: 3, ...paced },
  ]
  return all.filter(({ answer }) => parts.has(answer))
}

const us = (value: number): string => `${value < 100 ? value.toFixed(1) : value.toFixed(0)} µs`

async function measureScenarios(bench: Bench): Promise<Row[]> {
  const list = scenarios(bench.plan)
  if (list.length === 0) return []
  const subjects = bench.nginx === null ? [] : [bench.nginx]
  const seeded = await seedAs(bench, 'weir', 1, 1)
  subjects.push(await startWeirProcess('weir', seeded, bench.plan.entry))
  if (bench.plan.beside !== null) subjects.push(await startWeirProcess('beside', await seedAs(bench, 'beside', 1, 1), bench.plan.beside))
  const rows: Row[] = []
  for (const scenario of list) {
    const asking = { keys: seeded.keys, models: [`bench-${scenario.answer}`] }
    const measured = await measure(scenario, subjects, bench.client, () => asking)
    rows.push(...scenarioRows(scenario, measured))
  }
  for (const subject of subjects.slice(bench.nginx === null ? 0 : 1)) await subject.stop()
  return rows
}

function scenarioRows({ title, budget }: Scenario, measured: readonly Measured[]): Row[] {
  const nginx = measured.find(({ subject }) => subject === 'nginx')
  const floor = nginx === undefined ? null : median(nginx.per_request_us)
  return measured
    .filter((one) => one !== nginx)
    .map((one) => {
      const own = median(one.per_request_us)
      const ratio = floor === null ? null : own / floor
      const scatter = `${us(Math.min(...one.per_request_us))} to ${us(Math.max(...one.per_request_us))}, ${one.answers} answers`
      return {
        what: one.subject === 'weir' ? title : `${title} (${one.subject})`,
        budget: `≤ ${budget} ×`,
        ratio: ratio === null ? '–' : `${ratio.toFixed(2)} ×`,
        figures: `${us(own)} (${scatter})${floor === null ? '' : `; nginx ${us(floor)}`}`,
        verdict: verdict(ratio, budget),
      }
    })
}

function verdict(value: number | null, budget: number): string {
  if (value === null) return 'nothing to compare with'
  return value <= budget ? 'ok' : 'over'
}

async function measureMemory(bench: Bench): Promise<Row[]> {
  if (!bench.plan.parts.has('memory')) return []
  const streams = bench.plan.quick ? 500 : 2000
  const seeded = await seedAs(bench, 'memory', 1, 1)
  const weir = await startWeirProcess('memory', seeded, bench.plan.entry)
  const [key = ''] = seeded.keys
  const kib = (await memoryPerStream(weir, bench.client, key, streams)) / 1024
  await weir.stop()
  const floor = bench.nginx === null ? null : (await memoryPerStream(bench.nginx, bench.client, key, streams)) / 1024
  return [
    {
      what: `resident memory per open idle stream (${streams} streams)`,
      budget: `≤ ${MEMORY_BUDGET_KIB} KiB`,
      ratio: floor === null ? '–' : `${(kib / floor).toFixed(1)} ×`,
      figures: `${kib.toFixed(1)} KiB${floor === null ? '' : `; nginx ${floor.toFixed(1)} KiB`}`,
      verdict: verdict(kib, MEMORY_BUDGET_KIB),
    },
  ]
}

async function measureAdmission(bench: Bench): Promise<Row[]> {
  if (!bench.plan.parts.has('admission')) return []
  const { quick, entry } = bench.plan
  const many = quick ? { keys: 10_000, models: 1000 } : { keys: 100_000, models: 10_000 }
  const few_seed = await seedAs(bench, 'few', 1, 10)
  const many_seed = await seedAs(bench, 'many', many.keys, many.models)
  const few_weir = await startWeirProcess('few', few_seed, entry)
  const many_weir = await startWeirProcess('many', many_seed, entry)
  const scenario: Scenario = {
    ...{ title: 'admission', answer: 'whole', stream: false, connections: 32, budget: FLAT_BUDGET },
    ...(quick ? { rounds: 2, duration_ms: 1000, warm_up_ms: 1500 } : { rounds: 4, duration_ms: 2000, warm_up_ms: 4000 }),
  }
  // The same number of bodies on both sides, so that the client is as warm: with few keys they repeat.
  const sample = 1000
  const spread = <T>(all: readonly T[]): readonly T[] =>
    Array.from({ length: sample }, (_, index) => all[Math.floor((index * all.length) / sample)] ?? ('' as T))
  const asking = (subject: Subject): { keys: readonly string[]; models: readonly string[] } => {
    const { keys, models } = subject === few_weir ? few_seed : many_seed
    return { keys: spread(keys), models: spread(models) }
  }
  const [few, lots] = await measure(scenario, [few_weir, many_weir], bench.client, asking)
  await few_weir.stop()
  await many_weir.stop()
  if (few === undefined || lots === undefined) return []
  const ratio = median(lots.per_request_us) / median(few.per_request_us)
  return [
    {
      what: `cost of a request with ${many.keys} keys and ${many.models} models, beside 1 key and 10 models`,
      budget: `≤ ${FLAT_BUDGET} ×`,
      ratio: `${ratio.toFixed(2)} ×`,
      figures: `${us(median(lots.per_request_us))}; few ${us(median(few.per_request_us))}`,
      verdict: verdict(ratio, FLAT_BUDGET),
    },
  ]
}

function seedAs(bench: Bench, name: string, keys: number, models: number): Promise<Seed> {
  return seed({ dir: join(bench.dir, name), upstream_port: bench.upstream_port, keys, models })
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ what, budget, ratio, figures, verdict: said }) => `| ${what} | ${budget} | ${ratio} | ${figures} | ${said} |`)
  return ['| | budget | measured | Weir, median (range) | |', '|---|---|---|---|---|', ...lines].join('\n')
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
    const rows = [...(await measureScenarios(bench)), ...(await measureMemory(bench)), ...(await measureAdmission(bench))]
    const command = ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' ')
    console.log(`${table(rows)}\n\n\`${command}\`, Node ${process.version}, ${((performance.now() - started_at) / 1000).toFixed(0)} s`)
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
