/** What Weir adds to the time of an answer: at a fixed moderate rate, every other request sent straight to the upstream. */
import { chatBody } from './http.ts'
import type { PaceOrder, PaceReport, PaceRoute } from './pacer-child.ts'
import { type Bench, seedAs } from './plan.ts'
import { quantile, type Report, type Row } from './report.ts'
import { startCrew, startWeirProcess, type Subject } from './subjects.ts'

const PER_SECOND = 200

interface Question {
  readonly what: string
  readonly answer: 'whole' | 'burst'
  readonly stream: boolean
  readonly of: 'first_ms' | 'end_ms'
}
const QUESTIONS: readonly Question[] = [
  { what: 'whole answer, not streamed', answer: 'whole', stream: false, of: 'end_ms' },
  { what: 'first event of a streamed answer', answer: 'burst', stream: true, of: 'first_ms' },
]

export async function measureLatency(bench: Bench): Promise<Report> {
  const seeded = await seedAs(bench, 'latency', 1, 1)
  const weir = await startWeirProcess('latency', seeded, bench.plan.entry)
  const pacer = startCrew('pacer-child.ts', 0)
  const [key = ''] = seeded.keys
  const rows: Row[] = []
  for (const question of QUESTIONS) {
    const routes = [directly(bench, question, key), through(weir, question, key)]
    const pace = (duration_ms: number): Promise<PaceReport> => run({ routes, per_second: PER_SECOND, duration_ms })
    // A gateway as it is after a while, not one that still compiles: more requests than the pace would bring in a minute.
    await warmUp(bench, routes)
    await pace(2000)
    rows.push(rowOf(question, await pace(bench.plan.quick ? 4000 : 20_000)))
  }
  await pacer.stop()
  await weir.stop()
  return { rows, tables: [] }

  async function run(order: PaceOrder): Promise<PaceReport> {
    const report = (await pacer.ask(order)) as PaceReport
    const [failure] = report.failures
    if (failure !== undefined) throw new Error(`a paced request failed: ${failure}`)
    return report
  }
}

async function warmUp({ client, plan }: Bench, routes: readonly PaceRoute[]): Promise<void> {
  for (const { port, path, key, body } of routes) {
    await client.run({ port, path, keys: [key], bodies: [body], connections: 32, duration_ms: plan.quick ? 1500 : 6000 })
  }
}

function directly(bench: Bench, { answer, stream }: Question, key: string): PaceRoute {
  return { port: bench.upstream_port, path: `/${answer}/v1/chat/completions`, key, body: chatBody(`bench-${answer}`, stream) }
}

function through(weir: Subject, { answer, stream }: Question, key: string): PaceRoute {
  return { port: weir.port, path: weir.pathOf(answer), key, body: chatBody(`bench-${answer}`, stream) }
}

function rowOf({ what, of }: Question, { routes }: PaceReport): Row {
  const [direct, weir] = routes.map((route) => route[of])
  if (direct === undefined || weir === undefined) throw new Error('a route has no figures')
  const ms = (value: number): string => value.toFixed(2)
  const [p50, p99] = [0.5, 0.99].map((part) => ({ direct: quantile(direct, part), weir: quantile(weir, part) }))
  if (p50 === undefined || p99 === undefined) throw new Error('no quantiles')
  return {
    what: `added latency, ${what}, ${PER_SECOND} /s open loop`,
    budget: '–',
    measured: `p50 +${ms(p50.weir - p50.direct)} ms, p99 +${ms(p99.weir - p99.direct)} ms`,
    figures: `p50 ${ms(p50.weir)} ms, direct ${ms(p50.direct)}; p99 ${ms(p99.weir)} ms, direct ${ms(p99.direct)}; ${weir.length} pairs`,
    verdict: 'no budget',
  }
}
