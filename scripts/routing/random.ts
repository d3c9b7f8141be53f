/** A stream of random numbers that a seed repeats. */
export interface Random {
  /** In [0, 1). */
  next(): number
  /** Puts the items in another order, in place. */
  shuffle<T>(items: T[]): void
  pick<T>(items: readonly T[]): T
}

/** Mulberry32: 32 bits of state. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    shuffle(items) {
      for (let at = items.length - 1; at > 0; at--) {
        const other = Math.floor(next() * (at + 1))
        const item = items[at]
        items[at] = items[other] as typeof item & {}
        items[other] = item as typeof item & {}
      }
    },
    pick(items) {
      const item = items[Math.floor(next() * items.length)]
      if (item === undefined) throw new Error('nothing to pick from')
      return item
    },
  }
}
