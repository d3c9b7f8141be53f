import { expect, it } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { PriceRule, PriceVersion } from '../../src/money/price.ts'
import type { Storage } from '../../src/storage/open.ts'
import { closeUnfinished, sweepExpired, sweptEvent, type FindPrice, type SweepDeps, type SweptHold } from '../../src/worker/sweep.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock, type TestClock } from '../support/clock.ts'
import { closingEvent, openRow, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const TARGET = {
  endpoint: 'dashscope/qwen3-max',
  provider: 'dashscope',
  model: 'qwen3-max',
  zone: 'domestic',
  filing: null,
  dialect: 'openai',
  price_version: 'v1',
  cost_version: null,
}
const rule = (name: string, window: string | null, output: bigint): PriceRule => ({
  name,
  when: window === null ? {} : { window },
  tokens: { input: 0n, cached_input: 0n, cache_write: 0n, output },
  calls: { search: 0n, image: 0n },
})
const PRICE: PriceVersion = {
  id: 'v1',
  effective_from: 0,
  rules: [rule('peak', 'peak', 9000n), rule('base', null, 5000n)],
  source: 'test',
  as_of: '2026-01-01',
}
const CALENDAR = {
  windows: new Map([['peak', [{ from_minute: 0, to_minute: 1 }]]]),
  holidays: new Set<string>(),
  workdays: new Set<string>(),
}

interface Swept {
  readonly storage: Storage
  readonly clock: TestClock
  readonly deps: SweepDeps & { readonly price: FindPrice }
  /** How often the price versions were read. */
  readonly prices_read: () => number
  /** Holds 1000 nano-yuan, and with `row` opens it in the journal. */
  open(id: string, row?: boolean): Promise<HoldReceipt>
}

async function start(): Promise<Swept> {
  const clock = testClock()
  const storage = await openTest(tempDir(), { clock })
  atEnd(() => storage.close())
  const { limits, log } = storage
  const grant = {
    id: 'wallet:acme',
    tenant: 'acme',
    unit: 'nano_cny',
    priority: 1,
    expires_at: null,
    created_at: 1,
    models: null,
    weights: null,
  } as const
  await limits.credit({ grant, delta: 10_000n, seq: 1 })
  const price: FindPrice = (id) => (id === 'v1' ? PRICE : null)
  let reads = 0
  const prices = (): Promise<FindPrice> => {
    reads += 1
    return Promise.resolve(price)
  }
  const deps = { log, limits, clock, calendar: CALENDAR, price, prices }
  const known = { v: 1, tenant: 'acme', project: 'web', key: 'key-1', model: 'qwen3-max', rules: [] } as const
  return {
    storage,
    clock,
    deps,
    prices_read: () => reads,
    open: async (id, row = true) => {
      const amounts = {
        lease_ms: 30_000,
        tokens: 100,
        grant_tokens: 100,
        minimum_tokens: 100,
        amount_nano: 1000n,
        minimum_nano: 1000n,
        credit_line_nano: 0n,
      }
      const result = await limits.hold({ ...known, ...amounts, id })
      if (!result.ok) throw new Error(`refused: ${result.refusal.reason}`)
      if (row) await log.open(openRow(id, { hold: result.receipt, targets: [TARGET] }))
      return result.receipt
    },
  }
}

const checkpoint = (id: string, output: number) => ({
  v: 1 as const,
  id,
  at: testClock().now_ms() + 500,
  endpoint: TARGET.endpoint,
  tokens: { input: 10, cached_input: 0, cache_write: 0, output, reasoning: 0 },
  ttfe_ms: 12,
  attempts: [],
})

it('closes a request of this very process from its last checkpoint, and gives back a hold that has no row', async () => {
  const { storage, clock, deps, open } = await start()
  const { limits, log, ledger } = storage
  await open('stuck')
  await open('rowless', false)
  log.checkpoint([checkpoint('stuck', 100)])
  expect(await sweepExpired(deps, new Map())).toBe(0)
  clock.advance(31_000)
  await open('running')
  const waiting = new Map<string, SweptHold>()
  expect(await sweepExpired(deps, waiting)).toBe(2)
  expect(waiting.size).toBe(0)
  await ledger.post()
  expect(await ledger.event('stuck')).toMatchObject({ status: 'swept', amount_nano: 500n, price_rule: 'base', flags: [] })
  expect(await limits.balance('acme')).toMatchObject({ available_nano: 8500n, held_nano: 1000n, open_holds: 1 })
  expect((await ledger.auditFacts()).open_requests).toEqual(['running'])
})

it('what an extension had held pays for what was delivered under it', async () => {
  const { storage, clock, deps, open } = await start()
  const { limits, log, ledger } = storage
  await open('long')
  const terms = { tenant: 'acme', priority: 0, expires_at: null, created_at: 1, models: null, weights: null } as const
  await limits.credit({ grant: { ...terms, id: 'promo', unit: 'nano_cny' }, delta: 5000n, seq: 2 })
  const [extended] = await limits.extend([{ id: 'long', tenant: 'acme', tokens: 1000, amount_nano: 4000n, lease_ms: 30_000 }])
  if (extended?.state !== 'extended') throw new Error('the hold was not extended')
  log.checkpoint([{ ...checkpoint('long', 700), hold: extended.receipt }])
  clock.advance(31_000)
  expect(await sweepExpired(deps, new Map())).toBe(1)
  await ledger.post()
  expect(await ledger.event('long')).toMatchObject({
    amount_nano: 3500n,
    overrun_nano: 0n,
    hold: { amount_nano: 4000n },
    parts: [
      { grant: 'wallet:acme', amount: 1000n },
      { grant: 'promo', amount: 2500n },
    ],
  })
  expect(await limits.balance('acme')).toMatchObject({ available_nano: 11_500n, held_nano: 0n })
})

it('a request that its handler closes during the sweep keeps the price of its handler, and has one event', async () => {
  const { storage, clock, deps, open } = await start()
  const { limits, log, ledger } = storage
  const hold = await open('late')
  log.checkpoint([checkpoint('late', 100)])
  clock.advance(31_000)
  const parts = [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 700n }] as const
  const racing: SweepDeps = {
    ...deps,
    limits: {
      ...limits,
      sweep: (now_ms) => limits.sweep(now_ms),
      release: (id, tenant) => limits.release(id, tenant),
      settle: async (request) => {
        const live = { id: 'late', tenant: 'acme', admitted_at: hold.admitted_at, tokens: 150, amount_nano: 700n, parts }
        expect(await limits.settle(live)).toBe('settled')
        await log.close(closingEvent('late', { hold, amount_nano: 700n, parts }))
        return limits.settle(request)
      },
    },
  }
  expect(await sweepExpired(racing, new Map())).toBe(0)
  await ledger.post()
  expect(await ledger.event('late')).toMatchObject({ revision: 1, status: 'completed', amount_nano: 700n })
  expect(await limits.balance('acme')).toMatchObject({ available_nano: 9300n, held_nano: 0n, open_holds: 0 })
})

