/** What a request takes of Redis: memory while its hold is open and after it has ended, and the time of its two commands. */
import { join } from 'node:path'
import { uuidv7 } from '../../src/base/ids.ts'
import type { HoldReceipt } from '../../src/money/event.ts'
import { bucketOf } from '../../src/storage/cluster-ports.ts'
import type { GrantTerms, LimitRule, OpenContext } from '../../src/storage/ports.ts'
import { createRedisLimits, type RedisLimits } from '../../src/storage/redis/limits.ts'
import { openRedis, type RedisLink } from '../../src/storage/redis/link.ts'
import type { Bench } from './plan.ts'
import { type Report, type Row, us } from './report.ts'
import { startRedisServer } from './subjects.ts'

const REQUESTS = 20_000
const AT_A_TIME = 32
const READY_MS = 5000
const LEASE_MS = 3_600_000
/** Bytes of a usage event with two tags and one attempt. */
const EVENT_BYTES = 1500
const [TENANT, PROJECT, KEY, MODEL] = ['ten_0198c7a2b3', 'prj_0198c7a2b4', 'key_0198c7a2b5', 'deepseek-flash']
const BUCKET = bucketOf(TENANT)
const WALLET: GrantTerms = {
  id: `wallet:${TENANT}`,
  tenant: TENANT,
  unit: 'nano_cny',
  priority: 10,
  expires_at: null,
  created_at: 1,
  models: null,
  weights: null,
}
const RULES: readonly LimitRule[] = [
  { scope: 'key', scope_id: KEY, model: null, kind: 'requests_per_minute', limit: 10_000_000n, window: null },
  { scope: 'key', scope_id: KEY, model: null, kind: 'tokens_per_minute', limit: 10_000_000_000n, window: null },
  { scope: 'project', scope_id: PROJECT, model: null, kind: 'budget', limit: 10n ** 17n, window: null },
  { scope: 'tenant', scope_id: TENANT, model: null, kind: 'concurrency', limit: 10_000_000n, window: null },
]
const CONTEXT: OpenContext = {
  v: 1,
  day: '2026-11-28',
  end_user: 'a'.repeat(32),
  tags: { app: 'shop', team: 'search' },
  protocol: 'chat_completions',
  audience: 'public',
  registry_date: '2026-11-01',
  model_asked: MODEL,
  route: `asked for ${MODEL}`,
  domain: 'general',
  stream: true,
  thinking: false,
  prompt_tokens: 1000,
  targets: ['deepseek/deepseek-flash', 'siliconflow/deepseek-flash'].map((endpoint) => ({
    endpoint,
    provider: 'deepseek',
    model: MODEL,
    zone: 'domestic',
    filing: 'Beijing-DeepSeekChat-202404280017',
    dialect: 'openai',
    price_version: `sell:${MODEL}@2026-08-17`,
    cost_version: `cost:${endpoint}@2026-08-17`,
  })),
}

/** Figures without budgets: the design names none for them. */
export async function measureRedis(bench: Bench): Promise<Report> {
  const server = await startRedisServer(join(bench.dir, 'redis-alone'))
  if (typeof server === 'string') return { rows: [row('memory and time of a request in Redis', '–', server)], tables: [] }
  const link = openRedis({ url: `redis://127.0.0.1:${server.port}`, onError: fail })
  await link.ready(READY_MS)
  const limits = createRedisLimits(link, { tenantOf: () => Promise.resolve(TENANT), stream_cap: REQUESTS * 2, onError: fail })
  try {
    await openBucket(limits)
    return { rows: await measureRequests(link, limits, bench.plan.quick ? REQUESTS / 10 : REQUESTS), tables: [] }
  } finally {
    limits.close()
    link.close()
    await server.stop()
  }
}

function fail(error: Error): void {
  throw error
}

