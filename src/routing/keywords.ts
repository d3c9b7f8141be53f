/** Keywords of many rules, found in one pass over a text. Pure. */
import { DIGITS, FOLDED, isLetter, NOTHING, SEPARATOR } from './fold.ts'

/** Prompts with one of these words are of this domain. */
export interface KeywordRule {
  readonly domain: string
  readonly keywords: readonly string[]
}

export interface FoundKeyword {
  readonly domain: string
  readonly keyword: string
}

export interface KeywordIndex {
  /** The first keyword of the first rule that has one in the text; null where none is in it. */
  find(text: string): FoundKeyword | null
}

/** Thousands of keywords cost a text hardly more than one. Keywords that fold to nothing are left out. */
export function indexKeywords(rules: readonly KeywordRule[]): KeywordIndex {
  return new Index(rules)
}

interface Entry extends FoundKeyword {
  readonly folded: string
  /** Lower is looked at first. */
  readonly rank: number
}

class Index implements KeywordIndex {
  /** In the order of their folded texts, each once: those that begin alike are neighbours, the shortest first. */
  readonly #entries: readonly Entry[]
  /** Where those that begin with a code begin. */
  readonly #starts = new Map<number, number>()

  constructor(rules: readonly KeywordRule[]) {
    const first = new Map<string, Entry>()
    for (const { domain, keywords } of rules) {
      for (const keyword of keywords) {
        const folded = foldKeyword(keyword)
        if (folded !== '' && !first.has(folded)) first.set(folded, { domain, keyword, folded, rank: first.size })
      }
    }
    this.#entries = [...first.values()].toSorted((a, b) => (a.folded < b.folded ? -1 : 1))
    for (const [at, { folded }] of this.#entries.entries()) {
      const code = folded.charCodeAt(0)
      if (!this.#starts.has(code)) this.#starts.set(code, at)
    }
  }

  find(text: string): FoundKeyword | null {
    const folded = foldKeyword(text)
    let best: Entry | null = null
    for (let at = 0; at < folded.length; at++) {
      const start = this.#starts.get(folded.charCodeAt(at))
      if (start === undefined || joined(folded.charCodeAt(at - 1), folded.charCodeAt(at))) continue
      best = this.#bestAt(folded, at, start, best)
    }
    return best === null ? null : { domain: best.domain, keyword: best.keyword }
  }

  /** Narrows the neighbours down, one code after another, to those that the text goes on with. */
  #bestAt(folded: string, at: number, start: number, before: Entry | null): Entry | null {
    let best = before
    let [low, high] = [start, this.#entries.length]
    for (let depth = 0; low < high; depth++) {
      const code = folded.charCodeAt(at + depth)
      if (Number.isNaN(code)) break
      high = this.#firstWhere(low, high, (other) => other.charCodeAt(depth) > code)
      low = this.#firstWhere(low, high, (other) => other.charCodeAt(depth) >= code)
      const entry = this.#entries[low]
      if (low >= high || entry?.folded.length !== depth + 1) continue
      const ends = !joined(code, folded.charCodeAt(at + depth + 1))
      if (ends && (best === null || entry.rank < best.rank)) best = entry
      low += 1
    }
    return best
  }

  #firstWhere(low: number, high: number, holds: (folded: string) => boolean): number {
    let [from, to] = [low, high]
    while (from < to) {
      const middle = (from + to) >> 1
      if (holds(this.#entries[middle]?.folded ?? '')) to = middle
      else from = middle + 1
    }
    return from
  }
}

/** Two codes that belong to one word: what is written with spaces between words is found as whole words. NaN is part of none. */
function joined(a: number, b: number): boolean {
  return isOfWord(a) && isOfWord(b)
}

function isOfWord(code: number): boolean {
  const folded = FOLDED[code] ?? SEPARATOR
  return folded === DIGITS || isLetter(folded)
}

const SPACE = /\s/
const FULL_WIDTH_FIRST = 0xff01
const FULL_WIDTH_LAST = 0xff5e
const FULL_WIDTH_OFFSET = 0xfee0

/**
 * A text as keywords are found in it: case, width, accents, traditional forms and runs of spaces make no difference. Unlike the features of
 * the classifier it keeps digits and punctuation, so that `12306` is not any number and `C++` not any C.
 */
export function foldKeyword(text: string): string {
  let folded = ''
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    const letter = FOLDED[code] ?? SEPARATOR
    if (letter === NOTHING) continue
    if (letter !== SEPARATOR && letter !== DIGITS) folded += String.fromCharCode(letter)
    else if (code >= FULL_WIDTH_FIRST && code <= FULL_WIDTH_LAST) folded += String.fromCharCode(code - FULL_WIDTH_OFFSET)
    else if (!SPACE.test(text.charAt(at))) folded += text.charAt(at)
    else if (!folded.endsWith(' ')) folded += ' '
  }
  return folded.trim()
}
