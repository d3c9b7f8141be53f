/**
 * What the domain classifier sees of a prompt: features, each a 32-bit hash. Han, kana and hangul give n-grams of 1 to 3 characters;
 * words of other scripts give themselves, pairs of neighbours and, against typos, parts of words. Punctuation, case, width, the values
 * of digits and the length of the text are not seen, so that none of them can stand in for a domain.
 */
import { DIGITS, FOLDED, isIdeographic, NOTHING, SEPARATOR } from './fold.ts'

/** The parts of a prompt that are read. `turns` are the user's, oldest first. */
export interface DomainInput {
  readonly system: string | null
  readonly turns: readonly string[]
}

/** UTF-16 code units read of the last turn: its beginning and its end. */
export const LAST_TURN_HEAD = 360
export const LAST_TURN_TAIL = 160
/** UTF-16 code units read of the beginning of each earlier turn, and how many of these are read. */
export const EARLIER_TURN_HEAD = 160
export const EARLIER_TURNS = 2
/** UTF-16 code units read of the beginning of the system prompt. */
export const SYSTEM_HEAD = 240

/** How much a feature counts that only an earlier turn or only the system prompt has; one of the last turn counts 1. */
export const EARLIER_WEIGHT = 0.5
export const SYSTEM_WEIGHT = 0.6

const MAX_CODES = Math.max(LAST_TURN_HEAD + LAST_TURN_TAIL, EARLIER_TURN_HEAD, SYSTEM_HEAD) + 1
/** Longer words are cut: what is longer is no word. */
const MAX_WORD = 24
const SHORTEST_PARTED_WORD = 5
const PART_LENGTH = 4
/** No code gives more features than this: a Han character gives 3, a letter at most 2. */
const MOST_FEATURES_PER_CODE = 3
const MAX_FEATURES = (LAST_TURN_HEAD + LAST_TURN_TAIL + EARLIER_TURNS * EARLIER_TURN_HEAD + SYSTEM_HEAD + 4) * MOST_FEATURES_PER_CODE

const PRIME = 0x01000193
const ONE_SALT = 0x9e3779b1
const TWO_SALT = 0x85ebca6b
const THREE_SALT = 0xc2b2ae35
const WORD_SALT = 0x27d4eb2f
const PAIR_SALT = 0x165667b1
const PART_SALT = 0x5bd1e995

/** Features from `start` to before `end`; each counts `weight`. */
export interface Span {
  start: number
  end: number
  weight: number
}

export interface FeatureScanner {
  /** The features of the last scan, repeated as often as they occur. */
  readonly hashes: Uint32Array
  /** Those of the last turn, of earlier turns, of the system prompt. */
  readonly spans: readonly Span[]
  scan(input: DomainInput): void
}

/** Spreads a hash over all 32 bits (the finalizer of MurmurHash3). */
function spread(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

const isLetter = (code: number): boolean => code !== SEPARATOR && code !== DIGITS && !isIdeographic(code)

/** Finds the features of one prompt after another, in memory of its own; never throws, whatever the strings hold. */
export function createFeatureScanner(): FeatureScanner {
  return new Scanner()
}

class Scanner implements FeatureScanner {
  readonly hashes = new Uint32Array(MAX_FEATURES)
  readonly spans: readonly Span[] = Array.from({ length: 2 + EARLIER_TURNS }, () => ({ start: 0, end: 0, weight: 1 }))
  /** The folded codes of the part that is being scanned. */
  private readonly codes = new Uint16Array(MAX_CODES)
  private length = 0
  private found = 0
  /** Hash of the word before, if only separators came between; else 0. */
  private word_before = 0

  scan({ system, turns }: DomainInput): void {
    this.found = 0
    const last = turns.length - 1
    this.scanPart(0, 1, turns[last] ?? '', LAST_TURN_HEAD, LAST_TURN_TAIL)
    for (let back = 1; back <= EARLIER_TURNS; back++) this.scanPart(back, EARLIER_WEIGHT, turns[last - back] ?? '', EARLIER_TURN_HEAD, 0)
    this.scanPart(EARLIER_TURNS + 1, SYSTEM_WEIGHT, system ?? '', SYSTEM_HEAD, 0)
  }

  private scanPart(number: number, weight: number, text: string, head: number, tail: number): void {
    const span = this.spans[number]
    if (span === undefined) return
    span.start = this.found
    span.weight = weight
    this.length = 0
    if (text.length <= head + tail) this.fold(text, 0, text.length)
    else {
      this.fold(text, 0, head)
      this.codes[this.length] = SEPARATOR
      this.length += 1
      this.fold(text, text.length - tail, text.length)
    }
    this.addFeatures()
    span.end = this.found
  }

  /** Appends the folded codes of a piece of text; runs of digits and of separators become one. */
  private fold(text: string, from: number, to: number): void {
    let previous = this.length === 0 ? SEPARATOR : this.codeAt(this.length - 1)
    for (let at = from; at < to; at++) {
      const code = FOLDED[text.charCodeAt(at)] ?? SEPARATOR
      if (code === NOTHING || (code === previous && (code === SEPARATOR || code === DIGITS))) continue
      this.codes[this.length] = code
      this.length += 1
      previous = code
    }
  }

  private codeAt(at: number): number {
    return this.codes[at] ?? SEPARATOR
  }

  private add(hash: number): void {
    this.hashes[this.found] = spread(hash)
    this.found += 1
  }

  private addFeatures(): void {
    this.word_before = 0
    for (let at = 0; at < this.length;) {
      const code = this.codeAt(at)
      if (code === SEPARATOR) at += 1
      else if (isLetter(code)) at = this.addWord(at)
      else at = this.addRun(at)
    }
  }

  /** Features of the ideographs and digits that start at `start`. @returns where they end */
  private addRun(start: number): number {
    this.word_before = 0
    let one = 0
    let two = 0
    let at = start
    for (; at < this.length; at++) {
      const code = this.codeAt(at)
      if (code !== DIGITS && !isIdeographic(code)) break
      if (code !== DIGITS) this.add(Math.imul(code, PRIME) ^ ONE_SALT)
      if (at > start) this.add(Math.imul(Math.imul(one, PRIME) ^ code, PRIME) ^ TWO_SALT)
      if (at > start + 1) this.add(Math.imul(Math.imul(Math.imul(two, PRIME) ^ one, PRIME) ^ code, PRIME) ^ THREE_SALT)
      two = one
      one = code
    }
    return at
  }

  /** Features of the word that starts at `start`. @returns where it ends */
  private addWord(start: number): number {
    let end = start
    while (end < this.length && isLetter(this.codeAt(end))) end += 1
    const cut = Math.min(end, start + MAX_WORD)
    let hash = WORD_SALT
    for (let at = start; at < cut; at++) hash = Math.imul(hash ^ this.codeAt(at), PRIME)
    this.add(hash)
    if (this.word_before !== 0) this.add(Math.imul(this.word_before, PAIR_SALT) ^ hash)
    if (cut - start >= SHORTEST_PARTED_WORD) this.addParts(start, cut)
    this.word_before = hash
    return end
  }

  /** Parts of the word from `start` to before `end`, its first and last with the border. */
  private addParts(start: number, end: number): void {
    for (let first = start - 1; first + PART_LENGTH <= end + 1; first++) {
      let hash = PART_SALT
      for (let at = first; at < first + PART_LENGTH; at++) {
        hash = Math.imul(hash ^ (at < start || at >= end ? SEPARATOR : this.codeAt(at)), PRIME)
      }
      this.add(hash)
    }
  }
}
