import type { Turns } from '../ports.ts'

/** {@link Turns} of one process. Waiting is bounded by the admin port's connections. */
export function createTurns(): Turns {
  const turns = new Map<string, Promise<unknown>>()
  return {
    run: async (name, work) => {
      const turn = (turns.get(name) ?? Promise.resolve()).then(work, work)
      turns.set(name, turn)
      try {
        return await turn
      } finally {
        if (turns.get(name) === turn) turns.delete(name)
      }
    },
  }
}
