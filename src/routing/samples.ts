/** A tenant's labelled samples: a prompt that is much like one of them has its domain. Pure. */
import { createFeatureScanner, type DomainInput, type FeatureScanner } from './features.ts'

export interface LabelledSample {
  readonly text: string
  readonly domain: string
}

export interface SampleMatch {
  readonly domain: string
  /** Cosine of the angle between the two texts' features, 0 to 1. */
  readonly likeness: number
}

/** Below this a sample says nothing. Texts that share their subject but not their words stay below; a sample said in other words is above. */
export const LEAST_LIKENESS = 0.35

export interface SampleIndex {
  /** The likest sample, or null where none is like enough. */
  find(input: DomainInput): SampleMatch | null
}

interface Posting {
  readonly sample: number
  readonly weight: number
}

/** @param samples at most a few hundred: each adds to what a prompt costs */
export function indexSamples(samples: readonly LabelledSample[]): SampleIndex {
  return new Index(samples)
}

class Index implements SampleIndex {
  readonly #scanner: FeatureScanner = createFeatureScanner()
  readonly #domains: readonly string[]
  readonly #postings = new Map<number, Posting[]>()
  readonly #rarity: (hash: number) => number

  constructor(samples: readonly LabelledSample[]) {
    this.#domains = samples.map(({ domain }) => domain)
    const counted = samples.map(({ text }) => this.#count({ system: null, turns: [text] }))
    const having = new Map<number, number>()
    for (const counts of counted) for (const hash of counts.keys()) having.set(hash, (having.get(hash) ?? 0) + 1)
    // What many samples have says little about any of them.
    this.#rarity = (hash) => Math.log(1 + samples.length / (having.get(hash) ?? 1))
    for (const [sample, counts] of counted.entries()) {
      const vector = this.#normalised(counts)
      for (const [hash, weight] of vector) {
        const postings = this.#postings.get(hash) ?? []
        this.#postings.set(hash, postings)
        postings.push({ sample, weight })
      }
    }
  }

  find(input: DomainInput): SampleMatch | null {
    const likeness = new Float64Array(this.#domains.length)
    for (const [hash, weight] of this.#normalised(this.#count(input))) {
      for (const posting of this.#postings.get(hash) ?? [])
        likeness[posting.sample] = (likeness[posting.sample] ?? 0) + posting.weight * weight
    }
    let best = -1
    for (const [sample, value] of likeness.entries()) if (value > (likeness[best] ?? 0)) best = sample
    const found = likeness[best] ?? 0
    const domain = this.#domains[best]
    return domain === undefined || found < LEAST_LIKENESS ? null : { domain, likeness: Math.min(1, found) }
  }

  #count(input: DomainInput): ReadonlyMap<number, number> {
    this.#scanner.scan({ system: null, turns: input.turns.slice(-1) })
    const counts = new Map<number, number>()
    for (const { start, end } of this.#scanner.spans) {
      for (let at = start; at < end; at++) {
        const hash = this.#scanner.hashes[at] ?? 0
        counts.set(hash, (counts.get(hash) ?? 0) + 1)
      }
    }
    return counts
  }

  /** A vector of length 1; how often a feature occurs counts by its root. */
  #normalised(counts: ReadonlyMap<number, number>): ReadonlyMap<number, number> {
    const vector = new Map<number, number>()
    let squares = 0
    for (const [hash, count] of counts) {
      const weight = Math.sqrt(count) * this.#rarity(hash)
      vector.set(hash, weight)
      squares += weight * weight
    }
    const length = Math.sqrt(squares)
    if (length > 0) for (const [hash, weight] of vector) vector.set(hash, weight / length)
    return vector
  }
}
