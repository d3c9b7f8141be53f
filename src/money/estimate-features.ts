import { isCommonWord } from './estimate-words.ts'

/**
 * What the token estimator counts. Every character raises at most three counters, and which ones depends only on the characters
 * before it, so a text may arrive in any pieces, no count ever falls, and nothing has to be undone at the end.
 *
 * The features follow how byte-pair tokenizers cut text before they merge (the `pre_tokenizer` patterns published with Qwen3 and
 * DeepSeek-V3): a word takes one space or mark before it, digits stand alone (Qwen3) or in threes (DeepSeek), runs of marks take the
 * line breaks after them, and Chinese is cut inside a run by the vocabulary alone.
 */
export const FEATURES = [
  'word_after_space',
  'name_after_space',
  'word_after_mark',
  'word_after_backslash',
  'word_after_other',
  'letter_9_on',
  'camel_hump',
  'upper_after_upper',
  'digit_first_of_three',
  'digit_other',
  'digit_after_space',
  'digit_after_mark',
  'han_first',
  'han_next',
  'han_word_end',
  'han_after_space',
  'han_after_gap',
  'han_rare',
  'wide_mark_first',
  'wide_mark_next',
  'mark_after_word',
  'mark_after_space',
  'mark_after_other',
  'mark_repeated',
  'mark_next',
  'line_break',
  'line_break_after_mark',
  'line_break_next',
  'space_first',
  'space_second',
  'space_third_on',
  'indent_first',
  'alphabet_letter',
  'kana_or_hangul',
  'symbol',
  'other_script',
  'astral',
] as const

export type Feature = (typeof FEATURES)[number]

const index = (name: Feature): number => FEATURES.indexOf(name)
const WORD_AFTER_SPACE = index('word_after_space')
const NAME_AFTER_SPACE = index('name_after_space')
const WORD_AFTER_MARK = index('word_after_mark')
const WORD_AFTER_BACKSLASH = index('word_after_backslash')
const WORD_AFTER_OTHER = index('word_after_other')
const LETTER_9_ON = index('letter_9_on')
const CAMEL_HUMP = index('camel_hump')
const UPPER_AFTER_UPPER = index('upper_after_upper')
const DIGIT_FIRST_OF_THREE = index('digit_first_of_three')
const DIGIT_OTHER = index('digit_other')
const DIGIT_AFTER_SPACE = index('digit_after_space')
const DIGIT_AFTER_MARK = index('digit_after_mark')
const HAN_FIRST = index('han_first')
const HAN_NEXT = index('han_next')
const HAN_WORD_END = index('han_word_end')
const HAN_AFTER_SPACE = index('han_after_space')
const HAN_AFTER_GAP = index('han_after_gap')
const HAN_RARE = index('han_rare')
const WIDE_MARK_FIRST = index('wide_mark_first')
const WIDE_MARK_NEXT = index('wide_mark_next')
const MARK_AFTER_WORD = index('mark_after_word')
const MARK_AFTER_SPACE = index('mark_after_space')
const MARK_AFTER_OTHER = index('mark_after_other')
const MARK_REPEATED = index('mark_repeated')
const MARK_NEXT = index('mark_next')
const LINE_BREAK = index('line_break')
const LINE_BREAK_AFTER_MARK = index('line_break_after_mark')
const LINE_BREAK_NEXT = index('line_break_next')
const SPACE_FIRST = index('space_first')
const SPACE_SECOND = index('space_second')
const SPACE_THIRD_ON = index('space_third_on')
const INDENT_FIRST = index('indent_first')
const ALPHABET_LETTER = index('alphabet_letter')
const KANA_OR_HANGUL = index('kana_or_hangul')
const SYMBOL = index('symbol')
const OTHER_SCRIPT = index('other_script')
const ASTRAL = index('astral')

