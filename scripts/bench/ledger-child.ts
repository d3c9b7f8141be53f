/**
 * The whole storage alone, main thread and journal thread in one process: what a request costs it without HTTP.
 * Orders come over IPC as {@link LedgerOrder}; each is answered with a {@link LedgerReport}.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { dayOf, systemClock } from '../../src/base/clock.ts'
import { pooledRandom, uuidv7 } from '../../src/base/ids.ts'
import { randomBytes } from 'node:crypto'
import { encodeEvent } from '../../src/money/event-json.ts'
import type { HoldReceipt } from '../../src/money/event.ts'
import { walletOf } from '../../src/money/grant.ts'
import { openEmbedded, type Storage } from '../../src/storage/open.ts'
import type { ClosingEvent, HoldRequest, LimitRule, OpenRow } from '../../src/storage/ports.ts'

export type LedgerOrder =
  /** Requests from hold to durable event, so many at a time, for so long; then everything is posted. */
  | { readonly what: 'requests'; readonly data_dir: string; readonly concurrency: number; readonly duration_ms: number }
  /** Writes so many events into a new journal, as if a process had died before it posted them, and posts them. */
  | { readonly what: 'post'; readonly data_dir: string; readonly events: number }
export interface LedgerReport {
  readonly done: number
  readonly wall_ms: number
  readonly cpu_us: number
  /** Of the database file, per request or event. */
  readonly bytes_each: number
}

const TENANTS = 10
const KEYS = 100
const MODELS = ['qwen3-max', 'deepseek-v3', 'glm-4']
const PRICE = { amount_nano: 20_000_000n, cost_nano: 12_000_000n, tokens: 1200 }

const clock = systemClock()
const random = pooledRandom(randomBytes)
const pick = (index: number): { tenant: string; key: string; model: string } => ({
  tenant: `tenant-${index % TENANTS}`,
  key: `key-${index % KEYS}`,
  model: MODELS[index % MODELS.length] ?? '',
})

function rulesOf(tenant: string, key: string): readonly LimitRule[] {
  const rate = 900_000_000_000n
  return [
    { scope: 'key', scope_id: key, model: null, kind: 'requests_per_minute', limit: rate, window: null },
    { scope: 'key', scope_id: key, model: null, kind: 'tokens_per_minute', limit: rate, window: null },
    { scope: 'tenant', scope_id: tenant, model: null, kind: 'concurrency', limit: rate, window: null },
    { scope: 'tenant', scope_id: tenant, model: null, kind: 'budget', limit: 10n ** 18n, window: null },
  ]
}

function holdRequest(id: string, index: number): HoldRequest {
  const { tenant, key, model } = pick(index)
  const { tokens, amount_nano } = PRICE
  return {
    ...{ v: 1, id, tenant, project: 'default', key, model, lease_ms: 30_000, tokens, grant_tokens: tokens, minimum_tokens: tokens },
    ...{ amount_nano, minimum_nano: amount_nano, rules: rulesOf(tenant, key), credit_line_nano: 0n },
  }
}

function openRow(hold: HoldReceipt): OpenRow {
  const { model } = hold
  const target = { endpoint: `vllm/${model}`, provider: 'vllm', model, zone: 'private', filing: null, dialect: 'openai' }
  return {
    ...{ v: 1, hold, day: dayOf(hold.admitted_at), end_user: null, tags: {}, protocol: 'chat_completions', audience: 'internal' },
    ...{ registry_date: null, model_asked: model, route: 'direct', domain: 'general', stream: false, thinking: false, prompt_tokens: 240 },
    targets: [{ ...target, price_version: `${model}@1`, cost_version: `vllm/${model}@1` }],
  }
}

function closingEvent(row: OpenRow): ClosingEvent {
  const { hold, targets: _, prompt_tokens: __, thinking: ___, ...known } = row
  const { id, tenant, project, key, model, admitted_at, amount_nano, parts } = hold
  return {
    ...{ ...known, id, revision: 1, admitted_at, ended_at: admitted_at + 900, tenant, project, key, model, zone: 'private' },
    ...{ endpoint: `vllm/${model}`, provider: 'vllm', filing: null, dialect: 'openai', status: 'completed', code: null },
    ...{ finish_reason: 'stop', usage_source: 'reported', calls: { search: 0, image: 0 }, ttfe_ms: 400, duration_ms: 900 },
    tokens: { input: 240, cached_input: 0, cache_write: 0, output: 960, reasoning: 0 },
    attempts: [{ endpoint: `vllm/${model}`, outcome: 'answered', http_status: 200, duration_ms: 890, cost_nano: PRICE.cost_nano }],
    ...{
      price_version: `${model}@1`,
      price_rule: 'all',
      amount_nano,
      cost_nano: PRICE.cost_nano,
      parts,
      hold,
      overrun_nano: 0n,
      flags: [],
    },
  }
}

