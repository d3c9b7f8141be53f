import { WeirError } from '../base/errors.ts'
import type { Model, PriceBook } from '../config/model.ts'
import {
  ATTACHMENT_TOKENS,
  estimateEmbeddingsInput,
  estimateRerankInput,
  measureChatPrompt,
  tokensOfAttachments,
  type Tokenizer,
} from '../money/estimate.ts'
import type { HoldReceipt } from '../money/event.ts'
import { moneyOfParts, tokensOfParts } from '../money/grant.ts'
import { dearest, priceAt, type PriceVersion } from '../money/price.ts'
import { profiledMembers } from './profile.ts'
import type { ReadRequest } from './request.ts'
import type { Route } from './route.ts'

/** Upper bounds of tokens and money for one request, and the prices that will be charged. Pure. */
export interface Quote {
  readonly prompt_tokens: number
  /** Prompt tokens with the safety margin: what is reserved. */
  readonly prompt_bound: number
  /** Output tokens the request may make per choice, by the caller's cap or the model's. */
  readonly output_limit: number
  /** Output tokens reserved now per choice: the limit, or a slice of it for a stream. */
  readonly output_held: number
  readonly choices: number
  /** Tokens counted against rate limits and token windows at admission. */
  readonly tokens: number
  /** Upper bound of tokens: what `tokens` grants must cover to pay for the request. */
  readonly grant_tokens: number
  /** The same for the least that still makes sense. */
  readonly minimum_tokens: number
  readonly amount_nano: bigint
  /** Least that still makes sense: below it the request is refused, between it and `amount_nano` it is capped. */
  readonly minimum_nano: bigint
  readonly price: PriceVersion
  readonly tokenizer: Tokenizer
}

const PROMPT_MARGIN_PERCENT = 125
/** A capped answer shorter than this helps nobody: refuse instead. */
const SMALLEST_CAP_TOKENS = 16
/** Output reserved where neither the caller nor the catalogue knows a limit; a longer answer is paid for as an overrun. */
const UNLIMITED_OUTPUT_TOKENS = 16_384
/** Output that rate limits expect of a request without `max_tokens`. */
const UNASKED_OUTPUT_TOKENS = 256

/**
 * Hold = text estimate × 1.25 + attachments at the model's bounds + choices × output cap, at the dearest rule of the price in force.
 * Streams reserve one slice at a time. All candidate targets serve one model, so one sell price bounds them all.
 *
 * @throws WeirError `context_length_exceeded` if 0.8 × estimate is beyond the model's context; `no_upstream_available` without a price in force
 */
export function quoteFor(
  request: ReadRequest,
  route: Pick<Route, 'model' | 'targets'>,
  prices: PriceBook,
  slice_tokens: number,
  now_ms: number,
  measure: MeasureChat = measuring(request),
): Quote {
  const { facts } = request
  const { model } = route
  const price = priceAt(prices.sell.get(model.id) ?? [], now_ms)
  if (price === null) throw new WeirError('no_upstream_available', { values: { model: model.id } })
  const tokenizer = tokenizerOf(route)
  const { prompt_tokens, prompt_bound } = measurePrompt(request, model, tokenizer, measure)
  // A reranker's context bounds one document with the query, not all of them.
  if (facts.protocol !== 'rerank' && isTooLong(prompt_tokens, model)) throw contextExceeded(model, prompt_tokens)
  const output_limit = facts.protocol === 'chat_completions' ? outputLimit(facts.max_tokens, model) : 0
  const slice = Math.min(output_limit, slice_tokens)
  const output_held = facts.stream ? slice : output_limit
  const smallest = Math.min(output_held, facts.max_tokens === null ? SMALLEST_CAP_TOKENS : output_held)
  const cost = (output: number): bigint => dearest(price, { input: prompt_bound, output: output * facts.n })
  return {
    prompt_tokens,
    prompt_bound,
    output_limit,
    output_held,
    choices: facts.n,
    // Rate limits count what was asked for, up to a slice, not a model's maximum nobody asked for: a longer answer leaves a debt.
    tokens: prompt_bound + facts.n * Math.min(slice, facts.max_tokens ?? UNASKED_OUTPUT_TOKENS),
    grant_tokens: prompt_bound + output_held * facts.n,
    minimum_tokens: prompt_bound + (facts.stream ? output_held : smallest) * facts.n,
    amount_nano: cost(output_held),
    minimum_nano: cost(facts.stream ? output_held : smallest),
    price,
    tokenizer,
  }
}

/** The caller's cap, at most the model's; where nobody limits an answer, what most of them stay below. */
function outputLimit(asked: number | null, { max_output_tokens, context_tokens }: Model): number {
  const most = max_output_tokens ?? context_tokens
  return Math.min(asked ?? max_output_tokens ?? UNLIMITED_OUTPUT_TOKENS, most)
}

/** What a hold must be to cover `output_tokens` of this request in all. Used when a stream extends its hold. */
export function amountFor(quote: Quote, output_tokens: number): bigint {
  return dearest(quote.price, { input: quote.prompt_bound, output: output_tokens })
}

