import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { PaymentPart } from '../../src/money/grant.ts'
import { splitPayment } from '../../src/money/split.ts'
import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import { propertySeed } from '../support/seed.ts'
import { testClock } from '../support/storage.ts'

const GRANTS = ['promo', 'pack', 'wallet'] as const
const LINE = 500n

type Step =
  | { readonly do: 'hold'; readonly id: number; readonly amount: number; readonly minimum: number }
  | { readonly do: 'extend'; readonly id: number; readonly amount: number }
  | { readonly do: 'settle'; readonly id: number; readonly amount: number; readonly swept: boolean }
  | { readonly do: 'release'; readonly id: number }
  | { readonly do: 'sweep'; readonly after_ms: number }
  | { readonly do: 'credit'; readonly grant: number; readonly amount: number }

const id = fc.integer({ min: 0, max: 12 })
const amount = fc.integer({ min: 0, max: 900 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('hold' as const), id, amount, minimum: amount }),
  fc.record({ do: fc.constant('extend' as const), id, amount }),
  fc.record({ do: fc.constant('settle' as const), id, amount, swept: fc.boolean() }),
  fc.record({ do: fc.constant('release' as const), id }),
  fc.record({ do: fc.constant('sweep' as const), after_ms: fc.integer({ min: 0, max: 20_000 }) }),
  fc.record({ do: fc.constant('credit' as const), grant: fc.integer({ min: 0, max: 2 }), amount: fc.integer({ min: 0, max: 2000 }) }),
)

/** What the driver must agree with, kept in the plainest way: sums over lists. */
class Model {
  credited = 0n
  readonly open = new Map<string, HoldReceipt>()
  readonly charged = new Map<string, readonly PaymentPart[]>()
  readonly swept = new Set<string>()

  get held(): bigint {
    return sum([...this.open.values()].flatMap((receipt) => receipt.parts))
  }
  get spent(): bigint {
    return sum([...this.charged.values()].flat())
  }
}

function sum(parts: readonly PaymentPart[]): bigint {
  return parts.reduce((total, part) => total + part.amount, 0n)
}

it('no overdraft by concurrency: credited = available + held + spent after any sequence, and no admission passes the credit line', async () => {
  const seed = propertySeed()
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
      const run = new Run()
      for (const one of steps) await run.step(one)
    }),
    { seed, numRuns: 400 },
  )
})

class Run {
  readonly clock = testClock()
  readonly limits = createMemoryLimits({ clock: this.clock })
  readonly model = new Model()
  seq = 0

  async step(one: Step): Promise<void> {
    const before = await this.limits.balance('acme')
    const changed = await this.apply(one)
    const after = await this.limits.balance('acme')
    if (!changed) expect(after).toEqual(before)
    expect(after.available_nano + this.model.held + this.model.spent).toBe(this.model.credited)
    expect(after.held_nano).toBe(this.model.held)
    expect(after.open_holds).toBe(this.model.open.size)
  }

  /** Returns false where nothing may have changed. */
  async apply(one: Step): Promise<boolean> {
    switch (one.do) {
      case 'hold':
        return this.hold(`h${one.id}`, BigInt(one.amount), BigInt(Math.min(one.minimum, one.amount)))
      case 'extend':
        return this.extend(`h${one.id}`, BigInt(one.amount))
      case 'settle':
        return this.settle(`h${one.id}`, BigInt(one.amount), one.swept)
      case 'release': {
        await this.limits.release(`h${one.id}`, 'acme')
        return this.release(`h${one.id}`)
      }
      case 'sweep': {
        this.clock.advance(one.after_ms)
        for (const receipt of await this.limits.sweep(this.clock.now_ms())) this.model.swept.add(receipt.id)
        return false
      }
      case 'credit':
        return this.credit(one.grant, BigInt(one.amount))
    }
  }

  async hold(hold: string, wanted: bigint, minimum: bigint): Promise<boolean> {
    const request = {
      v: 1,
      id: hold,
      tenant: 'acme',
      project: 'web',
      key: 'k',
      model: 'm',
      lease_ms: 10_000,
      tokens: 10,
      grant_tokens: 10,
      minimum_tokens: 10,
      rules: [],
    } as const
    const result = await this.limits.hold({ ...request, amount_nano: wanted, minimum_nano: minimum, credit_line_nano: LINE })
    const known = this.model.open.has(hold) || this.model.charged.has(hold)
    if (!result.ok || known) return false
    expect(result.receipt.amount_nano).toBe(sum(result.receipt.parts))
    expect(result.receipt.amount_nano >= minimum && result.receipt.amount_nano <= wanted).toBe(true)
    this.model.open.set(hold, result.receipt)
    await this.withinLine(wanted)
    return true
  }

  async extend(hold: string, wanted: bigint): Promise<boolean> {
    const [result] = await this.limits.extend([{ id: hold, tenant: 'acme', tokens: 10, amount_nano: wanted, lease_ms: 10_000 }])
    const open = this.model.open.has(hold) && !this.model.swept.has(hold)
    expect(result?.state === 'lapsed').toBe(!open)
    if (result?.state !== 'extended') return false
    const more = result.receipt.amount_nano > (this.model.open.get(hold)?.amount_nano ?? 0n)
    this.model.open.set(hold, result.receipt)
    if (more) await this.withinLine(wanted)
    return true
  }

  async settle(hold: string, used: bigint, swept: boolean): Promise<boolean> {
    const receipt = this.model.open.get(hold)
    const parts =
      receipt === undefined ? [wallet(used)] : splitPayment(receipt, { amount_nano: used, tokens: 10, requests: 1 }, 'wallet').parts
    const state = await this.limits.settle({
      id: hold,
      tenant: 'acme',
      admitted_at: this.clock.now_ms(),
      tokens: 10,
      amount_nano: used,
      parts,
      ...(swept ? { swept } : {}),
    })
    if (state === 'duplicate') {
      expect(receipt === undefined || (swept && !this.model.swept.has(hold))).toBe(true)
      return false
    }
    expect(state).toBe(receipt === undefined ? 'late' : 'settled')
    if (receipt === undefined) expect(this.model.swept.has(hold)).toBe(true)
    if (state === 'late') this.model.swept.delete(hold)
    this.model.open.delete(hold)
    this.model.charged.set(hold, parts)
    return true
  }

  release(hold: string): boolean {
    if (!this.model.open.delete(hold)) return false
    this.model.charged.set(hold, [])
    return true
  }

  async credit(grant: number, delta: bigint): Promise<boolean> {
    this.seq += 1
    const terms = {
      id: GRANTS[grant] ?? 'wallet',
      tenant: 'acme',
      unit: 'nano_cny',
      priority: grant,
      expires_at: null,
      created_at: 1,
      models: null,
      weights: null,
    } as const
    expect(await this.limits.credit({ grant: terms, delta, seq: this.seq })).toBe('applied')
    this.model.credited += delta
    return true
  }

  /** Something that costs money was just admitted. */
  async withinLine(wanted: bigint): Promise<void> {
    if (wanted === 0n) return
    expect((await this.limits.balance('acme')).available_nano >= -LINE).toBe(true)
  }
}

function wallet(used: bigint): PaymentPart {
  return { grant: 'wallet', unit: 'nano_cny', amount: used }
}
