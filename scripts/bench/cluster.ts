/** A gateway of a cluster beside one in embedded mode and nginx, what its servers use, and two gateway processes beside one. */
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { launchPostgres, noPostgres } from '../../tests/support/postgres-server.ts'
import { chatBody } from './http.ts'
import { type Bench, seedAs } from './plan.ts'
import { cpuMicroseconds, treeMicroseconds, withChildren } from './procfs.ts'
import { makeQuota, type Quota } from './quota.ts'
import { median, type Report, type Row, us, verdict } from './report.ts'
import { measure, type Measured, type Scenario } from './scenarios.ts'
import type { Seed } from './seed.ts'
import { runWeir, startRedisServer, startWeirProcess, type Subject } from './subjects.ts'

/** ARCHITECTURE.md: CPU per non-streamed request in cluster mode, beside nginx. */
const BUDGET = 7
/** Posting and acknowledging what the last requests left. */
const POSTED_MS = 2000
/** What each of the compared gateway processes may use of one core. */
const QUOTA = 0.25

interface Servers {
  readonly env: Readonly<Record<string, string>>
  readonly redis_pid: number
  readonly postgres_pid: number
  stop(): Promise<void>
}

export async function measureCluster(bench: Bench): Promise<Report> {
  const servers = await startServers(join(bench.dir, 'redis'))
  if (typeof servers === 'string') return { rows: [missingRow(servers)], tables: [] }
  try {
    const { entry } = bench.plan
    const seeded = await seedAs(bench, 'cluster', 1, 1)
    await runWeir(seeded, join(dirname(entry), 'cli.ts'), ['move'], servers.env)
    const worker = await startWeirProcess('worker', seeded, entry, {
      env: { ...servers.env, WEIR_ROLES: 'control,worker' },
      core: 0,
      admin_only: true,
    })
    const rows = await measureBeside(bench, seeded, servers, worker)
    rows.push(...(await measureScaling(bench, seeded, servers)))
    await worker.stop()
    return { rows, tables: [] }
  } finally {
    await servers.stop()
  }
}

/** Both on the core of client and upstream, as another machine would be. */
async function startServers(dir: string): Promise<Servers | string> {
  if (noPostgres !== null) return noPostgres
  const redis = await startRedisServer(dir)
  if (typeof redis === 'string') return redis
  const postgres = await launchPostgres({ fsync: true, cpus: '0', settings: { shared_buffers: '512MB', max_wal_size: '4GB' } })
  return {
    env: { WEIR_REDIS_URL: `redis://127.0.0.1:${redis.port}`, WEIR_DATABASE_URL: await postgres.url() },
    redis_pid: redis.pid,
    postgres_pid: postgres.pid(),
    stop: async () => {
      await redis.stop()
      await postgres.end()
    },
  }
}

/** A machine's own folder, with the configuration of all. */
const machine = (seeded: Seed, bench: Bench, name: string): Seed => ({ ...seeded, data_dir: join(bench.dir, 'machines', name) })

async function measureBeside(bench: Bench, seeded: Seed, servers: Servers, worker: Subject): Promise<Row[]> {
  const { entry, quick } = bench.plan
  const embedded_seed = await seedAs(bench, 'beside-cluster', 1, 1)
  const embedded = await startWeirProcess('embedded', embedded_seed, entry)
  const how = { env: { ...servers.env, WEIR_ROLES: 'gateway' } }
  const gateway = await startWeirProcess('cluster', machine(seeded, bench, 'gateway'), entry, how)
  const subjects = [...(bench.nginx === null ? [] : [bench.nginx]), embedded, gateway]
  const rounds = quick ? { rounds: 2, duration_ms: 1500, warm_up_ms: 1500 } : { rounds: 6, duration_ms: 2500, warm_up_ms: 5000 }
  const asking = { keys: seeded.keys, models: ['bench-whole'] }
  const whole: Scenario = { title: '', answer: 'whole', stream: false, connections: 32, budget: BUDGET, ...rounds }
  const rows = besideRows(await measure(whole, subjects, bench.client, () => asking))
  rows.push(await serverRow(bench, seeded, gateway, worker, servers))
  await gateway.stop()
  await embedded.stop()
  return rows
}

