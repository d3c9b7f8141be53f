/** What one request costs at one model, by estimate. Pure. */
import type { Configuration, Endpoint, Model } from '../../config/model.ts'
import { EXPECTED_OUTPUT_TOKENS } from '../../gateway/consider.ts'
import { isTooLong, type MeasureFor, measuringFor } from '../../gateway/quote.ts'
import { ATTACHMENT_TOKENS, tokensOfAttachments } from '../../money/estimate.ts'
import { type Charge, charge, priceAt, type PriceVersion, type TradingCalendar } from '../../money/price.ts'
import { NO_CALLS, NO_TOKENS } from '../../money/usage.ts'
import { endpointsFor, isOpenTo, isVisibleTo } from '../../routing/access.ts'
import { lifeOf } from '../../routing/lives.ts'
import { type Need, unmetNeed } from '../../routing/needs.ts'
import type { EstimatedRequest } from './requests.ts'

/** A chat model that is sold now. */
export interface SoldModel {
  readonly model: Model
  readonly price: PriceVersion
  /** Endpoints that it has, or would have with their keys. */
  readonly endpoints: readonly Endpoint[]
  /** It can be called as things are: of a provider, or of the sandbox that stands in for one. */
  readonly served_by: 'provider' | 'sandbox' | null
}

/**
 * Chat models that have a price in force, in the order of the catalogue; none that is retired, or reserved for others.
 *
 * @param tenant whose traffic it is; empty for nobody in particular
 */
export function soldModels({ catalogue, prices, settings }: Configuration, now_ms: number, tenant: string): readonly SoldModel[] {
  return [...catalogue.models.values()].flatMap((model): SoldModel[] => {
    const price = priceAt(prices.sell.get(model.id) ?? [], now_ms)
    if (model.kind !== 'chat' || price === null) return []
    if (lifeOf(model, now_ms) === 'retired' || !isVisibleTo(tenant, model)) return []
    const endpoints = endpointsFor(tenant, model)
    const without_key = model.inactive.map(({ target }) => target).filter((target) => isOpenTo(tenant, target))
    if (endpoints.length > 0) return [{ model, price, endpoints, served_by: 'provider' }]
    const served_by = settings.mode === 'demo' && without_key.length > 0 ? 'sandbox' : null
    return [{ model, price, endpoints: without_key, served_by }]
  })
}

/** What keeps a model from answering a request; null where nothing does. */
export type Unable = Need | 'context_length'

export interface PricedRequest {
  readonly unable: Unable | null
  readonly prompt_tokens: number
  readonly amount_nano: bigint
}

export interface PriceFacts {
  readonly calendar: TradingCalendar
  /** Prices that depend on the time of day are those of this instant. */
  readonly now_ms: number
  /** Tokens of one answer whose request gives no cap. */
  readonly output_tokens: number
}

/** One request, measured once with each tokenizer and priced once at each model. */
export class RequestPrices {
  readonly #request: EstimatedRequest
  readonly #facts: PriceFacts
  readonly #measure: MeasureFor
  readonly #priced = new Map<string, PricedRequest>()

  constructor(request: EstimatedRequest, facts: PriceFacts) {
    this.#request = request
    this.#measure = measuringFor({ parsed: { ...request.chat } })
    this.#facts = facts
  }

  of(sold: SoldModel): PricedRequest {
    const known = this.#priced.get(sold.model.id)
    if (known !== undefined) return known
    const priced = this.#price(sold)
    this.#priced.set(sold.model.id, priced)
    return priced
  }

  /** What the gateway compares candidates by: the price with an answer of the length that it expects, and whether that has room. */
  expectedOf({ model, price }: SoldModel): { readonly price_nano: bigint; readonly tight: boolean } {
    const { max_tokens, choices } = this.#request
    const expected = Math.min(max_tokens ?? EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
    const { amount_nano } = this.#charge(model, price, expected * choices)
    return { price_nano: amount_nano, tight: this.#promptTokens(model) + expected > model.context_tokens }
  }

  #price({ model, price }: SoldModel): PricedRequest {
    const { needs, choices, max_tokens } = this.#request
    const prompt_tokens = this.#promptTokens(model)
    const most = model.max_output_tokens ?? model.context_tokens
    const output_tokens = Math.min(max_tokens ?? this.#facts.output_tokens, most) * choices
    const { amount_nano } = this.#charge(model, price, output_tokens)
    const too_long = isTooLong(prompt_tokens, model) ? 'context_length' : null
    return { unable: unmetNeed(needs, model.capabilities) ?? too_long, prompt_tokens, amount_nano }
  }

  #charge(model: Model, price: PriceVersion, output: number): Charge {
    const { calendar, now_ms } = this.#facts
    const usage = { ...NO_TOKENS, input: this.#promptTokens(model), output }
    return charge(price, usage, NO_CALLS, { admitted_at: now_ms, thinking: thinks(model, this.#request.thinking) }, calendar)
  }

  #promptTokens(model: Model): number {
    const { tokenizer, attachment_tokens } = model
    const measured = this.#measure(model)(tokenizer)
    // The sandbox's own count has no attachments.
    if (tokenizer === 'sandbox') return measured.text_tokens
    return measured.text_tokens + tokensOfAttachments(measured.attachments, attachment_tokens, ATTACHMENT_TOKENS)
  }
}

/** Whether an answer is one of thinking: what the caller says, else what the model does by itself. */
function thinks({ thinking }: Model, asked: EstimatedRequest['thinking']): boolean {
  if (thinking === 'always') return true
  if (asked === 'on') return thinking !== 'never'
  return asked !== 'off' && thinking === 'by_default'
}
