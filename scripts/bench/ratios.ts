/** Weir beside nginx: CPU per request and memory per open stream. */
import { type Bench, type Plan, seedAs } from './plan.ts'
import { median, type Report, type Row, us, verdict } from './report.ts'
import { measure, type Measured, memoryPerStream, type Scenario } from './scenarios.ts'
import { startWeirProcess, type Subject } from './subjects.ts'

const MEMORY_BUDGET_KIB = 64

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

/** The parts `whole`, `burst` and `paced`. */
export async function measureScenarios(bench: Bench): Promise<Report> {
  const list = scenarios(bench.plan)
  if (list.length === 0) return { rows: [], tables: [] }
  const subjects: Subject[] = bench.nginx === null ? [] : [bench.nginx]
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
  return { rows, tables: [] }
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
        measured: ratio === null ? '–' : `${ratio.toFixed(2)} ×`,
        figures: `${us(own)} (${scatter})${floor === null ? '' : `; nginx ${us(floor)}`}`,
        verdict: verdict(ratio, budget),
      }
    })
}

/** The part `memory`. */
export async function measureMemory(bench: Bench): Promise<Report> {
  const streams = bench.plan.quick ? 500 : 2000
  const seeded = await seedAs(bench, 'memory', 1, 1)
  const weir = await startWeirProcess('memory', seeded, bench.plan.entry)
  const [key = ''] = seeded.keys
  const kib = (await memoryPerStream(weir, bench.client, key, streams)) / 1024
  await weir.stop()
  const floor = bench.nginx === null ? null : (await memoryPerStream(bench.nginx, bench.client, key, streams)) / 1024
  const row = {
    what: `resident memory per open idle stream (${streams} streams)`,
    budget: `≤ ${MEMORY_BUDGET_KIB} KiB`,
    measured: `${kib.toFixed(1)} KiB`,
    figures: floor === null ? '–' : `${(kib / floor).toFixed(1)} × nginx, ${floor.toFixed(1)} KiB`,
    verdict: verdict(kib, MEMORY_BUDGET_KIB),
  }
  return { rows: [row], tables: [] }
}
