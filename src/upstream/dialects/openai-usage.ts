import type { TokenUsage } from '../../money/usage.ts'

/** Counts above this are nonsense, not usage. */
const MAX_TOKENS = 1_000_000_000

type Fields = Readonly<Record<string, unknown>>

/**
 * Usage as an upstream reports it, split into token classes that overlap nowhere. Null for anything that is not a report: nothing,
 * `{}`, and counts that are not whole numbers of a sane size (a number in quotes is one). Explicit zeros are a report.
 *
 * Cached tokens are inside `prompt_tokens` with OpenAI, DeepSeek (`prompt_cache_hit_tokens`), Qwen (which also has
 * `cache_creation_input_tokens` inside) and Moonshot (`cached_tokens`), and beside `input_tokens` in Anthropic's form
 * (`cache_read_input_tokens`, `cache_creation_input_tokens`). Where a total is given that only adds up if cached or reasoning
 * tokens are beside the others, they are. Sources: the providers' API references as of 2026.
 */
export function readUsage(value: unknown): TokenUsage | null {
  if (!isFields(value)) return null
  const usage = exclusive(value) ? readExclusive(value) : readInclusive(value)
  return usage === null || Object.values(usage).some((count) => Number.isNaN(count)) ? null : usage
}

/**
 * What embeddings and reranking used: a total alone is the input. Also Cohere's and SiliconFlow's `meta.tokens`.
 *
 * @param answer the whole body
 */
export function readInputUsage(answer: Fields): TokenUsage | null {
  const reported = readUsage(answer['usage'])
  if (reported !== null) return reported
  const meta = firstFields(answer['meta'])
  const tokens = firstFields(meta['tokens'], meta['billed_units'])
  const total = countOf(tokens['input_tokens'], firstFields(answer['usage'])['total_tokens'])
  return total === null || Number.isNaN(total) ? null : { input: total, cached_input: 0, cache_write: 0, output: 0, reasoning: 0 }
}

/** The same in OpenAI's form, for a client that could not read the upstream's. */
export function usageJson(usage: TokenUsage): Fields {
  const prompt_tokens = usage.input + usage.cached_input + usage.cache_write
  return {
    prompt_tokens,
    completion_tokens: usage.output,
    total_tokens: prompt_tokens + usage.output,
    prompt_tokens_details: { cached_tokens: usage.cached_input },
    completion_tokens_details: { reasoning_tokens: usage.reasoning },
  }
}

/** Whether official SDKs find their numbers in this usage object. */
export function isStandardUsage({ prompt_tokens, completion_tokens, total_tokens }: Fields): boolean {
  return typeof prompt_tokens === 'number' && typeof completion_tokens === 'number' && typeof (total_tokens ?? 0) === 'number'
}

/** Anthropic's form: cached tokens are counted beside the input. */
function exclusive(value: Fields): boolean {
  const has_cache_fields = present(value['cache_read_input_tokens']) || present(value['cache_creation_input_tokens'])
  return has_cache_fields && present(value['input_tokens']) && !present(value['prompt_tokens'])
}

function readExclusive(value: Fields): TokenUsage {
  const output = countOf(value['output_tokens'], value['completion_tokens']) ?? 0
  return {
    input: countOf(value['input_tokens']) ?? 0,
    cached_input: countOf(value['cache_read_input_tokens']) ?? 0,
    cache_write: countOf(value['cache_creation_input_tokens']) ?? 0,
    output,
    reasoning: Math.min(reasoningOf(value), output),
  }
}

function readInclusive(value: Fields): TokenUsage | null {
  const details = firstFields(value['prompt_tokens_details'], value['input_tokens_details'])
  const hit = countOf(details['cached_tokens'], value['prompt_cache_hit_tokens'], value['cached_tokens'])
  const given = countOf(value['prompt_tokens'], value['input_tokens']) ?? hitsAndMisses(value)
  if (given === null) return null
  const cached = hit ?? 0
  const said_output = countOf(value['completion_tokens'], value['output_tokens']) ?? 0
  const said_reasoning = reasoningOf(value)
  const total = countOf(value['total_tokens'])
  const cached_beside = cached > 0 && total === given + cached + said_output
  const reasoning_beside = said_reasoning > 0 && total === given + said_output + said_reasoning
  const prompt = cached_beside ? given + cached : given
  const written = countOf(details['cache_creation_input_tokens'], value['cache_creation_input_tokens']) ?? 0
  const cached_input = Math.min(cached, prompt)
  const cache_write = Math.min(written, prompt - cached_input)
  const output = reasoning_beside ? said_output + said_reasoning : said_output
  return { input: prompt - cached_input - cache_write, cached_input, cache_write, output, reasoning: Math.min(said_reasoning, output) }
}

/** DeepSeek says both; their sum is the prompt. */
function hitsAndMisses(value: Fields): number | null {
  const hit = countOf(value['prompt_cache_hit_tokens'])
  const miss = countOf(value['prompt_cache_miss_tokens'])
  return hit === null || miss === null ? null : hit + miss
}

/** SGLang says it at the top. */
function reasoningOf(value: Fields): number {
  const details = firstFields(value['completion_tokens_details'], value['output_tokens_details'])
  return countOf(details['reasoning_tokens'], value['reasoning_tokens']) ?? 0
}

/** The first that is given: null if none is, NaN if it is not a count. */
function countOf(...candidates: unknown[]): number | null {
  const value = candidates.find(present)
  if (value === undefined) return null
  const count = typeof value === 'string' && /^\d{1,10}$/.test(value) ? Number(value) : value
  return typeof count === 'number' && Number.isInteger(count) && count >= 0 && count <= MAX_TOKENS ? count : Number.NaN
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