/**
 * The output cap per choice that a hold can pay for, or null where it pays for all that was quoted: a `requests` grant, tokens of
 * every kind, or the whole money. Where tokens and money each cover a part, the longer answer counts, since both are reserved for it.
 *
 * @param budgeted a budget or money window holds the receipt's amount, and must not be passed however the answer is paid
 */
export function outputCap(quote: Quote, receipt: Pick<HoldReceipt, 'amount_nano' | 'parts'>, budgeted: boolean): number | null {
  const covered = coveredOutput(quote, receipt)
  if (!budgeted || receipt.amount_nano >= quote.amount_nano) return covered
  const within = affordableOutput(quote, receipt.amount_nano)
  return covered === null ? within : Math.min(covered, within)
}

function coveredOutput(quote: Quote, { parts }: Pick<HoldReceipt, 'parts'>): number | null {
  const tokens = tokensOfParts(parts)
  const money_nano = moneyOfParts(parts)
  const whole = tokens >= quote.grant_tokens || money_nano >= quote.amount_nano
  if (whole || parts.some(({ unit }) => unit === 'requests')) return null
  const by_tokens = Math.floor((Number(tokens) - quote.prompt_bound) / quote.choices)
  return Math.max(affordableOutput(quote, money_nano), by_tokens)
}

/**
 * The output cap per choice that `amount_nano` pays for.
 * Prices may have tiers, so the bound is searched for rather than divided out.
 */
function affordableOutput(quote: Quote, amount_nano: bigint): number {
  let low = 0
  let high = quote.output_held
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (amountFor(quote, middle * quote.choices) <= amount_nano) low = middle
    else high = middle - 1
  }
  return low
}

/** Only what is certainly too long is ours to refuse: else the upstream says it. */
export function isTooLong(prompt_tokens: number, model: Model): boolean {
  return prompt_tokens * 0.8 > model.context_tokens
}

/** Tokens of a chat by a tokenizer's rule, and its attachments. */
export type MeasureChat = (tokenizer: Tokenizer) => ReturnType<typeof measureChatPrompt>

/** Measures a chat once for each tokenizer, however many models are looked at. */
function measuring({ parsed }: Pick<ReadRequest, 'parsed'>): MeasureChat {
  const known = new Map<Tokenizer, ReturnType<MeasureChat>>()
  return (tokenizer) => {
    const before = known.get(tokenizer)
    if (before !== undefined) return before
    const { messages, tools, functions, response_format } = parsed
    const measured = measureChatPrompt({ messages: Array.isArray(messages) ? messages : [], tools, functions, response_format }, tokenizer)
    known.set(tokenizer, measured)
    return measured
  }
}

/** What measures a chat for a model. */
export type MeasureFor = (model: Pick<Model, 'id' | 'profile'>) => MeasureChat

/** Measures a chat as each model gets it, a profile's prompt and tools included, once for each tokenizer. */
export function measuringFor(request: Pick<ReadRequest, 'parsed'>): MeasureFor {
  const own = measuring(request)
  const profiled = new Map<string, MeasureChat>()
  return ({ id, profile }) => {
    if (profile === null) return own
    const measure = profiled.get(id) ?? measuring({ parsed: profiledMembers(request.parsed, profile) })
    profiled.set(id, measure)
    return measure
  }
}

/** The sandbox counts by a rule of its own. */
export function tokenizerOf({ model, targets }: Pick<Route, 'model' | 'targets'>): Tokenizer {
  return targets.some((target) => target.sandbox) ? 'sandbox' : model.tokenizer
}

type PromptTokens = Pick<Quote, 'prompt_tokens' | 'prompt_bound'>

function measurePrompt({ facts, parsed }: ReadRequest, model: Model, tokenizer: Tokenizer, measure: MeasureChat): PromptTokens {
  const margin = (tokens: number): number => Math.ceil((tokens * PROMPT_MARGIN_PERCENT) / 100)
  if (facts.protocol === 'embeddings') {
    const prompt_tokens = estimateEmbeddingsInput(parsed['input'], tokenizer)
    return { prompt_tokens, prompt_bound: margin(prompt_tokens) }
  }
  if (facts.protocol === 'rerank') {
    const prompt_tokens = estimateRerankInput(parsed['query'], parsed['documents'], tokenizer)
    return { prompt_tokens, prompt_bound: margin(prompt_tokens) }
  }
  const { text_tokens, attachments } = measure(tokenizer)
  // More than its context no model reads.
  const most = Math.min(model.context_tokens, tokensOfAttachments(attachments, model.attachment_tokens))
  return { prompt_tokens: chatTokens(model, tokenizer, measure), prompt_bound: margin(text_tokens) + most }
}

/** Tokens of a chat for a model, by estimate. */
export function chatTokens(model: Model, tokenizer: Tokenizer, measure: MeasureChat): number {
  const { text_tokens, attachments } = measure(tokenizer)
  // The sandbox's own count has none.
  return text_tokens + (tokenizer === 'sandbox' ? 0 : tokensOfAttachments(attachments, model.attachment_tokens, ATTACHMENT_TOKENS))
}

function contextExceeded(model: Model, estimate: number): WeirError {
  return new WeirError('context_length_exceeded', { values: { estimate, limit: model.context_tokens, model: model.id }, param: 'messages' })
}
