/** Classes in which tenants wait, from the first served to the last. */
export const PRIORITIES = ['high', 'normal', 'low'] as const
export type Priority = (typeof PRIORITIES)[number]

/**
 * Share of each class while all of them wait: 16, 4 and 1 of 21. A class is never starved: while anyone of it waits, at least one of 21
 * places is its own.
 */
export const CLASS_WEIGHTS: Readonly<Record<Priority, number>> = { high: 16, normal: 4, low: 1 }

/** Tenants that are remembered although none of their requests waits, so that one that comes back is not served before its turn. */
const MAX_REMEMBERED = 1000

/** Whose turn a request waits for. */
export interface Flow {
  readonly tenant: string
  readonly priority: Priority
  /** Parts of its class's places; at least 1. */
  readonly weight: number
}

/** Requests of one tenant. */
interface TenantTurns<Item> {
  /** Virtual time from which the next request may be served. */
  tag: number
  weight: number
  readonly items: Item[]
}

/** Tenants of one class. */
interface ClassTurns<Item> {
  readonly weight: number
  tag: number
  /** Virtual time: the tag of the request that was served last. */
  now: number
  waiting: number
  readonly tenants: Map<string, TenantTurns<Item>>
}

/**
 * Start-time fair queueing (Goyal, Vin and Cheng 1996) in two levels: classes share by {@link CLASS_WEIGHTS}, the tenants of a class by
 * their weights, and one tenant's requests go in the order in which they came. Every request counts 1, whatever its size. Of two that
 * wait all the time, what each was served divided by its weight differs by at most 1/weight + 1/weight.
 *
 * It keeps no time and waits for nothing: `serve` is called when there may be room.
 */
export class FairQueue<Item> {
  readonly #classes: Readonly<Record<Priority, ClassTurns<Item>>> = {
    high: emptyClass(CLASS_WEIGHTS.high),
    normal: emptyClass(CLASS_WEIGHTS.normal),
    low: emptyClass(CLASS_WEIGHTS.low),
  }
  #now = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  add(item: Item, { tenant, priority, weight }: Flow): void {
    const group = this.#classes[priority]
    if (group.waiting === 0) group.tag = Math.max(group.tag, this.#now)
    const turns = group.tenants.get(tenant) ?? { tag: 0, weight, items: [] }
    if (turns.items.length === 0) turns.tag = Math.max(turns.tag, group.now)
    turns.weight = weight
    turns.items.push(item)
    group.tenants.set(tenant, turns)
    group.waiting += 1
    this.#size += 1
  }

  /** Takes out a request that waits no more. False if it is not there. */
  remove(item: Item, { tenant, priority }: Pick<Flow, 'tenant' | 'priority'>): boolean {
    const group = this.#classes[priority]
    const turns = group.tenants.get(tenant)
    const at = turns?.items.indexOf(item) ?? -1
    if (turns === undefined || at < 0) return false
    turns.items.splice(at, 1)
    group.waiting -= 1
    this.#size -= 1
    return true
  }

  /**
   * Takes out the first request, in fair order, that `take` accepts. One that is passed over because it asks for something else is the
   * first again the next time, and what it missed is not made up for.
   */
  serve(take: (item: Item) => boolean): Item | null {
    for (const group of this.#classesInTurn()) {
      for (const turns of tenantsInTurn(group)) {
        const at = turns.items.findIndex(take)
        if (at < 0) continue
        const [item] = turns.items.splice(at, 1)
        this.#charge(group, turns)
        return item ?? null
      }
    }
    return null
  }

  #charge(group: ClassTurns<Item>, turns: TenantTurns<Item>): void {
    this.#size -= 1
    group.waiting -= 1
    this.#now = Math.max(this.#now, group.tag)
    group.tag = this.#now + 1 / group.weight
    group.now = Math.max(group.now, turns.tag)
    turns.tag = group.now + 1 / turns.weight
    if (group.tenants.size > MAX_REMEMBERED + group.waiting) forget(group)
  }

  #classesInTurn(): readonly ClassTurns<Item>[] {
    const waiting = PRIORITIES.map((priority) => this.#classes[priority]).filter((group) => group.waiting > 0)
    return waiting.length < 2 ? waiting : waiting.toSorted((a, b) => a.tag - b.tag)
  }
}

function emptyClass<Item>(weight: number): ClassTurns<Item> {
  return { weight, tag: 0, now: 0, waiting: 0, tenants: new Map() }
}

function tenantsInTurn<Item>(group: ClassTurns<Item>): readonly TenantTurns<Item>[] {
  const waiting = [...group.tenants.values()].filter(({ items }) => items.length > 0)
  return waiting.length < 2 ? waiting : waiting.toSorted((a, b) => a.tag - b.tag)
}

/** First those whose turn has come anyway, then those that came first. */
function forget<Item>(group: ClassTurns<Item>): void {
  const idle = [...group.tenants].filter(([, { items }]) => items.length === 0)
  for (const [tenant, { tag }] of idle) if (tag <= group.now) group.tenants.delete(tenant)
  for (const [tenant] of idle) {
    if (group.tenants.size <= MAX_REMEMBERED / 2 + group.waiting) break
    group.tenants.delete(tenant)
  }
}
