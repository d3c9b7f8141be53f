/**
 * Folding of UTF-16 code units to the few that a feature is made of: letters in lower case without accents, one mark for any run of
 * digits, simplified Han, kana and hangul as they are, and one separator for everything else.
 */
import { SIMPLIFIED, TRADITIONAL } from './simplified.ts'

/** What stands for every code unit that is neither a letter nor a digit: space, punctuation, symbols, halves of surrogate pairs. */
export const SEPARATOR = 0x20
/** What stands for a run of digits. */
export const DIGITS = 0x30
/** Code units that leave no trace, such as soft hyphens, zero-width spaces and byte-order marks. */
export const NOTHING = 0

/** Whether a folded code is written without spaces between words: Han, kana, hangul. */
export function isIdeographic(folded: number): boolean {
  return folded >= 0x3040
}

/** Whether a folded code is written in words: a letter of any script that is not ideographic. */
export function isLetter(folded: number): boolean {
  return folded > DIGITS && !isIdeographic(folded)
}

const IGNORED = /\p{Default_Ignorable_Code_Point}/u
const HAN = /\p{Script=Han}/u
const LETTER = /\p{L}/u
const NUMBER = /\p{Nd}/u

function foldedCode(code: number): number {
  if (code >= 0x61 && code <= 0x7a) return code
  if (code >= 0x4e00 && code <= 0x9fff) return simplifiedCode(code)
  if (code >= 0xd800 && code <= 0xdfff) return SEPARATOR
  const character = String.fromCharCode(code)
  if (IGNORED.test(character)) return NOTHING
  const plain = character.normalize('NFKD').toLowerCase()
  if (plain.length === 0) return SEPARATOR
  const first = plain.charCodeAt(0)
  const base = String.fromCharCode(first)
  if (NUMBER.test(base)) return DIGITS
  if (HAN.test(base)) return simplifiedCode(first)
  return LETTER.test(base) ? first : SEPARATOR
}

const TO_SIMPLIFIED = new Map(Array.from(TRADITIONAL, (traditional, at) => [traditional.charCodeAt(0), SIMPLIFIED.charCodeAt(at)]))

function simplifiedCode(code: number): number {
  return TO_SIMPLIFIED.get(code) ?? code
}

/** The folded form of each UTF-16 code unit. */
export const FOLDED: Uint16Array = Uint16Array.from({ length: 0x10000 }, (_, code) => foldedCode(code))