const LOWER = 1
const UPPER = 2
const DIGIT = 3
const HAN = 4
const WIDE_MARK = 5
const MARK = 6
const LINE = 7
const SPACE = 8
const ALPHABET = 9
const KANA = 10
const SYM = 11
const OTHER = 12
const HIGH = 13
const LOW = 14
const BACKSLASH = 0x5c
/** Before the first character. */
const START = 0

/** Inclusive ranges of UTF-16 code units by class; later rows win. Blocks as in Unicode's Blocks.txt. */
const RANGES: readonly (readonly [from: number, to: number, kind: number])[] = [
  [0x0000, 0xffff, OTHER],
  [0x0021, 0x007e, MARK],
  [0x0030, 0x0039, DIGIT],
  [0x0041, 0x005a, UPPER],
  [0x0061, 0x007a, LOWER],
  [0x0000, 0x0020, SPACE],
  [0x000a, 0x000a, LINE],
  [0x000d, 0x000d, LINE],
  [0x00a0, 0x00a0, SPACE],
  [0x00a1, 0x00bf, SYM],
  [0x00c0, 0x024f, ALPHABET],
  [0x0370, 0x052f, ALPHABET],
  [0x1e00, 0x1fff, ALPHABET],
  [0x2000, 0x200b, SPACE],
  [0x2010, 0x2027, WIDE_MARK],
  [0x2028, 0x2029, LINE],
  [0x2030, 0x2bff, SYM],
  [0x3000, 0x303f, WIDE_MARK],
  [0x3040, 0x30ff, KANA],
  [0x3400, 0x9fff, HAN],
  [0xac00, 0xd7a3, KANA],
  [0xd800, 0xdbff, HIGH],
  [0xdc00, 0xdfff, LOW],
  [0xf900, 0xfaff, HAN],
  [0xfe30, 0xfe4f, WIDE_MARK],
  [0xff01, 0xff0f, WIDE_MARK],
  [0xff10, 0xff19, DIGIT],
  [0xff1a, 0xff20, WIDE_MARK],
  [0xff21, 0xff5a, ALPHABET],
  [0xff5b, 0xff65, WIDE_MARK],
]

const CLASS_OF = new Uint8Array(0x10000)
for (const [from, to, kind] of RANGES) CLASS_OF.fill(kind, from, to + 1)

/** Counts features of a text that arrives in pieces. `counts` is indexed as {@link FEATURES}. */
export interface FeatureScanner {
  readonly counts: Float64Array
  scan(text: string): void
  /** Ends the text: what follows is another text, whose counts are added to the same counters. */
  cut(): void
}

/** The state behind {@link createScanner}: a class, since its fields are read and written for every character. */
class Scanner implements FeatureScanner {
  readonly counts = new Float64Array(FEATURES.length)
  #previous = START
  #lastCode = 0
  /** Characters since the present run of one kind began: letters together, digits, spaces. */
  #run = 0
  /** The kind of the character before the present run of spaces. */
  #beforeSpace = START
  /** The character before ended a listed Chinese word, so it cannot begin the next one. */
  #wordEnded = false

