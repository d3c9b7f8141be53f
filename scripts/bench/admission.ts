/** A request to a gateway with many keys and models, beside one with few: the whole process. */
import { FLAT_BUDGET } from './limits.ts'
import { type Bench, seedAs } from './plan.ts'
import { residentBytes } from './procfs.ts'
import { median, type Report, type Row, us, verdict } from './report.ts'
import { type Asking, measure, type Scenario } from './scenarios.ts'
import type { Seed } from './seed.ts'
import { startWeirProcess, type Subject, type WeirSubject } from './subjects.ts'

/** So many different keys are used, and as many requests on the side with few, so that the client is as warm. */
const SAMPLE = 20_000

export async function measureAdmission(bench: Bench): Promise<Report> {
  const { quick, entry } = bench.plan
  const many = quick ? { keys: 100_000, models: 1000 } : { keys: 1_000_000, models: 10_000 }
  const few_seed = await seedAs(bench, 'few', 1, 10)
  const seeding_at = performance.now()
  const many_seed = await seedAs(bench, 'many', many.keys, many.models)
  const seeded_ms = performance.now() - seeding_at
  const few_weir = await startWeirProcess('few', few_seed, entry)
  const many_weir = await startWeirProcess('many', many_seed, entry)
  const scenario: Scenario = {
    ...{ title: 'admission', answer: 'whole', stream: false, connections: 32, budget: FLAT_BUDGET },
    ...(quick ? { rounds: 2, duration_ms: 1000, warm_up_ms: 1500 } : { rounds: 5, duration_ms: 2500, warm_up_ms: 6000 }),
  }
  const asking = (subject: Subject): Asking => sampleOf(subject === few_weir ? few_seed : many_seed)
  const [few, lots] = await measure(scenario, [few_weir, many_weir], bench.client, asking)
  if (few === undefined || lots === undefined) throw new Error('a gateway was not measured')
  const ratio = median(lots.per_request_us) / median(few.per_request_us)
  const size = `${many.keys.toLocaleString('en')} keys and ${many.models.toLocaleString('en')} models`
  const rows: Row[] = [
    {
      what: `cost of a request with ${size}, beside 1 key and 10 models`,
      budget: `≤ ${FLAT_BUDGET} ×`,
      measured: `${ratio.toFixed(2)} ×`,
      figures: `${us(median(lots.per_request_us))}; few ${us(median(few.per_request_us))}`,
      verdict: verdict(ratio, FLAT_BUDGET),
    },
    startRow(size, many_weir, few_weir, seeded_ms),
  ]
  await few_weir.stop()
  await many_weir.stop()
  return { rows, tables: [] }
}

function sampleOf({ keys, models }: Seed): Asking {
  return { keys: spread(keys), models: spread(models) }
}

/** Every so many-th, in an order in which neighbours are far apart. */
function spread(all: readonly string[]): readonly string[] {
  const step = 7919
  return Array.from({ length: Math.min(SAMPLE, Math.max(all.length, 1000)) }, (_, index) => all[(index * step) % all.length] ?? '')
}

function startRow(size: string, many: WeirSubject, few: WeirSubject, seeded_ms: number): Row {
  const s = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
  const mib = (weir: WeirSubject): string => `${Math.round(residentBytes(weir.pids) / 1024 / 1024).toLocaleString('en')} MiB`
  return {
    what: `start to listening, and resident memory after the run, with ${size}`,
    budget: '–',
    measured: `${s(many.start_ms)}, ${mib(many)}`,
    figures: `with few: ${s(few.start_ms)}, ${mib(few)}; data and configuration written in ${s(seeded_ms)}`,
    verdict: 'no budget',
  }
}
