import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import type { UsageEvent } from '../../src/money/event.ts'
import type { PaymentPart } from '../../src/money/grant.ts'
import { givingEntries } from '../../src/storage/accounts.ts'
import { type AccountBooks, bucketOf, type ChargedEvent, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { noPostgres, startPostgres } from '../support/postgres.ts'
import { propertyRuns, propertySeed } from '../support/seed.ts'
import { charged, numbered, openBooks, postEvents, wrongFactsOf } from '../support/shared-ledger.ts'
import { closingEvent } from '../support/storage.ts'

const TIMEOUT_MS = 10 * 60_000
/** Every run writes to a real database. */
const MOST_RUNS = 500

const amount = fc.integer({ min: 0, max: 900 })
const amounts = fc.tuple(amount, amount, amount)
/** Which of those that it can be done to. */
const which = fc.nat()

/**
 * What may happen to requests of one tenant. Limits charge in the epoch that is open; the events that tell of it wait, and are posted in
 * any order, some of them several times.
 */
const step = fc.oneof(
  /** A settle that limits have applied. */
  { weight: 4, arbitrary: fc.record({ do: fc.constant('settle' as const), amounts }) },
  /** A settle of which limits have heard nothing. */
  { weight: 2, arbitrary: fc.record({ do: fc.constant('settle away' as const), amounts }) },
  /** One that was taken for lost arrives, in the epoch in which it was sent; its event is posted once more. */
  { weight: 3, arbitrary: fc.record({ do: fc.constant('arrive' as const), which }) },
  /** A sweep that limits have charged; whoever served the request has closed it too, without a charge, and may not know that that is void. */
  { weight: 3, arbitrary: fc.record({ do: fc.constant('sweep' as const), amounts, own: amounts, is_void: fc.boolean() }) },
  /** A late settle after a sweep in this epoch: limits replace the sweep's charge in one step. */
  { weight: 3, arbitrary: fc.record({ do: fc.constant('late' as const), which, amounts, heard: fc.boolean() }) },
  /** A charge is taken back, in whichever epoch it was made. */
  { weight: 2, arbitrary: fc.record({ do: fc.constant('withdraw' as const), which, heard: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('give' as const), amount: fc.integer({ min: 1, max: 999 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('new epoch' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('post' as const), order: fc.array(fc.nat(), { minLength: 1, maxLength: 4 }), again: fc.nat() }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('deliver' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer One> ? One : never

const GRANTS = ['wallet', 'pack', 'credit'] as const

function partsOf(tenant: string, of: readonly [number, number, number]): readonly PaymentPart[] {
  const [wallet, pack, credit] = of
  const parts: readonly PaymentPart[] = [
    { grant: `wallet:${tenant}`, unit: 'nano_cny', amount: BigInt(wallet) },
    { grant: `pack:${tenant}`, unit: 'tokens', amount: BigInt(pack) },
    { grant: 'credit', unit: 'nano_cny', amount: BigInt(credit) },
  ]
  return parts.filter((part) => part.amount > 0n)
}

/** What limits believe of one tenant in the epoch that is open. */
class BelievedBalances {
  readonly balances = new Map<string, bigint>()
  applied_seq = 0

  fill(books: AccountBooks | undefined): void {
    this.balances.clear()
    this.applied_seq = books?.applied_seq ?? 0
    for (const { terms, balance } of books?.grants ?? []) this.balances.set(terms.id, balance)
    this.balances.set('credit', -(books?.credit_used_nano ?? 0n))
  }

  change(parts: readonly PaymentPart[], sign: 1n | -1n): void {
    for (const { grant, amount: by } of parts) this.credit(grant, sign * by)
  }

  credit(grant: string, delta: bigint): void {
    this.balances.set(grant, (this.balances.get(grant) ?? 0n) + delta)
  }
}

/** What a request has come to. */
interface Served {
  /** Its first charge by limits, and in which epoch. */
  readonly parts: readonly PaymentPart[]
  epoch: number | null
  readonly by: 'settle' | 'sweep'
  replaced: boolean
}

/** A settle on its way, sent in an epoch. */
interface Underway {
  readonly event: UsageEvent
  readonly sent: number
  /** What it takes back. */
  readonly replaces: readonly PaymentPart[]
  readonly served: Served
}

let tenants = 0
/** The last number of each node. */
const seqs = new Map<string, number>()

class Run {
  readonly #ledger: SharedLedger
  readonly #tenant: string
  readonly #limits = new BelievedBalances()
  readonly #served: Served[] = []
  readonly #waiting: ChargedEvent[] = []
  readonly #posted: ChargedEvent[] = []
  readonly #underway: Underway[] = []
  #epoch = 0
  #given = 0

  constructor(ledger: SharedLedger, tenant: string) {
    this.#ledger = ledger
    this.#tenant = tenant
  }

  async step(one: Step): Promise<void> {
    switch (one.do) {
      case 'settle':
      case 'settle away':
        return this.#settle(one)
      case 'arrive':
        return this.#arrive(one.which)
      case 'sweep':
        return this.#sweep(one)
      case 'late':
        return this.#late(one)
      case 'withdraw':
        return this.#withdraw(one)
      case 'give':
        return await this.#give(one.amount)
      case 'new epoch':
        return await this.newEpoch()
      case 'post':
        return await this.#post(one.order, one.again)
      case 'deliver':
        return await this.deliver()
    }
  }

  /** Limits are emptied and filled from the books. */
  async newEpoch(): Promise<void> {
    const bucket = bucketOf(this.#tenant)
    this.#epoch = await this.#ledger.beginEpoch([bucket])
    const books = await this.#ledger.withBucket(bucket, (locked) => locked.books())
    this.#limits.fill(books.find(({ tenant }) => tenant === this.#tenant))
    expect(await this.#ledger.openEpoch([bucket], this.#epoch)).toBe(true)
  }

  async deliver(): Promise<void> {
    for (const { seq: number, grant, delta } of await this.#ledger.outbox(1000, this.#tenant)) {
      if (number <= this.#limits.applied_seq) continue
      expect(number).toBe(this.#limits.applied_seq + 1)
      this.#limits.credit(grant.id, delta)
      this.#limits.applied_seq = number
    }
    await this.#ledger.delivered(this.#tenant, this.#limits.applied_seq)
  }

  /** Everything is posted and delivered at last: limits believe what the ledger says. */
  async check(): Promise<void> {
    while (this.#waiting.length > 0) await this.#post([0, 0, 0, 0], 0)
    await this.deliver()
    const found = await this.#ledger.withBucket(bucketOf(this.#tenant), (locked) => locked.books())
    const books = found.find(({ tenant }) => tenant === this.#tenant)
    const ledger = new BelievedBalances()
    ledger.fill(books)
    const named = ({ balances }: BelievedBalances) =>
      GRANTS.map((kind) => balances.get(kind === 'credit' ? kind : `${kind}:${this.#tenant}`) ?? 0n)
    expect(named(this.#limits)).toEqual(named(ledger))
    expect(await this.#ledger.outbox(10, this.#tenant)).toEqual([])
  }

  #settle({ do: how, amounts: of }: Extract<Step, { do: 'settle' | 'settle away' }>): void {
    const parts = partsOf(this.#tenant, of)
    const epoch = how === 'settle' ? this.#epoch : null
    if (epoch !== null) this.#limits.change(parts, -1n)
    const served: Served = { parts, epoch, by: 'settle', replaced: false }
    const event = this.#close(this.#served.push(served) - 1, 'n-1', { parts }, epoch)
    if (epoch === null) this.#underway.push({ event, sent: this.#epoch, replaces: [], served })
  }

  #arrive(nth: number): void {
    const able = this.#underway.filter(({ sent }) => sent === this.#epoch)
    const arriving = able[nth % Math.max(1, able.length)]
    if (arriving === undefined) return
    this.#underway.splice(this.#underway.indexOf(arriving), 1)
    const { event, replaces, served } = arriving
    // The first must have arrived before its second can.
    if (event.revision === 2 && served.epoch !== this.#epoch) return
    this.#limits.change(replaces, 1n)
    this.#limits.change(event.parts, -1n)
    if (event.revision === 1) served.epoch = this.#epoch
    this.#waiting.push(charged(event, this.#epoch))
  }

  #sweep({ amounts: of, own, is_void }: Extract<Step, { do: 'sweep' }>): void {
    const parts = partsOf(this.#tenant, of)
    this.#limits.change(parts, -1n)
    const n = this.#served.push({ parts, epoch: this.#epoch, by: 'sweep', replaced: false }) - 1
    this.#close(n, 'n-2', { parts, status: 'swept' }, this.#epoch)
    this.#close(n, 'n-1', { parts: partsOf(this.#tenant, own) }, null, is_void)
  }

  #late({ which: nth, amounts: of, heard }: Extract<Step, { do: 'late' }>): void {
    this.#replace(nth, ({ by, epoch }) => by === 'sweep' && epoch === this.#epoch, partsOf(this.#tenant, of), heard, 'late')
  }

  #withdraw({ which: nth, heard }: Extract<Step, { do: 'withdraw' }>): void {
    this.#replace(nth, ({ by, epoch }) => by === 'settle' && epoch !== null, [], heard, 'withdrawn')
  }

  #replace(nth: number, can: (served: Served) => boolean, parts: readonly PaymentPart[], heard: boolean, flag: string): void {
    const able = this.#served.filter((served) => can(served) && !served.replaced)
    const served = able[nth % Math.max(1, able.length)]
    if (served === undefined) return
    served.replaced = true
    if (heard) {
      this.#limits.change(served.parts, 1n)
      this.#limits.change(parts, -1n)
    }
    const second = this.#close(this.#served.indexOf(served), 'n-1', { parts, revision: 2, flags: [flag] }, heard ? this.#epoch : null)
    if (!heard) this.#underway.push({ event: second, sent: this.#epoch, replaces: served.parts, served })
  }

  #close(n: number, node: string, of: Partial<UsageEvent>, epoch: number | null, is_void = false): UsageEvent {
    const seq = (seqs.get(node) ?? 0) + 1
    seqs.set(node, seq)
    const names = { tenant: this.#tenant, project: 'p', key: 'k', hold: { ...closingEvent('x').hold, parts: [] } }
    const event = numbered(`${this.#tenant}-${n}`, seq, { ...names, node, ...of, amount_nano: 0n, cost_nano: 0n })
    this.#waiting.push(charged(event, epoch, is_void ? { void: true } : {}))
    return event
  }

  async #give(of: number): Promise<void> {
    this.#given += 1
    const grant = { id: `wallet:${this.#tenant}`, tenant: this.#tenant, kind: 'wallet', unit: 'nano_cny' } as const
    const entries = givingEntries(grant, BigInt(of))
    await this.#ledger.transact({ id: `${this.#tenant}-${this.#given}`, at: 1, kind: 'top_up', note: '', entries })
  }

  async #post(order: readonly number[], again: number): Promise<void> {
    const batch = order.flatMap((place) => (this.#waiting.length === 0 ? [] : this.#waiting.splice(place % this.#waiting.length, 1)))
    const before = this.#posted[again % Math.max(1, this.#posted.length)]
    this.#posted.push(...batch)
    await postEvents(this.#ledger, before === undefined ? batch : [...batch, before], this.#tenant)
  }
}

describe.skipIf(noPostgres !== null)('outbox', () => {
  let ledger: SharedLedger
  beforeAll(async () => {
    ledger = (await openBooks(await startPostgres())).ledger
  })

  it(
    'limits come to what the ledger says: whatever they were charged, in whichever epoch, and in whatever order it is posted',
    async () => {
      const property = fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), async (steps) => {
        tenants += 1
        const run = new Run(ledger, `t${tenants}`)
        await run.newEpoch()
        for (const one of steps) await run.step(one)
        await run.check()
      })
      await fc.assert(property, { seed: propertySeed(), numRuns: Math.min(propertyRuns(120), MOST_RUNS) })
      for (const [node, last_seq] of seqs) await ledger.beat({ node, roles: [], version: '', last_seq, unposted: 0, stopped: true })
      expect(await wrongFactsOf(ledger)).toEqual({})
    },
    TIMEOUT_MS,
  )
})