function besideRows(measured: readonly Measured[]): Row[] {
  const floor = measured.find(({ subject }) => subject === 'nginx')
  return measured
    .filter((one) => one !== floor)
    .map((one) => {
      const own = median(one.per_request_us)
      const ratio = floor === undefined ? null : own / median(floor.per_request_us)
      const beside = floor === undefined ? '' : `; nginx ${us(median(floor.per_request_us))}, ${perSecond(floor.per_second)}`
      const in_cluster = one.subject === 'cluster'
      return {
        what: in_cluster ? 'CPU per non-streamed request, cluster' : 'the same, embedded, in the same rounds',
        budget: in_cluster ? `≤ ${BUDGET} ×` : '–',
        measured: ratio === null ? '–' : `${ratio.toFixed(2)} ×`,
        figures: `${us(own)}, ${perSecond(one.per_second)} on one core${beside}`,
        verdict: in_cluster ? verdict(ratio, BUDGET) : 'no budget',
      }
    })
}

const perSecond = (count: number): string => `${Math.round(count).toLocaleString('en')} /s`

/** What a request costs everything else that a cluster has: until its event is in the ledger and acknowledged. */
async function serverRow(bench: Bench, seeded: Seed, gateway: Subject, worker: Subject, servers: Servers): Promise<Row> {
  const used = (): readonly number[] => [
    cpuMicroseconds([servers.redis_pid]),
    treeMicroseconds(servers.postgres_pid),
    cpuMicroseconds(worker.pids),
  ]
  await sleep(POSTED_MS)
  const before = used()
  const order = { port: gateway.port, path: '/v1/chat/completions', keys: seeded.keys, bodies: [chatBody('bench-whole', false)] }
  const { answers } = await bench.client.run({ ...order, connections: 32, duration_ms: bench.plan.quick ? 2000 : 8000 })
  await sleep(POSTED_MS)
  const [redis = 0, postgres = 0, posting = 0] = used().map((after, index) => (after - (before[index] ?? 0)) / answers)
  return {
    what: 'CPU of the servers per non-streamed request',
    budget: '–',
    measured: us(redis + postgres + posting),
    figures: `Redis ${us(redis)}, PostgreSQL ${us(postgres)}, worker ${us(posting)}; ${answers} answers, until all are posted`,
    verdict: 'no budget',
  }
}

async function measureScaling(bench: Bench, seeded: Seed, servers: Servers): Promise<readonly Row[]> {
  const what = `requests per second, two gateway processes beside one, each held to ${QUOTA * 100} % of a core`
  const rates: number[] = []
  for (const workers of [1, 2]) {
    const rate = await rateOf(workers, bench, seeded, servers)
    if (rate === null) return [{ what, budget: '–', measured: '–', figures: 'control groups cannot be made here', verdict: 'no budget' }]
    rates.push(rate)
  }
  const [one = 0, two = 0] = rates
  const figures = `${perSecond(one)} and ${perSecond(two)}`
  return [{ what, budget: '–', measured: `${(two / one).toFixed(2)} ×`, figures, verdict: 'no budget' }]
}

async function rateOf(workers: number, bench: Bench, seeded: Seed, servers: Servers): Promise<number | null> {
  const quotas: Quota[] = []
  const how = { env: { ...servers.env, WEIR_ROLES: 'gateway', WEIR_WORKERS: String(workers) }, core: null }
  const gateway = await startWeirProcess(`${workers} workers`, machine(seeded, bench, `of-${workers}`), bench.plan.entry, how)
  try {
    const [own = 0, ...children] = withChildren(gateway.pids[0] ?? 0)
    for (const pid of workers === 1 ? [own] : children) {
      const quota = makeQuota(String(pid), QUOTA)
      if (quota === null) return null
      quotas.push(quota)
      quota.hold(pid)
    }
    const order = { port: gateway.port, path: '/v1/chat/completions', keys: seeded.keys, bodies: [chatBody('bench-whole', false)] }
    const duration_ms = bench.plan.quick ? 3000 : 10_000
    await bench.client.run({ ...order, connections: 32, duration_ms })
    const { answers } = await bench.client.run({ ...order, connections: 32, duration_ms })
    return (answers * 1000) / duration_ms
  } finally {
    await gateway.stop()
    for (const quota of quotas) quota.remove()
  }
}

function missingRow(why: string): Row {
  return {
    what: 'CPU per non-streamed request, cluster',
    budget: `≤ ${BUDGET} ×`,
    measured: '–',
    figures: why,
    verdict: 'nothing to compare with',
  }
}
