/** Which of several models serves a request, and why not the others. Pure; what it depends on is passed in. */
import { type Chance, drawOrder } from './draw.ts'

/** What an operator or a tenant prefers among models that will do. */
export type Preference = 'balanced' | 'cost' | 'quality' | 'latency'

/** Why a model cannot serve this request. In the order in which they are asked: who meets a later one was nearer to serving. */
export const OBSTACLES = [
  // It is for another domain.
  'domain',
  // It has no price, or no endpoint that could be called by anybody.
  'not_found',
  'no_price',
  'not_allowed',
  'zone',
  'filing',
  'price_ceiling',
  'tools',
  'json',
  'vision',
  'audio',
  'video',
  'file',
  'context_length',
  'unhealthy',
] as const
export type Obstacle = (typeof OBSTACLES)[number]

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
  /** Its context may be too short for the prompt and the answer together: only where nothing else can serve. */
  readonly tight: boolean
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

/** What put the first of several candidates first; `only` where there was no choice. */
export type ChosenBy = 'only' | 'canary' | 'weight' | 'cost' | 'quality' | 'latency'

export interface Ordered<Item extends Candidate> {
  /** The best first; empty where nothing can serve. */
  readonly order: readonly Item[]
  readonly by: ChosenBy
}

const WORDS = { balanced: 'weight', cost: 'cost', quality: 'quality', latency: 'latency' } as const satisfies Record<Preference, ChosenBy>

/**
 * Candidates that can serve, the best first: those of the domain before general ones, each group by preference, equals by a draw that is the
 * same for the same conversation. The canary, where the conversation falls to it, is before its equals: a general one takes nothing from
 * a vertical one.
 */
export function orderCandidates<Item extends Candidate>(
  candidates: readonly Item[],
  domain: string,
  { prefer, canary }: Policy,
  chance: Chance,
): Ordered<Item> {
  const able = candidates.filter(({ obstacle }) => obstacle === null)
  const group = (of: string, tight: boolean): readonly Item[] =>
    able.filter((candidate) => candidate.domain === of && candidate.tight === tight)
  const domains = domain === 'general' ? [domain] : [domain, 'general']
  const groups = [false, true].flatMap((tight) => domains.map((of) => group(of, tight)))
  const ordered = groups.flatMap((items) => byPreference(drawOrder(items, chance), prefer))
  const equals = groups.find((items) => items.length > 0) ?? []
  const by = equals.length > 1 ? WORDS[prefer] : 'only'
  const chosen = canary !== null && isCanary(canary, chance) ? equals.find(({ id }) => id === canary.model) : undefined
  if (chosen === undefined) return { order: ordered, by }
  return { order: [chosen, ...ordered.filter((candidate) => candidate !== chosen)], by: 'canary' }
}

/** Whether a conversation falls to the canary. */
function isCanary({ model, percent }: Canary, chance: Chance): boolean {
  return chance(`canary ${model}`) * 100 < percent
}

/** Of several that cannot serve, the obstacle of the one that was nearest to serving; null where there is none. */
export function nearestObstacle(candidates: ReadonlyArray<Pick<Candidate, 'obstacle'>>): Obstacle | null {
  const met = new Set(candidates.map(({ obstacle }) => obstacle))
  return OBSTACLES.findLast((obstacle) => met.has(obstacle)) ?? null
}

/** Sorting keeps the order of equals, which is the draw's. */
function byPreference<Item extends Candidate>(drawn: readonly Item[], prefer: Preference): readonly Item[] {
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
