import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { CLASS_WEIGHTS, FairQueue, type Flow, PRIORITIES, type Priority } from '../../src/upstream/fair-queue.ts'

const seed = Number(process.env['WEIR_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
console.info(`seed ${seed} (WEIR_SEED repeats it)`)

interface Request {
  readonly flow: Flow
  readonly number: number
}
type Step = { readonly do: 'come'; readonly who: number } | { readonly do: 'serve' } | { readonly do: 'leave'; readonly which: number }

const flows = fc
  .array(fc.record({ priority: fc.constantFrom(...PRIORITIES), weight: fc.integer({ min: 1, max: 20 }) }), { minLength: 2, maxLength: 6 })
  .map((list): readonly Flow[] => list.map((flow, index) => ({ ...flow, tenant: `t${index}` })))
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('come' as const), who: fc.nat(5) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('serve' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), which: fc.nat() }) },
)

/** How far two that wait all the time get apart in what they were served per weight, over any part of that time. */
class Gap {
  readonly #weights: readonly [number, number]
  #at = 0
  #least = 0
  #most = 0

  constructor(weights: readonly [number, number]) {
    this.#weights = weights
  }

  served(which: 0 | 1): void {
    this.#at += (which === 0 ? 1 : -1) / this.#weights[which]
    this.#least = Math.min(this.#least, this.#at)
    this.#most = Math.max(this.#most, this.#at)
  }

  restart(): void {
    this.#least = this.#most = this.#at
  }

  expectFair(): void {
    const [a, b] = this.#weights
    expect(this.#most - this.#least).toBeLessThanOrEqual(1 / a + 1 / b + 1e-9)
  }
}

/** Every pair of `names`, watched for as long as both wait. */
class Gaps {
  readonly #pairs: { readonly names: readonly [string, string]; readonly gap: Gap }[] = []

  constructor(weights: ReadonlyMap<string, number>) {
    const names = [...weights]
    for (const [index, [a, weight_a]] of names.entries())
      for (const [b, weight_b] of names.slice(index + 1)) this.#pairs.push({ names: [a, b], gap: new Gap([weight_a, weight_b]) })
  }

  served(name: string): void {
    for (const { names, gap } of this.#pairs) {
      if (names[0] === name) gap.served(0)
      else if (names[1] === name) gap.served(1)
      gap.expectFair()
    }
  }

  look(waits: (name: string) => boolean): void {
    for (const { names, gap } of this.#pairs) if (!names.every(waits)) gap.restart()
  }
}

it('shares by class and weight within one request each, loses nothing, and keeps the order of each tenant', () => {
  fc.assert(
    fc.property(flows, fc.array(step, { minLength: 20, maxLength: 400 }), (known, steps) => {
      const queue = new FairQueue<Request>()
      let waiting: Request[] = []
      let number = 0
      const inClass = (priority: Priority): Gaps =>
        new Gaps(new Map(known.filter((flow) => flow.priority === priority).map(({ tenant, weight }) => [tenant, weight])))
      const within = new Map(PRIORITIES.map((priority) => [priority, inClass(priority)]))
      const between = new Gaps(new Map(Object.entries(CLASS_WEIGHTS)))
      for (const one of steps) {
        if (one.do === 'come') {
          const flow = known[one.who % known.length]
          if (flow === undefined) throw new Error('there is no flow')
          number += 1
          const request = { flow, number }
          queue.add(request, flow)
          waiting.push(request)
        } else if (one.do === 'leave') {
          const request = waiting[one.which % Math.max(1, waiting.length)]
          if (request !== undefined) expect(queue.remove(request, request.flow)).toBe(true)
          waiting = waiting.filter((other) => other !== request)
        } else {
          const served = queue.serve(() => true)
          expect(served === null).toBe(waiting.length === 0)
          if (served === null) continue
          expect(waiting.find(({ flow }) => flow === served.flow)).toBe(served)
          waiting = waiting.filter((other) => other !== served)
          within.get(served.flow.priority)?.served(served.flow.tenant)
          between.served(served.flow.priority)
        }
        expect(queue.size).toBe(waiting.length)
        const tenants = new Set(waiting.map(({ flow }) => flow.tenant))
        const classes = new Set<string>(waiting.map(({ flow }) => flow.priority))
        for (const gaps of within.values()) gaps.look((tenant) => tenants.has(tenant))
        between.look((priority) => classes.has(priority))
      }
    }),
    { seed, numRuns: 500 },
  )
})

it('never leaves a place unused that someone who waits could take', () => {
  fc.assert(
    fc.property(flows, fc.array(fc.tuple(fc.nat(5), fc.boolean()), { minLength: 1, maxLength: 60 }), (known, requests) => {
      const queue = new FairQueue<{ readonly takes: boolean }>()
      for (const [who, takes] of requests) queue.add({ takes }, known[who % known.length] ?? { tenant: 'x', priority: 'low', weight: 1 })
      const takers = requests.filter(([, takes]) => takes).length
      const served = Array.from({ length: requests.length }, () => queue.serve(({ takes }) => takes)).filter((item) => item !== null)
      expect(served).toHaveLength(takers)
      expect(queue.size).toBe(requests.length - takers)
    }),
    { seed },
  )
})

it('gives a class that always waits its share, whatever the others do', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 30 }), (high_tenants, normal_tenants) => {
      const queue = new FairQueue<Priority>()
      const fill = (priority: Priority, tenants: number): void => {
        for (let tenant = 0; tenant < tenants; tenant += 1) queue.add(priority, { tenant: `${priority}-${tenant}`, priority, weight: 20 })
      }
      fill('low', 1)
      fill('high', high_tenants)
      fill('normal', normal_tenants)
      const rounds = 210
      let low = 0
      for (let round = 0; round < rounds; round += 1) {
        const served = queue.serve(() => true)
        if (served === 'low') low += 1
        if (served !== null) fill(served, 1)
      }
      expect(low).toBeGreaterThanOrEqual(rounds / 21 - 1)
      expect(low).toBeLessThanOrEqual(rounds / 21 + 1)
    }),
    { seed },
  )
})

it('does not make up for what one missed that asked for something else', () => {
  const queue = new FairQueue<string>()
  const flow = (tenant: string): Flow => ({ tenant, priority: 'normal', weight: 1 })
  for (let i = 0; i < 10; i += 1) queue.add('picky', flow('a'))
  for (let i = 0; i < 20; i += 1) queue.add('plain', flow('b'))
  for (let i = 0; i < 10; i += 1) expect(queue.serve((item) => item === 'plain')).toBe('plain')
  const then = Array.from({ length: 10 }, () => queue.serve(() => true))
  const picky = then.filter((item) => item === 'picky').length
  expect(picky).toBeGreaterThanOrEqual(5)
  expect(picky).toBeLessThanOrEqual(6)
})

it('remembers a tenant without a waiting request, so that coming one by one is no advantage', () => {
  const queue = new FairQueue<string>()
  for (let i = 0; i < 100; i += 1) queue.add('many', { tenant: 'many', priority: 'normal', weight: 4 })
  let single = 0
  queue.add('single', { tenant: 'single', priority: 'normal', weight: 1 })
  for (let i = 0; i < 50; i += 1) {
    if (queue.serve(() => true) !== 'single') continue
    single += 1
    queue.add('single', { tenant: 'single', priority: 'normal', weight: 1 })
  }
  expect(single).toBeGreaterThanOrEqual(9)
  expect(single).toBeLessThanOrEqual(11)
})
