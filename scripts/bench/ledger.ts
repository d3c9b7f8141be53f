/** What the storage alone does: requests per second from hold to durable event on one core, posting, bytes on disk. */
import { join } from 'node:path'
import { launchPostgres, noPostgres } from '../../tests/support/postgres-server.ts'
import type { LedgerOrder, LedgerReport } from './ledger-child.ts'
import type { Bench } from './plan.ts'
import type { PostgresOrder, PostgresReport } from './postgres-child.ts'
import { type Report, type Row, us } from './report.ts'
import { startCrew } from './subjects.ts'

const CONCURRENCIES = [1, 32, 256]

export async function measureLedger(bench: Bench): Promise<Report> {
  const { quick } = bench.plan
  const rows: Row[] = []
  for (const concurrency of CONCURRENCIES) {
    const data_dir = join(bench.dir, `ledger-${concurrency}`)
    const report = await inNewProcess({ what: 'requests', data_dir, concurrency, duration_ms: quick ? 1500 : 6000 })
    rows.push(requestsRow(concurrency, report))
  }
  const data_dir = join(bench.dir, 'ledger-post')
  rows.push(postRow(await inNewProcess({ what: 'post', data_dir, events: quick ? 20_000 : 100_000 })))
  rows.push(...(await measurePostgres(quick)))
  return { rows, tables: [] }
}

const BATCH = 1000
const POSTERS = 3
/** ARCHITECTURE.md: ledger posting with rollups, one PostgreSQL core. */
const BUDGET_PER_CORE = 15_000

/** Posting to a PostgreSQL that has one core to itself; every commit waits for the disk. */
async function measurePostgres(quick: boolean): Promise<readonly Row[]> {
  if (noPostgres !== null) return [missingRow(noPostgres)]
  const settings = { shared_buffers: '512MB', max_wal_size: '4GB' }
  const server = await launchPostgres({ fsync: true, cpus: '1', settings })
  const crew = startCrew('postgres-child.ts', 0)
  try {
    const rows: Row[] = []
    for (const tagged of [false, true]) {
      const [url, schema] = [await server.url(), tagged ? 'tagged' : 'plain']
      const sizes = { events: quick ? 50_000 : 200_000, batch: BATCH, posters: POSTERS }
      const order: PostgresOrder = { url, schema, server_pid: server.pid(), ...sizes, tagged }
      rows.push(postgresRow((await crew.ask(order)) as PostgresReport, tagged))
    }
    return rows
  } finally {
    await crew.stop()
    await server.end()
  }
}

async function inNewProcess(order: LedgerOrder): Promise<LedgerReport> {
  const crew = startCrew('ledger-child.ts', 1)
  try {
    return (await crew.ask(order)) as LedgerReport
  } finally {
    await crew.stop()
  }
}

const perSecond = (count: number, ms: number): string => `${Math.round((count * 1000) / ms).toLocaleString('en')} /s`

function requestsRow(concurrency: number, { done, wall_ms, cpu_us, bytes_each }: LedgerReport): Row {
  return {
    what: `hold, journal (2 rows, fsync), settle, post: ${concurrency} at a time, one core`,
    budget: '–',
    measured: perSecond(done, wall_ms),
    figures: `${us(cpu_us / done)} CPU and ${Math.round(bytes_each)} bytes on disk per request; ${done} requests`,
    verdict: 'no budget',
  }
}

function postRow({ done, wall_ms, cpu_us }: LedgerReport): Row {
  return {
    what: 'posting with rollups alone (SQLite)',
    budget: '–',
    measured: perSecond(done, wall_ms),
    figures: `${us(cpu_us / done)} CPU per event; ${done} events`,
    verdict: 'no budget',
  }
}

function postgresRow({ done, wall_ms, cpu_us, server_cpu_us, body_characters }: PostgresReport, tagged: boolean): Row {
  const per_core = (done * 1_000_000) / server_cpu_us
  const with_what = tagged ? 'with an end user and two tags each' : 'without end users or tags'
  return {
    what: `posting with rollups, one PostgreSQL core: batches of ${BATCH}, ${with_what}`,
    budget: tagged ? '–' : `≥ ${BUDGET_PER_CORE.toLocaleString('en')} /s`,
    measured: `${Math.round(per_core).toLocaleString('en')} /s`,
    figures:
      `per second of its CPU (${us(server_cpu_us / done)} per event); ${perSecond(done, wall_ms)} by the clock beside ` +
      `${us(cpu_us / done)} of the poster’s; events of ${body_characters} characters; ${done} events`,
    verdict: tagged ? 'no budget' : per_core >= BUDGET_PER_CORE ? 'ok' : 'over',
  }
}

function missingRow(why: string): Row {
  return { what: 'posting with rollups, one PostgreSQL core', budget: '–', measured: '–', figures: why, verdict: 'nothing to compare with' }
}