async function openBucket(limits: RedisLimits): Promise<void> {
  await limits.beginEpoch([BUCKET], 1)
  await limits.fill(BUCKET, 1, [], [])
  await limits.openBucket(BUCKET, 1)
  await limits.credit({ grant: WALLET, delta: 10n ** 15n, seq: 1 })
}

async function measureRequests(link: RedisLink, limits: RedisLimits, count: number): Promise<Row[]> {
  const ids = Array.from({ length: count }, () => uuidv7(Date.now()))
  const receipts = new Map<string, HoldReceipt>()
  const before = await memoryOf(link)
  const hold_us = await timed(link, ids, async (id) => void receipts.set(id, await holdOf(limits, id)))
  const open = await memoryOf(link)
  const settle_us = await timed(link, ids, (id) => settle(limits, id, receipts.get(id)))
  const waiting = await memoryOf(link)
  const last = (await limits.read([BUCKET], count)).get(BUCKET)?.at(-1)
  if (last === undefined) throw new Error('no event is in the stream')
  await limits.acknowledge(BUCKET, last.id)
  const finished = await memoryOf(link)
  const bytes = (from: number, to: number): string => `${Math.round((to - from) / count).toLocaleString('en')} B`
  const rules = `${RULES.length} rules, 2 targets`
  return [
    row('Redis memory per open hold', bytes(before, open), `${count.toLocaleString('en')} holds, ${rules}`),
    row('the same, ended and not yet posted', bytes(before, waiting), `an event of ${EVENT_BYTES} bytes included`),
    row('the same, ended and posted', bytes(before, finished), 'what tells a late settle from a new one, kept for 10 minutes'),
    row('Redis time per hold and per settle', `${us(hold_us)}, ${us(settle_us)}`, 'inside of the script, by the server itself'),
  ]
}

function row(what: string, measured: string, figures: string): Row {
  return { what, budget: '–', measured, figures, verdict: 'no budget' }
}

async function holdOf(limits: RedisLimits, id: string): Promise<HoldReceipt> {
  const result = await limits.hold({
    v: 1,
    id,
    tenant: TENANT,
    project: PROJECT,
    key: KEY,
    model: MODEL,
    lease_ms: LEASE_MS,
    tokens: 2000,
    grant_tokens: 2000,
    minimum_tokens: 1100,
    amount_nano: 12_345_678n,
    minimum_nano: 6_000_000n,
    rules: RULES,
    credit_line_nano: 0n,
    when_away: 'closed',
    context: CONTEXT,
  })
  if (!result.ok) throw new Error('a hold was refused')
  return result.receipt
}

async function settle(limits: RedisLimits, id: string, receipt: HoldReceipt | undefined): Promise<void> {
  const amount_nano = 9_345_678n
  const { state, appended } = await limits.settleEvent({
    id,
    tenant: TENANT,
    admitted_at: receipt?.admitted_at ?? 0,
    tokens: 1500,
    amount_nano,
    parts: [{ grant: WALLET.id, unit: 'nano_cny', amount: amount_nano }],
    event: { ref: `node ${id}`, body: 'x'.repeat(EVENT_BYTES) },
  })
  if (state !== 'settled' || !appended) throw new Error(`a settle was ${state}`)
}

/** Microseconds of script per call, while some are under way at a time. */
async function timed(link: RedisLink, ids: readonly string[], work: (id: string) => Promise<void>): Promise<number> {
  const before = await scriptTime(link)
  for (let at = 0; at < ids.length; at += AT_A_TIME) await Promise.all(ids.slice(at, at + AT_A_TIME).map(work))
  return ((await scriptTime(link)) - before) / ids.length
}

async function scriptTime(link: RedisLink): Promise<number> {
  return Number(/cmdstat_evalsha:calls=\d+,usec=(\d+)/.exec(await infoOf(link, 'commandstats'))?.[1] ?? 0)
}

async function memoryOf(link: RedisLink): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await infoOf(link, 'memory'))?.[1])
}

function infoOf(link: RedisLink, section: string): Promise<string> {
  return link.ask('', (client) => client.info(section))
}