async function request(storage: Storage, index: number): Promise<void> {
  const held = await storage.limits.hold(holdRequest(uuidv7(clock.now_ms(), random), index))
  if (!held.ok) throw new Error(`a hold was refused: ${held.refusal.reason}`)
  const row = openRow(held.receipt)
  await storage.log.open(row)
  const event = closingEvent(row)
  const { id, tenant, admitted_at, amount_nano, parts } = event
  const settled = storage.limits.settle({ id, tenant, admitted_at, tokens: PRICE.tokens, amount_nano, parts })
  await Promise.all([settled, storage.log.close(event)])
}

async function open(data_dir: string): Promise<Storage> {
  const storage = await openEmbedded({ data_dir, clock, commit_timeout_ms: 5000, keep_days: 7 })
  for (let index = 0; index < TENANTS; index++) {
    const { tenant } = pick(index)
    const terms = { id: walletOf(tenant), tenant, unit: 'nano_cny', priority: 100, expires_at: null, created_at: 0 } as const
    await storage.limits.credit({ grant: { ...terms, models: null, weights: null }, delta: 10n ** 18n, seq: 1 })
  }
  return storage
}

interface Stretch {
  readonly wall_ms: number
  readonly cpu_us: number
}

async function measured(work: () => Promise<unknown>): Promise<Stretch> {
  const [started_at, before] = [performance.now(), process.cpuUsage()]
  await work()
  const { user, system } = process.cpuUsage(before)
  return { wall_ms: performance.now() - started_at, cpu_us: user + system }
}

async function requests({ data_dir, concurrency, duration_ms }: Extract<LedgerOrder, { what: 'requests' }>): Promise<LedgerReport> {
  await (await open(data_dir)).close()
  const bytes_before = bytesOf(data_dir)
  const storage = await open(data_dir)
  let started = 0
  const flow = async (until: number): Promise<void> => {
    while (performance.now() < until) await request(storage, started++)
  }
  const together = async (for_ms: number): Promise<void> => {
    const until = performance.now() + for_ms
    await Promise.all(Array.from({ length: concurrency }, () => flow(until)))
  }
  await together(duration_ms / 3)
  await storage.ledger.post()
  const warm_up = started
  const serving = await measured(() => together(duration_ms))
  const posting = await measured(() => storage.ledger.post())
  await storage.close()
  const bytes_each = (bytesOf(data_dir) - bytes_before) / started
  return { done: started - warm_up, wall_ms: serving.wall_ms + posting.wall_ms, cpu_us: serving.cpu_us + posting.cpu_us, bytes_each }
}

/** Of a storage that was closed: closing checkpoints, so everything is in the one file. */
function bytesOf(data_dir: string): number {
  return statSync(join(data_dir, 'weir.db')).size
}

async function post({ data_dir, events }: Extract<LedgerOrder, { what: 'post' }>): Promise<LedgerReport> {
  const empty = await open(data_dir)
  await empty.close()
  const bytes_before = bytesOf(data_dir)
  fillJournal(data_dir, empty.node, events)
  const storage = await open(data_dir)
  const done = storage.log.health().unposted
  const { wall_ms, cpu_us } = await measured(() => storage.ledger.post())
  await storage.close()
  return { done, wall_ms, cpu_us, bytes_each: (bytesOf(data_dir) - bytes_before) / events }
}

/** Straight into the journal's table: through the port, posting would begin before all of it is there. */
function fillJournal(data_dir: string, node: string, events: number): void {
  const path = join(data_dir, 'weir.db')
  const database = new DatabaseSync(path)
  const insert = database.prepare(
    "INSERT INTO journal (seq, kind, id, v, at, revision, day, event_seq, body) VALUES (?, 'U', ?, 1, ?, 1, ?, ?, ?)",
  )
  database.exec('BEGIN')
  for (let seq = 1; seq <= events; seq++) {
    const { tenant, key, model } = pick(seq)
    const [id, admitted_at] = [uuidv7(clock.now_ms(), random), clock.now_ms()]
    const parts = [{ grant: walletOf(tenant), unit: 'nano_cny', amount: PRICE.amount_nano }] as const
    const names = { v: 1, id, tenant, project: 'default', key, model } as const
    const { amount_nano, tokens } = PRICE
    const event = closingEvent(openRow({ ...names, admitted_at, expires_at: admitted_at + 30_000, tokens, amount_nano, parts }))
    insert.run(seq, id, admitted_at, event.day, seq, encodeEvent({ ...event, node, seq }))
  }
  database.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)')
  database.close()
}

process.on('message', (order: LedgerOrder) => {
  const work = order.what === 'post' ? post(order) : requests(order)
  void work.then((report) => process.send?.(report))
})
process.once('disconnect', () => process.exit(0))