it('what could not be read is closed at the next sweep', async () => {
  const { clock, deps, open } = await start()
  await open('stuck')
  clock.advance(31_000)
  const waiting = new Map<string, SweptHold>()
  const broken: SweepDeps = { ...deps, log: { ...deps.log, unfinished: () => Promise.reject(new Error('disk')) } }
  await expect(sweepExpired(broken, waiting)).rejects.toThrow('disk')
  expect(await sweepExpired(deps, waiting)).toBe(1)
})

it('what was settled but could not be written is written at the next sweep, as it was settled, and keeps no other from it', async () => {
  const { storage, clock, deps, open } = await start()
  const { limits, log, ledger } = storage
  for (const id of ['first', 'second']) {
    await open(id)
    log.checkpoint([checkpoint(id, 100)])
  }
  clock.advance(31_000)
  const waiting = new Map<string, SweptHold>()
  const close: SweepDeps['log']['close'] = (event) => (event.id === 'first' ? Promise.reject(new Error('disk')) : log.close(event))
  const unfinished: SweepDeps['log']['unfinished'] = (ids) => log.unfinished(ids)
  await expect(sweepExpired({ ...deps, log: { ...log, close, unfinished } }, waiting)).rejects.toThrow('disk')
  expect([...waiting.keys()]).toEqual(['first'])
  await ledger.post()
  expect(await ledger.event('second')).toMatchObject({ status: 'swept' })
  clock.advance(5000)
  expect(await sweepExpired(deps, waiting)).toBe(1)
  expect(waiting.size).toBe(0)
  await ledger.post()
  const [first, second] = [await ledger.event('first'), await ledger.event('second')]
  expect(first).toMatchObject({ status: 'swept', amount_nano: 500n, ended_at: second?.ended_at })
  expect(await limits.balance('acme')).toMatchObject({ available_nano: 9000n, held_nano: 0n, open_holds: 0 })
  expect((await ledger.auditFacts()).open_requests).toEqual([])
})

it('prices are read only where something is to be closed', async () => {
  const { clock, deps, open, prices_read } = await start()
  expect([await closeUnfinished(deps), await sweepExpired(deps, new Map()), prices_read()]).toEqual([0, 0, 0])
  await open('stuck')
  expect([await sweepExpired(deps, new Map()), prices_read()]).toEqual([0, 0])
  clock.advance(31_000)
  expect([await sweepExpired(deps, new Map()), prices_read()]).toEqual([1, 1])
})

it('a price whose window the calendar has lost is judged by its other rules, and the event says so', async () => {
  const request = { open: openRow('a', { targets: [TARGET] }), last: checkpoint('a', 100) }
  const { deps } = await start()
  const lost = { ...deps, calendar: { ...CALENDAR, windows: new Map() } }
  expect(sweptEvent(request, lost)).toMatchObject({ price_rule: 'base', amount_nano: 500n, flags: ['price_window_missing'] })
  expect(sweptEvent(request, deps)).toMatchObject({ price_rule: 'base', flags: [] })
})
