/** Sums over requests: by domain and by model. Pure; what it holds does not grow with the number of requests. */
import { conversationKey } from '../../routing/draw.ts'
import type { DomainClassifier } from '../../routing/domain.ts'
import { decideDomain, type TenantEvidence } from '../../routing/evidence.ts'
import { chooseModel, type Choosing } from './auto.ts'
import { type PriceFacts, RequestPrices, type SoldModel, type Unable } from './prices.ts'
import type { EstimatedRequest } from './requests.ts'

export interface TallyFacts extends PriceFacts {
  readonly classifier: DomainClassifier
  readonly evidence: TenantEvidence | null
  /** Models that the requests are priced at. */
  readonly models: readonly SoldModel[]
  /** Null where there is no virtual model that could choose. */
  readonly choosing: Choosing | null
}

export interface ModelSum {
  readonly sold: SoldModel
  requests: number
  amount_nano: bigint
  /** Requests that it cannot answer, by what is missing. */
  readonly unable: Map<Unable, number>
}
export interface DomainSum {
  readonly domain: string
  requests: number
  confidence: number
  /** What the virtual model chooses, by model. */
  readonly chosen: Map<string, { requests: number; amount_nano: bigint }>
  /** Requests that none of its candidates can answer. */
  unserved: number
}

/** Domains that are told apart: the closed set, and those of one tenant and of hints. More of them are `general`. */
const MOST_DOMAINS = 1000

export class Tally {
  readonly #facts: TallyFacts
  readonly models: readonly ModelSum[]
  readonly domains = new Map<string, DomainSum>()
  requests = 0
  /** Prompt tokens by the tokenizer that makes least of each request, and by the one that makes most. */
  readonly prompt_tokens = { low: 0, high: 0 }
  /** Before a model's own limit. */
  output_tokens = 0
  /** Requests that give a cap of their own. */
  capped = 0

  constructor(facts: TallyFacts) {
    this.#facts = facts
    this.models = facts.models.map((sold) => ({ sold, requests: 0, amount_nano: 0n, unable: new Map() }))
  }

  add(request: EstimatedRequest): void {
    const prices = new RequestPrices(request, this.#facts)
    this.requests += 1
    this.output_tokens += (request.max_tokens ?? this.#facts.output_tokens) * request.choices
    if (request.max_tokens !== null) this.capped += 1
    this.#addModels(prices)
    this.#addDomain(request, prices)
  }

  #addModels(prices: RequestPrices): void {
    let [low, high] = [Infinity, 0]
    for (const sum of this.models) {
      const { unable, amount_nano, prompt_tokens } = prices.of(sum.sold)
      low = Math.min(low, prompt_tokens)
      high = Math.max(high, prompt_tokens)
      if (unable !== null) sum.unable.set(unable, (sum.unable.get(unable) ?? 0) + 1)
      else {
        sum.requests += 1
        sum.amount_nano += amount_nano
      }
    }
    this.prompt_tokens.low += low === Infinity ? 0 : low
    this.prompt_tokens.high += high
  }

  #addDomain({ prompt, hint }: EstimatedRequest, prices: RequestPrices): void {
    const { classifier, evidence, choosing } = this.#facts
    const decided = decideDomain(prompt, { fixed: null, hint, tenant: evidence, classifier })
    const domain = this.domains.has(decided.domain) || this.domains.size < MOST_DOMAINS ? decided.domain : 'general'
    const sum = this.domains.get(domain) ?? { domain, requests: 0, confidence: 0, chosen: new Map(), unserved: 0 }
    this.domains.set(domain, sum)
    sum.requests += 1
    sum.confidence += decided.confidence
    if (choosing === null) return
    const key = conversationKey(choosing.tenant, prompt.system, prompt.opening)
    const chosen = chooseModel(choosing.virtual.domain ?? domain, key, prices, choosing)
    if (chosen === null) {
      sum.unserved += 1
      return
    }
    const of = sum.chosen.get(chosen.model.id) ?? { requests: 0, amount_nano: 0n }
    of.requests += 1
    of.amount_nano += prices.of(chosen).amount_nano
    sum.chosen.set(chosen.model.id, of)
  }
}
