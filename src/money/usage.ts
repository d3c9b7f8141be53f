/**
 * Token classes of one answer. `input` excludes `cached_input` and `cache_write`: the dialect has already split them,
 * whichever way the provider counts. `reasoning` is part of `output` and only reported apart.
 */
export interface TokenUsage {
  readonly input: number
  readonly cached_input: number
  readonly cache_write: number
  readonly output: number
  readonly reasoning: number
}

/** Counts of calls that are paid one by one. */
export interface PaidCalls {
  readonly search: number
  readonly image: number
}

/** Where the figures of an event come from. */
export type UsageSource = 'reported' | 'drained' | 'estimated' | 'swept'

export const NO_TOKENS: TokenUsage = Object.freeze({ input: 0, cached_input: 0, cache_write: 0, output: 0, reasoning: 0 })
export const NO_CALLS: PaidCalls = Object.freeze({ search: 0, image: 0 })

/** All tokens that limits count: every class once (reasoning is inside output). */
export function totalTokens(usage: TokenUsage): number {
  return usage.input + usage.cached_input + usage.cache_write + usage.output
}
