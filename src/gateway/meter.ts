import { NO_CALLS, NO_TOKENS, type PaidCalls, type TokenUsage, type UsageSource } from '../money/usage.ts'
import type { Observation } from '../upstream/dialects/dialect.ts'
import type { Progress } from './progress.ts'

/** What a request is billed for, and where the figures come from. */
export interface Metered {
  readonly tokens: TokenUsage
  readonly calls: PaidCalls
  readonly source: UsageSource
}

/**
 * The billed usage of a request that has ended. Pure.
 * Nothing delivered bills nothing, unless the answer was drained to its end by the tenant's own policy.
 * A report of the upstream counts when the answer finished, or when the upstream counts as it goes; else the delivered text is estimated.
 * An early report that stayed far behind the text is not one that goes along.
 */
export function meter(prompt_tokens: number, progress: Progress): Metered {
  const observation = progress.observe?.() ?? null
  if (observation === null || (!progress.delivered && !progress.drained)) return { tokens: NO_TOKENS, calls: NO_CALLS, source: 'estimated' }
  const reported = trustedReport(observation)
  const source = reported === null ? 'estimated' : progress.drained ? 'drained' : 'reported'
  return { tokens: reported ?? estimated(prompt_tokens, observation), calls: observation.calls, source }
}

/** Tokens delivered so far, for a checkpoint. */
export function deliveredTokens(prompt_tokens: number, progress: Progress): TokenUsage {
  const observation = progress.observe?.() ?? null
  return observation === null || !progress.delivered ? NO_TOKENS : estimated(prompt_tokens, observation)
}

function trustedReport(observation: Observation): TokenUsage | null {
  const { reported } = observation
  if (reported === null || observation.finished) return reported
  return reported.output > 0 && reported.output * 2 >= observation.estimated_output ? reported : null
}

function estimated(prompt_tokens: number, observation: Observation): TokenUsage {
  return {
    input: prompt_tokens,
    cached_input: 0,
    cache_write: 0,
    output: observation.estimated_output,
    reasoning: Math.min(observation.estimated_reasoning, observation.estimated_output),
  }
}
