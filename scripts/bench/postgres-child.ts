/**
 * What posts to a PostgreSQL that runs on another core: the shared ledger alone, with everything that a posting writes.
 * Orders come over IPC as {@link PostgresOrder}; each is answered with a {@link PostgresReport}.
 */
import { randomBytes } from 'node:crypto'
import { dayOf, systemClock } from '../../src/base/clock.ts'
import { pooledRandom, uuidv7 } from '../../src/base/ids.ts'
import { encodeEvent } from '../../src/money/event-json.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import { walletOf } from '../../src/money/grant.ts'
import { bucketOf, type BucketBatch, type ChargedEvent, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { treeMicroseconds } from './procfs.ts'

export interface PostgresOrder {
  readonly url: string
  readonly schema: string
  /** Process id of the server. */
  readonly server_pid: number
  readonly events: number
  /** Events of one batch, which are of one bucket. */
  readonly batch: number
  readonly posters: number
  /** Whether events have an end user and two tags, each of which has sums of its own. */
  readonly tagged: boolean
}
export interface PostgresReport {
  readonly done: number
  readonly wall_ms: number
  /** Of this process. */
  readonly cpu_us: number
  /** Of the server and everything that it has started. */
  readonly server_cpu_us: number
  /** Characters of an event's JSON. */
  readonly body_characters: number
}

const KEYS = 100
const END_USERS = 500
const MODELS = ['qwen3-max', 'deepseek-v3', 'glm-4']
const PRICE = { amount_nano: 20_000_000n, cost_nano: 12_000_000n, tokens: 1200 }

const clock = systemClock()
const random = pooledRandom(randomBytes)

/** One tenant in each of so many buckets. */
function tenantsOf(count: number): readonly string[] {
  const tenants = new Map<number, string>()
  for (let index = 0; tenants.size < count; index += 1) {
    const tenant = `tenant-${index}`
    if (!tenants.has(bucketOf(tenant))) tenants.set(bucketOf(tenant), tenant)
  }
  return [...tenants.values()]
}

function eventOf(tenant: string, seq: number, tagged: boolean): UsageEvent {
  const [admitted_at, key, model] = [clock.now_ms(), `key-${seq % KEYS}`, MODELS[seq % MODELS.length] ?? '']
  const id = uuidv7(admitted_at, random)
  const { amount_nano, cost_nano, tokens } = PRICE
  const parts = [{ grant: walletOf(tenant), unit: 'nano_cny', amount: amount_nano }] as const
  const names = { v: 1, id, tenant, project: 'default', key, model, admitted_at } as const
  return {
    ...{ ...names, revision: 1, day: dayOf(admitted_at), ended_at: admitted_at + 900, end_user: tagged ? `u${seq % END_USERS}` : null },
    ...{
      tags: tagged ? { team: `team-${seq % 5}`, app: 'chat' } : {},
      protocol: 'chat_completions',
      audience: 'internal',
      zone: 'private',
    },
    ...{ model_asked: model, route: 'direct', domain: 'general', endpoint: `vllm/${model}`, provider: 'vllm', filing: null },
    ...{ registry_date: null, dialect: 'openai', stream: false, status: 'completed', code: null, finish_reason: 'stop' },
    usage_source: 'reported',
    tokens: { input: 240, cached_input: 0, cache_write: 0, output: 960, reasoning: 0 },
    calls: { search: 0, image: 0 },
    ...{ ttfe_ms: 400, duration_ms: 900, price_version: `${model}@1`, price_rule: 'all', amount_nano, cost_nano, parts, overrun_nano: 0n },
    attempts: [{ endpoint: `vllm/${model}`, outcome: 'answered', http_status: 200, duration_ms: 890, cost_nano }],
    hold: { ...names, expires_at: admitted_at + 30_000, tokens, amount_nano, parts },
    ...{ node: 'n-bench', seq, flags: [] },
  }
}

function batchesOf({ events, batch, posters, tagged }: PostgresOrder): BucketBatch[] {
  const tenants = tenantsOf(posters * 4)
  return Array.from({ length: Math.ceil(events / batch) }, (_, number) => {
    const tenant = tenants[number % tenants.length] ?? ''
    const own: ChargedEvent[] = Array.from({ length: batch }, (__, index) => ({
      body: encodeEvent(eventOf(tenant, number * batch + index + 1, tagged)),
      // In an epoch that no bucket is in: 0 is the one before the first.
      charged: 0,
    }))
    return { bucket: bucketOf(tenant), source: `bench-${number}`, events: own }
  })
}

async function post(order: PostgresOrder): Promise<PostgresReport> {
  const { url, schema, server_pid, posters } = order
  const books = await openPostgres({ url, schema, clock, connections: { posting: posters } })
  const waiting = batchesOf(order)
  const body_characters = waiting[0]?.events[0]?.body.length ?? 0
  // Connections, partitions and plans are there before anything is measured.
  const warm_up = waiting.splice(0, posters * 2)
  await Promise.all(warm_up.map((one) => books.ledger.postBatches([one])))
  const server_before = treeMicroseconds(server_pid)
  const [started_at, before] = [performance.now(), process.cpuUsage()]
  const counts = await Promise.all(Array.from({ length: posters }, () => postAll(books.ledger, waiting)))
  const { user, system } = process.cpuUsage(before)
  const wall_ms = performance.now() - started_at
  const server_cpu_us = treeMicroseconds(server_pid) - server_before
  await books.close()
  const done = counts.reduce((sum, count) => sum + count, 0)
  return { done, wall_ms, cpu_us: user + system, server_cpu_us, body_characters }
}

async function postAll(ledger: SharedLedger, waiting: BucketBatch[]): Promise<number> {
  let posted = 0
  for (let batch = waiting.shift(); batch !== undefined; batch = waiting.shift()) {
    const [result] = await ledger.postBatches([batch])
    posted += result?.states.filter((state) => state === 'posted').length ?? 0
  }
  return posted
}

process.on('message', (order: PostgresOrder) => {
  void post(order).then((report) => process.send?.(report))
})
process.once('disconnect', () => process.exit(0))
