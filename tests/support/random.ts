/** A stream of random numbers that a seed repeats. */
export interface Random {
  /** In [0, 1). */
  next(): number
  /** A whole number from `least` to `most`, both included. */
  whole(least: number, most: number): number
  pick<T>(items: readonly T[]): T
}

/** Mulberry32 by Tommy Ettinger: 32 bits of state, good enough to choose what a test does. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  const whole = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1))
  return {
    next,
    whole,
    pick: (items) => {
      const item = items[whole(0, items.length - 1)]
      if (item === undefined) throw new Error('nothing to pick from')
      return item
    },
  }
}

/** The seed of a fault test: `$WEIR_FAULT_SEED`, else a new one. Printed, so that what was done can be done again. */
export function faultSeed(): number {
  const given = process.env['WEIR_FAULT_SEED']
  const seed = given === undefined ? Math.floor(Math.random() * 0x7fffffff) : Number(given)
  if (!Number.isInteger(seed)) throw new Error(`WEIR_FAULT_SEED must be an integer, not ${given}`)
  console.info(`fault seed ${seed} (WEIR_FAULT_SEED=${seed} runs it again)`)
  return seed
}

/** How many rounds a test of repeated kills makes: `$WEIR_FAULT_ROUNDS`, else 10. */
export function faultRounds(): number {
  const rounds = Number(process.env['WEIR_FAULT_ROUNDS'] ?? 10)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('WEIR_FAULT_ROUNDS must be a whole number from 1 on')
  return rounds
}
