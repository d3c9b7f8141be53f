import type { Changes } from '../ports.ts'

/**
 * Changes within this process. Listeners run before `publish` resolves, in the order they subscribed; one that throws does
 * not keep the others from hearing, and makes `publish` reject with an `AggregateError`.
 */
export function createMemoryChanges(): Changes {
  const listeners = new Set<(seq: number) => void>()
  return {
    publish: async (seq) => {
      const errors: unknown[] = []
      for (const listener of listeners) {
        try {
          listener(seq)
        } catch (error) {
          errors.push(error)
        }
      }
      if (errors.length > 0) throw new AggregateError(errors, `${errors.length} listeners of change ${seq} failed`)
    },
    version: () => Promise.resolve(null),
    subscribe: (listener) => {
      const entry = (seq: number): void => listener(seq)
      listeners.add(entry)
      return () => listeners.delete(entry)
    },
  }
}
