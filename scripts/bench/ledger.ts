/** What the storage alone does: requests per second from hold to durable event on one core, posting, bytes on disk. */
import { join } from 'node:path'
import type { LedgerOrder, LedgerReport } from './ledger-child.ts'
import type { Bench } from './plan.ts'
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
  return { rows, tables: [] }
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
