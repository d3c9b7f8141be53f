/** Where the CPU of a request goes: profiles of the main thread and of the journal's thread under load, by stage. */
import { chatBody } from './http.ts'
import { Inspector, inspectorOptions, type Profile } from './inspector.ts'
import { type Bench, seedAs } from './plan.ts'
import { threadTimes, type ThreadTime } from './procfs.ts'
import { markdownTable, type Report } from './report.ts'
import { attribute, type Attribution, hottest, MAIN_RULES, type StageRules, WRITER_RULES } from './stage-map.ts'
import { freePort, startWeirProcess, type Subject } from './subjects.ts'

const WRITER_FILE = '/storage/journal/worker.ts'
const INTERVAL_US = 250
const CONNECTIONS = 32
/** Stages below this share of the request are left out of the table. */
const SMALLEST_SHARE = 0.002
const HOTTEST = 12

const LOADS = [
  { title: 'not streamed', answer: 'whole', stream: false },
  { title: 'streamed, 64 events', answer: 'burst', stream: true },
] as const

/** Microseconds of CPU per request by `thread: stage`. */
type Costs = ReadonlyMap<string, number>

export async function measureStages(bench: Bench): Promise<Report> {
  const seeded = await seedAs(bench, 'stages', 1, 1)
  const inspector_port = await freePort()
  const weir = await startWeirProcess('stages', seeded, bench.plan.entry, { node_options: inspectorOptions(inspector_port) })
  const inspector = await Inspector.open(inspector_port)
  const [key = ''] = seeded.keys
  const columns: Costs[] = []
  const functions: string[] = []
  for (const load of LOADS) {
    const order = { port: weir.port, path: weir.pathOf(load.answer), keys: [key], bodies: [chatBody(`bench-${load.answer}`, load.stream)] }
    const run = async (duration_ms: number): Promise<number> =>
      (await bench.client.run({ ...order, connections: CONNECTIONS, duration_ms })).answers
    await run(bench.plan.quick ? 1500 : 5000)
    let answers = 0
    const before = threadTimes(weir.pids[0] ?? 0)
    const { main, worker } = await inspector.profile(WRITER_FILE, INTERVAL_US, async () => {
      answers = await run(bench.plan.quick ? 2500 : 8000)
    })
    columns.push(costsOf(main, worker, timesSince(before, weir), answers))
    functions.push(`${load.title}: ${hottestOf(main)}`)
  }
  inspector.close()
  await weir.stop()
  const note = 'Functions of the main thread with most self time, in percent of its busy samples'
  return { rows: [], tables: [`CPU per request by stage\n\n${stageTable(columns)}\n\n${note}\n\n${functions.join('\n\n')}`] }
}

function timesSince(before: readonly ThreadTime[], weir: Subject): readonly ThreadTime[] {
  const earlier = new Map(before.map(({ tid, cpu_us }) => [tid, cpu_us]))
  return threadTimes(weir.pids[0] ?? 0).map((thread) => ({ ...thread, cpu_us: thread.cpu_us - (earlier.get(thread.tid) ?? 0) }))
}

/** The threads' own CPU is from the kernel; the profile says only how it is divided. */
function costsOf(main: Profile, worker: Profile, times: readonly ThreadTime[], answers: number): Costs {
  const [main_time] = times
  // Storage starts its writer before its reader.
  const writer_time = times.find(({ name }) => name.startsWith('WorkerThread'))
  if (main_time === undefined || writer_time === undefined) throw new Error('a thread of the gateway is missing')
  const costs = new Map<string, number>()
  const divide = (prefix: string, profile: Profile, rules: StageRules, cpu_us: number): void => {
    const { stages, busy }: Attribution = attribute(profile, rules)
    for (const [stage, { hits }] of stages) costs.set(`${prefix}: ${stage}`, (cpu_us / answers) * (hits / busy))
  }
  divide('main', main, MAIN_RULES, main_time.cpu_us)
  divide('journal', worker, WRITER_RULES, writer_time.cpu_us)
  for (const { tid, name, cpu_us } of times) {
    if (tid === main_time.tid || tid === writer_time.tid) continue
    const stage = name.startsWith('node-V8Worker') ? 'V8: collecting and compiling in the background' : `other threads`
    costs.set(stage, (costs.get(stage) ?? 0) + cpu_us / answers)
  }
  return costs
}

function stageTable(columns: readonly Costs[]): string {
  const totals = columns.map((costs) => [...costs.values()].reduce((sum, value) => sum + value, 0))
  const shareOf = (stage: string, index: number): number => (columns[index]?.get(stage) ?? 0) / (totals[index] ?? 1)
  const stages = [...new Set(columns.flatMap((costs) => [...costs.keys()]))]
    .filter((stage) => columns.some((_, index) => shareOf(stage, index) >= SMALLEST_SHARE))
    .toSorted((a, b) => shareOf(b, 0) - shareOf(a, 0))
  const cells = (value: number, share: number): readonly string[] => [`${value.toFixed(1)} µs`, `${(share * 100).toFixed(1)} %`]
  const lines = stages.map((stage) => [stage, ...columns.flatMap((costs, index) => cells(costs.get(stage) ?? 0, shareOf(stage, index)))])
  const whole = ['**all, with the profiler running**', ...totals.flatMap((total) => cells(total, 1))]
  return markdownTable(['thread: stage', ...LOADS.flatMap(({ title }) => [title, ''])], [...lines, whole])
}

function hottestOf(profile: Profile): string {
  const { busy } = attribute(profile, MAIN_RULES)
  return hottest(profile, HOTTEST)
    .map(([name, hits]) => `${name} ${((hits * 100) / busy).toFixed(1)}`)
    .join('; ')
}
