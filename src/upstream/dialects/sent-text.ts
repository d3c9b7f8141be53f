/** As much of a text's beginning as is kept to recognise it. */
const PREFIX_CHARS = 64
/** A text this short may well be said twice in a row. */
const SURE_CHARS = 4

/** How long the text so far is, and how it begins: enough to recognise it when it comes again. */
export class SentText {
  length = 0
  prefix = ''
  pieces = 0

  add(text: string): void {
    if (text === '') return
    if (this.prefix.length < PREFIX_CHARS) this.prefix = (this.prefix + text).slice(0, PREFIX_CHARS)
    this.length += text.length
    this.pieces++
  }

  /** `text` is all that was sent so far, and perhaps more. */
  begins(text: string): boolean {
    return text.length >= this.length && text.startsWith(this.prefix)
  }

  /**
   * `text` is all that was sent so far, once more. A last piece that happens to double the text is possible only where
   * the text is short.
   */
  isAgain(text: string): boolean {
    if (text.length !== this.length || !this.begins(text)) return false
    return this.pieces > 1 ? text.length >= SURE_CHARS : text.length >= 2 * SURE_CHARS
  }
}

/**
 * The new part of each of a series of texts that may be pieces, or may each repeat what came before (DashScope without
 * `incremental_output`). Which of the two it is shows at the second text, or, where that begins like a short first one, at
 * the third; until then the second is held back, so that nothing is lost or sent twice.
 */
export class GrowingText {
  readonly #sent = new SentText()
  #mode: 'unknown' | 'grows' | 'pieces' = 'unknown'
  #first: string | null = null
  #held: string | null = null

  /** What of `text` is new, as far as that is certain. */
  take(text: string): string {
    if (text === '') return ''
    if (this.#mode === 'pieces') return text
    if (this.#mode === 'grows') return this.#grow(text)
    if (this.#first === null) return this.#remember(text)
    if (this.#held === null) return this.#second(text, this.#first)
    if (text.startsWith(this.#held)) return this.#decide('grows', text)
    const held = this.#held
    this.#mode = 'pieces'
    this.#held = null
    return held + text
  }

  /** What is still held back, at the end. */
  flush(): string {
    const [first, held] = [this.#first ?? '', this.#held]
    this.#held = null
    if (held === null) return ''
    const grows = held === first || first.length > 1
    return grows ? held.slice(first.length) : held
  }

  #remember(text: string): string {
    this.#first = text
    this.#sent.add(text)
    return text
  }

  #second(text: string, first: string): string {
    if (!text.startsWith(first)) {
      this.#mode = 'pieces'
      return text
    }
    if (first.length >= SURE_CHARS) return this.#decide('grows', text)
    this.#held = text
    return ''
  }

  #decide(mode: 'grows', text: string): string {
    this.#mode = mode
    this.#held = null
    return this.#grow(text)
  }

  #grow(text: string): string {
    if (!this.#sent.begins(text)) {
      // Another text than before: a server that took something back. Both were said.
      this.#sent.length = 0
      this.#sent.prefix = ''
    }
    const added = text.slice(this.#sent.length)
    this.#sent.add(added)
    return added
  }
}
