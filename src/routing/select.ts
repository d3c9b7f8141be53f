/** Which of several models serves a request, and why not the others. Pure; what it depends on is passed in. */
import { chanceOf, drawOrder } from './draw.ts'

/** What an operator or a tenant prefers among models that will do. */
export type Preference = 'balanced' | 'cost' | 'quality' | 'latency'

/** Why a model cannot serve this request. In the order in which they are asked. */
export type Obstacle =
  | 'not_found'
  | 'not_allowed'
  | 'zone'
  | 'filing'
  | 'tools'
  | 'json'
  | 'vision'
  | 'audio'
  | 'video'
  | 'file'
  | 'context_length'
  | 'no_price'
  | 'price_ceiling'
  | 'unhealthy'

/** A model that policy names for a request. */
export interface Candidate {
  readonly id: string
  /** What it is for; `general` for everything. */
  readonly domain: string
  /** Share of the conversations among its equals. */
  readonly weight: number
  /** Higher is better; what `quality` goes by. */
  readonly quality: number
  /** What keeps it from serving; null where nothing does. */
  readonly obstacle: Obstacle | null
  /** What this request would cost, in nano-yuan, by estimate; null where it has no price. */
  readonly price_nano: bigint | null
  /** To its first event, as seen lately; null where it was not. */
  readonly latency_ms: number | null
}

export interface Canary {
  readonly model: string
  /** Of conversations, 0 to 100. */
  readonly percent: number
}

export interface Policy {
  readonly prefer: Preference
  readonly canary: Canary | null
}

/** Times within this part of each other are equal: a difference of milliseconds must not move a conversation. */
const LATENCY_STEP = 1.25
/** Likewise of prices. */
const PRICE_STEP_PERCENT = 2n

/**
 * Candidates that can serve, the best first: those of the domain before general ones, each group by preference, equals by a draw that is the
 * same for the same conversation. The canary, where the conversation falls to it, is first of all.
 *
 * @param key of the conversation
 */
export function orderCandidates(candidates: readonly Candidate[], domain: string, { prefer, canary }: Policy, key: string): readonly Candidate[] {
  const able = candidates.filter(({ obstacle }) => obstacle === null)
  const chance = chanceOf(key)
  const own = able.filter((candidate) => domain !== 'general' && candidate.domain === domain)
  const general = able.filter((candidate) => candidate.domain === 'general')
  const ordered = [own, general].flatMap((group) => byPreference(drawOrder(group, chance), prefer))
  const chosen = canary !== null && chance(`canary ${canary.model}`) * 100 < canary.percent ? able.find(({ id }) => id === canary.model) : undefined
  return chosen === undefined ? ordered : [chosen, ...ordered.filter((candidate) => candidate !== chosen)]
}

/** Sorting keeps the order of equals, which is the draw's. */
function byPreference(drawn: readonly Candidate[], prefer: Preference): readonly Candidate[] {
  switch (prefer) {
    case 'balanced':
      return drawn
    case 'quality':
      return drawn.toSorted((a, b) => b.quality - a.quality)
    case 'cost':
      return drawn.toSorted((a, b) => comparePrices(stepOfPrice(a, drawn), stepOfPrice(b, drawn)))
    case 'latency':
      return drawn.toSorted((a, b) => stepOfLatency(a, drawn) - stepOfLatency(b, drawn))
  }
}

function comparePrices(a: bigint, b: bigint): number {
  return a < b ? -1 : Number(a > b)
}

/** How much dearer than the cheapest, in steps. */
function stepOfPrice({ price_nano }: Candidate, all: readonly Candidate[]): bigint {
  const prices = all.map((other) => other.price_nano ?? 0n)
  const least = prices.reduce((low, price) => (price < low ? price : low))
  return least <= 0n ? (price_nano ?? 0n) : (((price_nano ?? 0n) - least) * 100n) / (least * PRICE_STEP_PERCENT)
}

/** How much slower than the fastest, in steps. A model that nobody has seen lately counts as fast, so that somebody sees it. */
function stepOfLatency({ latency_ms }: Candidate, all: readonly Candidate[]): number {
  if (latency_ms === null) return 0
  const known = all.flatMap((other) => (other.latency_ms === null ? [] : [other.latency_ms]))
  const least = Math.max(1, Math.min(...known))
  return Math.floor(Math.log(Math.max(1, latency_ms) / least) / Math.log(LATENCY_STEP))
}
