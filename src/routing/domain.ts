/**
 * Which domain a prompt is about, and how sure that is: logistic regression on the features of features.ts. Pure and deterministic; a
 * prompt of any length costs the same few microseconds, because a fixed number of characters is read. Features that training never met
 * speak for no domain but count in the length of the text: the less of a prompt is known, the less sure is the guess.
 */
import { type Domain, type VerticalDomain, VERTICALS } from '../base/domains.ts'
import { createFeatureScanner, type DomainInput } from './features.ts'
import { markOf, neighbourOf, parseWeights, slotOf, type Weights } from './weights.ts'

/**
 * Below this confidence a prompt counts as general. Chosen on sources that training had not seen: there, about 89 of 100 prompts that leave
 * `general` go where they belong, and 6 of 100 general ones leave it. It is one for all domains: thresholds, scales or biases per domain
 * that were fitted on some sources did worse on the others. `npm run eval:routing` prints what other thresholds give.
 */
export const CONFIDENCE_THRESHOLD = 0.73

export interface DomainGuess {
  /** The likeliest domain, whatever its confidence; `general` where nothing is known about the prompt. */
  readonly domain: Domain
  /** Probability of that domain, 0 to 1. */
  readonly confidence: number
  /** Probability of every domain; they sum to 1. */
  readonly scores: Readonly<Record<Domain, number>>
}

/** One feature that spoke for or against domains: its weights over `general`, in the order of {@link VERTICALS}. */
export interface Evidence {
  readonly hash: number
  readonly logits: Float64Array
}

export interface DomainClassifier {
  /** Never throws, whatever the strings hold. */
  classify(input: DomainInput): DomainGuess
  /** The same prompt's features that have weights, in the order they were read. For people, not for the request path. */
  explain(input: DomainInput): readonly Evidence[]
}

/** The domain to route by: the guess, or `general` where it is not sure enough. */
export function confidentDomain(guess: DomainGuess, threshold: number = CONFIDENCE_THRESHOLD): Domain {
  return guess.confidence >= threshold ? guess.domain : 'general'
}

/** A classifier with the weights of a file (weights.ts). Throws an Error where the file is of another form. */
export function createDomainClassifier(file: Uint8Array): DomainClassifier {
  const weights = parseWeights(file, VERTICALS.length)
  const scorer = createScorer(weights)
  return {
    classify: (input) => guessOf(scorer.logits(input)),
    explain: (input) => scorer.evidence(input),
  }
}

/** Sums the weights of slots. Written out domain by domain, because this is most of what a request costs. */
function sumWeights(weights: Int8Array, slots: Uint32Array, count: number, into: Int32Array): void {
  let [s0, s1, s2, s3, s4, s5, s6, s7] = [0, 0, 0, 0, 0, 0, 0, 0]
  for (let at = 0; at < count; at++) {
    const base = (slots[at] ?? 0) << 3
    s0 += weights[base] ?? 0
    s1 += weights[base + 1] ?? 0
    s2 += weights[base + 2] ?? 0
    s3 += weights[base + 3] ?? 0
    s4 += weights[base + 4] ?? 0
    s5 += weights[base + 5] ?? 0
    s6 += weights[base + 6] ?? 0
    s7 += weights[base + 7] ?? 0
  }
  into.set([s0, s1, s2, s3, s4, s5, s6, s7])
}

/** The slot of a feature, or a negative number where it has none. */
function findSlot(marks: Uint16Array, slot_bits: number, hash: number): number {
  const first = slotOf(hash, slot_bits)
  const mark = markOf(hash)
  if (marks[first] === mark) return first
  const next = neighbourOf(first)
  return marks[next] === mark ? next : -1
}

/** Finds the slots of features that have weights, each slot once between two calls of `begin`. */
function createCollector({ marks, slot_bits }: Weights, hashes: Uint32Array) {
  /** The number of the scan that saw a slot last: a feature counts once, where it weighs most. */
  const seen = new Uint16Array(marks.length)
  const slots = new Uint32Array(hashes.length)
  let scan_number = 0
  let unknown = 0
  return {
    slots,
    /** How many features without weights the last `collect` met, each as often as it occurs. */
    unknown: () => unknown,
    begin(): void {
      scan_number = (scan_number + 1) & 0xffff
      if (scan_number > 0) return
      seen.fill(0)
      scan_number = 1
    },
    /** Of the features from `start` to before `end`. @returns how many slots */
    collect(start: number, end: number): number {
      let count = 0
      let missing = 0
      for (let at = start; at < end; at++) {
        const slot = findSlot(marks, slot_bits, hashes[at] ?? 0)
        if (slot < 0) {
          missing += 1
          continue
        }
        if (seen[slot] === scan_number) continue
        seen[slot] = scan_number
        slots[count] = slot
        count += 1
      }
      unknown = missing
      return count
    },
  }
}

function createScorer(file: Weights) {
  const { step, bias, marks, slot_bits, weights } = file
  const scanner = createFeatureScanner()
  const { hashes } = scanner
  const collector = createCollector(file, hashes)
  const sums = new Int32Array(VERTICALS.length)
  const logits = new Float64Array(VERTICALS.length)

  return {
    logits(input: DomainInput): Float64Array {
      scanner.scan(input)
      collector.begin()
      logits.fill(0)
      let squares = 0
      for (const { start, end, weight } of scanner.spans) {
        const count = collector.collect(start, end)
        squares += (count + collector.unknown()) * weight * weight
        if (count === 0) continue
        sumWeights(weights, collector.slots, count, sums)
        sums.forEach((value, domain) => (logits[domain] = (logits[domain] ?? 0) + weight * value))
      }
      const scale = squares === 0 ? 0 : step / Math.sqrt(squares)
      bias.forEach((value, domain) => (logits[domain] = (logits[domain] ?? 0) * scale + value))
      return logits
    },

    evidence(input: DomainInput): Evidence[] {
      scanner.scan(input)
      const found = new Set<number>()
      return scanner.spans.flatMap(({ start, end, weight }) =>
        [...hashes.subarray(start, end)].flatMap((hash) => {
          const slot = findSlot(marks, slot_bits, hash)
          if (slot < 0 || found.has(slot)) return []
          found.add(slot)
          const base = slot * VERTICALS.length
          return [{ hash, logits: Float64Array.from(VERTICALS, (_, at) => weight * step * (weights[base + at] ?? 0)) }]
        }),
      )
    },
  }
}

/** Probabilities of logits over `general`, whose own logit is 0. */
function guessOf(logits: Float64Array): DomainGuess {
  let most = 0
  let domain: Domain = 'general'
  VERTICALS.forEach((vertical, at) => {
    const logit = logits[at] ?? 0
    if (logit > most) {
      most = logit
      domain = vertical
    }
  })
  const powers = logits.map((logit) => Math.exp(logit - most))
  const general = Math.exp(-most)
  const total = powers.reduce((sum, power) => sum + power, general)
  const of = (vertical: VerticalDomain): number => (powers[VERTICALS.indexOf(vertical)] ?? 0) / total
  const scores: Record<Domain, number> = {
    finance: of('finance'),
    healthcare: of('healthcare'),
    education: of('education'),
    government: of('government'),
    industrial: of('industrial'),
    legal: of('legal'),
    retail: of('retail'),
    customer_service: of('customer_service'),
    general: general / total,
  }
  return { domain, confidence: scores[domain], scores }
}
