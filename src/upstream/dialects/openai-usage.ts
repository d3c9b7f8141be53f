import type { TokenUsage } from '../../money/usage.ts'

/** Counts above this are nonsense, not usage. */
const MAX_TOKENS = 1_000_000_000

type Fields = Readonly<Record<string, unknown>>

/**
 * Usage as an OpenAI-compatible upstream reports it, split into token classes. Null for anything that is not a report: nothing,
 * `{}`, and counts that are not whole numbers of a sane size. Explicit zeros are a report.
 *
 * Cached tokens are inside `prompt_tokens` with OpenAI, DeepSeek (`prompt_cache_hit_tokens`), Qwen (which also has
 * `cache_creation_input_tokens` inside) and Moonshot (`cached_tokens`), and beside `input_tokens` in Anthropic's form
 * (`cache_read_input_tokens`, `cache_creation_input_tokens`). Sources: the providers' API references as of 2026.
 */
export function readUsage(value: unknown): TokenUsage | null {
  if (!isFields(value)) return null
  const usage = exclusive(value) ? readExclusive(value) : readInclusive(value)
  return usage === null || Object.values(usage).some((count) => Number.isNaN(count)) ? null : usage
}

/** Anthropic's form: cached tokens are counted beside the input. */
function exclusive(value: Fields): boolean {
  const has_cache_fields = present(value['cache_read_input_tokens']) || present(value['cache_creation_input_tokens'])
  return has_cache_fields && present(value['input_tokens'])
}

function readExclusive(value: Fields): TokenUsage {
  const output = countOf(value['output_tokens'], value['completion_tokens']) ?? 0
  return {
    input: countOf(value['input_tokens']) ?? 0,
    cached_input: countOf(value['cache_read_input_tokens']) ?? 0,
    cache_write: countOf(value['cache_creation_input_tokens']) ?? 0,
    output,
    reasoning: reasoningOf(value, output),
  }
}

function readInclusive(value: Fields): TokenUsage | null {
  const prompt = countOf(value['prompt_tokens'], value['input_tokens'])
  if (prompt === null) return null
  const details = firstFields(value['prompt_tokens_details'], value['input_tokens_details'])
  const cached = countOf(details['cached_tokens'], value['prompt_cache_hit_tokens'], value['cached_tokens']) ?? 0
  const written = countOf(details['cache_creation_input_tokens'], value['cache_creation_input_tokens']) ?? 0
  const cached_input = Math.min(cached, prompt)
  const cache_write = Math.min(written, prompt - cached_input)
  const output = countOf(value['completion_tokens'], value['output_tokens']) ?? 0
  return { input: prompt - cached_input - cache_write, cached_input, cache_write, output, reasoning: reasoningOf(value, output) }
}

function reasoningOf(value: Fields, output: number): number {
  const details = firstFields(value['completion_tokens_details'], value['output_tokens_details'])
  return Math.min(countOf(details['reasoning_tokens']) ?? 0, output)
}

/** The first that is given: null if none is, NaN if it is not a count. */
function countOf(...candidates: unknown[]): number | null {
  const value = candidates.find(present)
  if (value === undefined) return null
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_TOKENS ? value : Number.NaN
}

function firstFields(...candidates: unknown[]): Fields {
  return candidates.find(isFields) ?? {}
}

function present(value: unknown): boolean {
  return value !== undefined && value !== null
}

/** A JSON object, neither null nor an array. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