  scan(text: string): void {
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at)
      const kind = CLASS_OF[code] ?? OTHER
      this.#count(code, kind)
      this.#previous = kind
      this.#lastCode = code
    }
  }

  cut(): void {
    this.#previous = START
    this.#lastCode = 0
    this.#run = 0
    this.#beforeSpace = START
    this.#wordEnded = false
  }

  #raise(feature: number): void {
    this.counts[feature] = (this.counts[feature] ?? 0) + 1
  }

  #count(code: number, kind: number): void {
    const previous = this.#previous
    if (kind <= UPPER || kind === ALPHABET) this.#letter(kind)
    else if (kind === HAN) this.#han(code)
    else if (kind === SPACE) this.#space()
    else if (kind === MARK) this.#mark(code)
    else if (kind === DIGIT) this.#digit()
    else if (kind === LINE) this.#line(code)
    else if (kind === WIDE_MARK) this.#raise(previous === WIDE_MARK ? WIDE_MARK_NEXT : WIDE_MARK_FIRST)
    else if (kind === KANA) this.#raise(KANA_OR_HANGUL)
    else if (kind === SYM) this.#raise(SYMBOL)
    else if (kind === HIGH) this.#raise(ASTRAL)
    else if (kind !== LOW || previous !== HIGH) this.#raise(OTHER_SCRIPT)
  }

  #letter(kind: number): void {
    const previous = this.#previous
    if (previous === LOWER || previous === UPPER || previous === ALPHABET) {
      this.#run += 1
      if (this.#run > 8) this.#raise(LETTER_9_ON)
      if (kind === UPPER && previous !== ALPHABET) this.#raise(previous === LOWER ? CAMEL_HUMP : UPPER_AFTER_UPPER)
    } else {
      this.#run = 1
      this.#raise(this.#wordStart(kind))
    }
    if (kind === ALPHABET) this.#raise(ALPHABET_LETTER)
  }

  #wordStart(kind: number): number {
    const previous = this.#previous
    if (previous === SPACE || previous === LINE || previous === START) return kind === UPPER ? NAME_AFTER_SPACE : WORD_AFTER_SPACE
    if (previous === MARK) return this.#lastCode === BACKSLASH ? WORD_AFTER_BACKSLASH : WORD_AFTER_MARK
    return WORD_AFTER_OTHER
  }

  #digit(): void {
    const previous = this.#previous
    this.#run = previous === DIGIT ? this.#run + 1 : 1
    this.#raise(this.#run % 3 === 1 ? DIGIT_FIRST_OF_THREE : DIGIT_OTHER)
    if (previous === SPACE) this.#raise(DIGIT_AFTER_SPACE)
    else if (previous === MARK) this.#raise(DIGIT_AFTER_MARK)
  }

  #han(code: number): void {
    if (this.#previous === HAN) {
      this.#wordEnded = !this.#wordEnded && isCommonWord(this.#lastCode, code)
      this.#raise(this.#wordEnded ? HAN_WORD_END : HAN_NEXT)
    } else {
      this.#wordEnded = false
      this.#raise(HAN_FIRST)
      if (this.#previous === SPACE) this.#raise(this.#beforeSpace === HAN ? HAN_AFTER_GAP : HAN_AFTER_SPACE)
    }
    if (code < 0x4e00 || code > 0x9fa5) this.#raise(HAN_RARE)
  }

  #mark(code: number): void {
    const previous = this.#previous
    if (previous === MARK) this.#raise(code === this.#lastCode ? MARK_REPEATED : MARK_NEXT)
    else if (previous === SPACE) this.#raise(MARK_AFTER_SPACE)
    else this.#raise(previous === LOWER || previous === UPPER ? MARK_AFTER_WORD : MARK_AFTER_OTHER)
  }

  #line(code: number): void {
    const previous = this.#previous
    if (code === 0x0a && this.#lastCode === 0x0d) return
    if (previous === LINE) this.#raise(LINE_BREAK_NEXT)
    else this.#raise(previous === MARK || previous === WIDE_MARK ? LINE_BREAK_AFTER_MARK : LINE_BREAK)
  }

  #space(): void {
    if (this.#previous === SPACE) {
      this.#run += 1
      this.#raise(this.#run > 2 || this.#beforeSpace === LINE ? SPACE_THIRD_ON : SPACE_SECOND)
    } else {
      this.#run = 1
      this.#beforeSpace = this.#previous
      this.#raise(this.#previous === LINE ? INDENT_FIRST : SPACE_FIRST)
    }
  }
}

/**
 * A scanner at the start of a text. One pass over UTF-16 code units, no allocation per character. A surrogate pair counts at its first
 * half, so it may be split between pieces; an unpaired first half counts as a pair, an unpaired second half as another script.
 */
export function createScanner(): FeatureScanner {
  return new Scanner()
}
