/**
 * Limits in memory alone, with as many keys as the first argument says, each with rules and counters of its own, a tenant per
 * hundred keys. Orders come over IPC as {@link LimitsOrder}; each is answered with a {@link LimitsReport}.
 */
import type { Clock } from '../../src/base/clock.ts'
import { walletOf } from '../../src/money/grant.ts'
import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import type { HoldRequest, LimitRule, WindowBounds } from '../../src/storage/ports.ts'

export interface LimitsOrder {
  /** Pairs of hold and settle. */
  readonly pairs: number
  /** `each`: key after key. `random`: any key. */
  readonly order: 'each' | 'random'
}
export interface LimitsReport {
  readonly ns_per_pair: number
  readonly resident_bytes: number
}

const KEYS = Number(process.argv[2])
const KEYS_PER_TENANT = 100
const START_MS = Date.parse('2026-11-23T10:00:00+08:00')
const TOKENS = 1200
const AMOUNT_NANO = 20_000_000n
const MONTH: WindowBounds = {
  name: 'month',
  start_ms: Date.parse('2026-11-01T00:00:00+08:00'),
  end_ms: Date.parse('2026-12-01T00:00:00+08:00'),
  next_end_ms: Date.parse('2027-01-01T00:00:00+08:00'),
}

let pairs_done = 0
/** Time stands still, so that nothing refills: every counter that was ever used stays in memory, which is the worst case. */
const clock: Clock = { now_ms: () => START_MS, monotonic_ms: () => 0 }
const limits = createMemoryLimits({ clock })
const tenantOf = (key: number): string => `tenant-${Math.floor(key / KEYS_PER_TENANT)}`

async function fillWallets(): Promise<void> {
  for (let key = 0; key < KEYS; key += KEYS_PER_TENANT) {
    const tenant = tenantOf(key)
    const terms = { id: walletOf(tenant), tenant, unit: 'nano_cny', priority: 100, expires_at: null, created_at: 0 } as const
    await limits.credit({ grant: { ...terms, models: null, weights: null }, delta: 10n ** 18n, seq: 1 })
  }
}

/** Three limits of the key and one of its tenant, as a tenant with a plan has them. */
function rulesOf(key: string, tenant: string): readonly LimitRule[] {
  const own = { scope: 'key', scope_id: key, model: null } as const
  return [
    { ...own, kind: 'requests_per_minute', limit: 90_000_000n, window: null },
    { ...own, kind: 'tokens_per_minute', limit: 90_000_000_000n, window: null },
    { ...own, kind: 'amount_window', limit: 10n ** 18n, window: MONTH },
    { scope: 'tenant', scope_id: tenant, model: null, kind: 'concurrency', limit: 1000n, window: null },
  ]
}

function holdRequest(id: string, index: number): HoldRequest {
  const [key, tenant] = [`key-${index}`, tenantOf(index)]
  return {
    ...{ v: 1, id, tenant, project: 'default', key, model: 'qwen3-max', lease_ms: 30_000, tokens: TOKENS, grant_tokens: TOKENS },
    ...{ minimum_tokens: TOKENS, amount_nano: AMOUNT_NANO, minimum_nano: AMOUNT_NANO, rules: rulesOf(key, tenant), credit_line_nano: 0n },
  }
}

async function pair(index: number): Promise<void> {
  const id = `r-${pairs_done}`
  const held = await limits.hold(holdRequest(id, index))
  if (!held.ok) throw new Error(`a hold was refused: ${held.refusal.reason}`)
  const { tenant, admitted_at, parts, amount_nano } = held.receipt
  await limits.settle({ id, tenant, admitted_at, tokens: TOKENS, amount_nano, parts })
  pairs_done += 1
}

/** A generator of its own (mulberry32), so that every run uses the keys in the same order. */
function randomIndexes(count: number): Uint32Array {
  let state = 42
  return Uint32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * KEYS)
  })
}

async function run({ pairs, order }: LimitsOrder): Promise<LimitsReport> {
  const indexes = order === 'each' ? Uint32Array.from({ length: pairs }, (_, index) => index % KEYS) : randomIndexes(pairs)
  const started_at = process.hrtime.bigint()
  for (const index of indexes) await pair(index)
  const ns_per_pair = Number(process.hrtime.bigint() - started_at) / pairs
  return { ns_per_pair, resident_bytes: process.memoryUsage.rss() }
}

await fillWallets()
process.on('message', (order: LimitsOrder) => void run(order).then((report) => process.send?.(report)))
process.once('disconnect', () => process.exit(0))
