/** A tenant's labelled samples: a prompt that is much like one of them has its domain. Pure. */
import { createFeatureScanner, type DomainInput, type FeatureScanner } from './features.ts'

export interface LabelledSample {
  readonly text: string
  readonly domain: string
}

export interface SampleMatch {
  /** Which one, in the order given. */
  readonly sample: number
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

/** @param samples at most some hundreds, of which a prompt is compared with all */
export function indexSamples(samples: readonly LabelledSample[]): SampleIndex {
  return new Index(samples)
}

/** For each feature the samples that have it, in flat arrays: there may be hundreds of thousands of such pairs. */
interface Postings {
  /** Ascending, each once. */
  readonly features: Uint32Array
  /** Where the postings of each feature begin, and at last their end. */
  readonly offsets: Uint32Array
  readonly samples: Uint16Array
  /** At first the root of how often the sample has the feature. */
  readonly weights: Float32Array
}

class Index implements SampleIndex {
  readonly #scanner: FeatureScanner = createFeatureScanner()
  readonly #domains: readonly string[]
  readonly #postings: Postings

  constructor(samples: readonly LabelledSample[]) {
    this.#domains = samples.map(({ domain }) => domain)
    const scans = samples.map(({ text }) => this.#scan(text))
    const keys = new Float64Array(scans.reduce((sum, hashes) => sum + hashes.length, 0))
    let filled = 0
    // A feature and its sample as one number below 2^53: sorting puts equal ones together.
    for (const [sample, hashes] of scans.entries()) for (const hash of hashes) keys[filled++] = hash * samples.length + sample
    this.#postings = postingsOf(keys.toSorted(), samples.length)
    this.#weigh()
  }

  find({ turns }: DomainInput): SampleMatch | null {
    const { offsets, samples, weights } = this.#postings
    const likeness = new Float64Array(this.#domains.length)
    const hashes = this.#scan(turns.at(-1) ?? '').toSorted()
    let squares = 0
    for (let at = 0, next = 0; at < hashes.length; at = next) {
      const hash = hashes[at] ?? 0
      while (next < hashes.length && hashes[next] === hash) next += 1
      const feature = this.#find(hash)
      const [start, end] = feature === null ? [0, 0] : [offsets[feature] ?? 0, offsets[feature + 1] ?? 0]
      const weight = Math.sqrt(next - at) * this.#rarity(Math.max(1, end - start))
      squares += weight * weight
      for (let posting = start; posting < end; posting++) {
        const sample = samples[posting] ?? 0
        likeness[sample] = (likeness[sample] ?? 0) + weight * (weights[posting] ?? 0)
      }
    }
    return this.#best(likeness, Math.sqrt(squares))
  }

  #best(likeness: Float64Array, length: number): SampleMatch | null {
    let best = -1
    for (const [sample, value] of likeness.entries()) if (value > (likeness[best] ?? 0)) best = sample
    const found = length === 0 ? 0 : (likeness[best] ?? 0) / length
    const domain = this.#domains[best]
    return domain === undefined || found < LEAST_LIKENESS ? null : { sample: best, domain, likeness: Math.min(1, found) }
  }

  /** Features of one text, repeated as often as they occur. */
  #scan(text: string): Uint32Array {
    this.#scanner.scan({ system: null, turns: [text] })
    const { hashes, spans } = this.#scanner
    const features = new Uint32Array(spans.reduce((sum, { start, end }) => sum + end - start, 0))
    let filled = 0
    for (const { start, end } of spans) {
      features.set(hashes.subarray(start, end), filled)
      filled += end - start
    }
    return features
  }

  /** What many samples have says little about any of them. */
  #rarity(having: number): number {
    return Math.log(1 + this.#domains.length / having)
  }

  /** Makes each sample's weights a vector of length 1. */
  #weigh(): void {
    const { features, offsets, samples, weights } = this.#postings
    const squares = new Float64Array(this.#domains.length)
    for (let feature = 0; feature < features.length; feature++) {
      const [start, end] = [offsets[feature] ?? 0, offsets[feature + 1] ?? 0]
      const rarity = this.#rarity(end - start)
      for (let posting = start; posting < end; posting++) {
        const weight = (weights[posting] ?? 0) * rarity
        const sample = samples[posting] ?? 0
        weights[posting] = weight
        squares[sample] = (squares[sample] ?? 0) + weight * weight
      }
    }
    for (let posting = 0; posting < weights.length; posting++) {
      weights[posting] = (weights[posting] ?? 0) / Math.sqrt(squares[samples[posting] ?? 0] ?? 1)
    }
  }

  #find(hash: number): number | null {
    const { features } = this.#postings
    let [from, to] = [0, features.length]
    while (from < to) {
      const middle = (from + to) >> 1
      if ((features[middle] ?? 0) < hash) from = middle + 1
      else to = middle
    }
    return features[from] === hash ? from : null
  }
}

/** @param keys ascending: feature × `count` + sample, as often as the sample has the feature */
function postingsOf(keys: Float64Array, count: number): Postings {
  const features = new Uint32Array(keys.length)
  const offsets = new Uint32Array(keys.length + 1)
  const samples = new Uint16Array(keys.length)
  const weights = new Float32Array(keys.length)
  let [found, postings] = [0, 0]
  for (let at = 0, next = 0; at < keys.length; at = next) {
    const key = keys[at] ?? 0
    while (next < keys.length && keys[next] === key) next += 1
    const feature = Math.floor(key / count)
    if (found === 0 || features[found - 1] !== feature) {
      features[found] = feature
      offsets[found] = postings
      found += 1
    }
    samples[postings] = key - feature * count
    weights[postings] = Math.sqrt(next - at)
    postings += 1
  }
  offsets[found] = postings
  return {
    features: features.slice(0, found),
    offsets: offsets.slice(0, found + 1),
    samples: samples.slice(0, postings),
    weights: weights.slice(0, postings),
  }
}
