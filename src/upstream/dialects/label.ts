/**
 * The explicit label of generated text (Labelling Measures for AI-generated content, art. 4; GB 45438-2025), where a tenant wants Weir to put it
 * into answers. Added once to the text of each choice that has one; an answer of tool calls alone has none. Pure.
 */
export interface AnswerLabel {
  readonly text: string
  readonly place: 'start' | 'end'
}

/** Whether the label of one choice is still to come, and where it belongs. */
export class PendingLabel {
  #label: AnswerLabel | null
  #says_something = false

  constructor(label: AnswerLabel | null) {
    this.#label = label
  }

  /** It belongs before the first text that says something, which the next piece may be. */
  get waits_for_text(): boolean {
    return this.#label?.place === 'start'
  }

  /** The next piece of the choice's text. Blanks alone say nothing: some models send a line feed before tool calls. */
  see(content: string): void {
    if (this.#label !== null) this.#says_something ||= /\S/.test(content)
  }

  /** The label, once: if this piece is the first that says something, or, for the end, if it is the last of a text. */
  take(content: string, ends: boolean): AnswerLabel | null {
    this.see(content)
    const label = this.#label
    if (label === null || !this.#says_something || (label.place === 'end' && !ends)) return null
    this.#label = null
    return label
  }
}

/** A piece of text with the label that belongs into it, if one does. */
export function labelled(content: string, label: AnswerLabel | null): string {
  if (label === null) return content
  return label.place === 'start' ? label.text + content : content + label.text
}
