import { createCounter } from '../../money/estimate.ts'
import type { TokenCounter, Tokenizer } from '../../money/estimate.ts'
import { NO_CALLS } from '../../money/usage.ts'
import type { TokenUsage } from '../../money/usage.ts'
import type { AnswerContext, Observation } from './dialect.ts'
import { brokenOff, finishOf, saysFinished } from './finish-reason.ts'
import { type AnswerLabel, PendingLabel } from './label.ts'
import { isFields, isStandardUsage, readUsage, usageJson } from './openai-usage.ts'
import { GrowingText, SentText } from './sent-text.ts'
import { indexOf, ToolCallTracker } from './tool-calls.ts'

type Fields = Readonly<Record<string, unknown>>

/** More choices than any API gives (OpenAI's `n` ends at 128). */
const MAX_CHOICES = 128

const NO_REPAIRS: readonly string[] = []

/** One choice as far as it was delivered. Every text has its own counter: pieces of different texts must not run together. */
export class ChoiceState {
  readonly index: number
  finish_reason: string | null = null
  role_sent = false
  readonly sent = new SentText()
  readonly reasoning_sent = new SentText()
  readonly tools: ToolCallTracker
  readonly label: PendingLabel
  readonly #tokenizer: Tokenizer
  readonly #answer = new Map<string, TokenCounter>()
  #content: TokenCounter | null = null
  #reasoning: TokenCounter | null = null
  #growing: GrowingText | null = null

  constructor(index: number, tokenizer: Tokenizer, id_prefix: string, label: AnswerLabel | null) {
    this.index = index
    this.label = new PendingLabel(label)
    this.#tokenizer = tokenizer
    this.tools = new ToolCallTracker(`${id_prefix}_${index}`)
  }

  get has_text(): boolean {
    return this.#content !== null || this.#reasoning !== null || this.#answer.size > 0
  }

  addContent(text: string): void {
    if (text === '') return
    this.label.see(text)
    this.sent.add(text)
    ;(this.#content ??= createCounter(this.#tokenizer)).add(text)
  }

  addReasoning(text: string): void {
    if (text === '') return
    this.reasoning_sent.add(text)
    ;(this.#reasoning ??= createCounter(this.#tokenizer)).add(text)
  }

  add(channel: string, text: unknown): void {
    if (typeof text !== 'string' || text === '') return
    let counter = this.#answer.get(channel)
    if (counter === undefined) {
      counter = createCounter(this.#tokenizer)
      this.#answer.set(channel, counter)
    }
    counter.add(text)
  }

  /** What is new in a message that may repeat what was sent before it. */
  grownContent(text: string, ends: boolean): string {
    if (this.#growing === null && this.sent.length > 0) return this.sent.begins(text) ? text.slice(this.sent.length) : text
    this.#growing ??= new GrowingText()
    const grown = this.#growing.take(text)
    return ends ? grown + this.#growing.flush() : grown
  }

  /** Text of a message that was held back until the next would tell whether it repeats itself. */
  heldBack(): string {
    return this.#growing?.flush() ?? ''
  }

  estimated(): { readonly answer: number; readonly reasoning: number } {
    let answer = this.#content?.total() ?? 0
    for (const counter of this.#answer.values()) answer += counter.total()
    return { answer, reasoning: this.#reasoning?.total() ?? 0 }
  }
}

/** Watches an answer go by: usage, finish reasons, and the tokens of the text delivered. */
export class OpenaiObserver {
  readonly repairs = new Set<string>()
  readonly #tokenizer: Tokenizer
  readonly #id_prefix: string
  readonly #label: AnswerLabel | null
  readonly #choices = new Map<number, ChoiceState>()
  #top: TokenUsage | null = null
  /** The last report that clients do not find, as JSON. */
  #hidden: string | null = null
  #latest: TokenUsage | null = null
  #reports = 0
  #text_after_report = false

  constructor({ tokenizer, request_id, label }: Pick<AnswerContext, 'tokenizer' | 'request_id' | 'label'>) {
    this.#tokenizer = tokenizer
    this.#id_prefix = `call_${request_id.replaceAll('-', '')}`
    this.#label = label
  }

  get states(): Iterable<ChoiceState> {
    return this.#choices.values()
  }

  /** The choice's state; null for a number of choices that no OpenAI-compatible server sends. */
  stateOf(choice: Fields, position: number): ChoiceState | null {
    const index = choice['index'] === -1 ? 0 : (indexOf(choice['index']) ?? position)
    const known = this.#choices.get(index)
    if (known !== undefined) return known
    if (this.#choices.size >= MAX_CHOICES) return null
    const state = new ChoiceState(index, this.#tokenizer, this.#id_prefix, this.#label)
    this.#choices.set(index, state)
    return state
  }

  /** Takes in usage and finish reasons of a chunk. Answers false for a chunk that no OpenAI-compatible server sends. */
  see(chunk: Fields): boolean {
    const choices = choicesOf(chunk)
    for (let position = 0; position < choices.length; position++) {
      const choice = choices[position]
      if (isFields(choice) && !this.#seeChoice(choice, position)) return false
    }
    const usage = this.#accepted(chunk['usage'])
    if (usage !== null) this.#top = this.#latest = usage
    return true
  }

  /** A report that is not passed on: clients get it at the end, if they asked for one. */
  seeHidden(usage: Fields): void {
    const read = this.#accepted(usage)
    if (read === null) return
    this.#latest = read
    this.#hidden = JSON.stringify(isStandardUsage(usage) ? usage : usageJson(read))
  }

  /** Counts one text of an only choice that {@link see} has seen before. */
  countText(choice: Fields, field: 'content' | 'reasoning_content' | 'reasoning', text: string): void {
    const state = this.stateOf(choice, 0)
    if (state === null || text === '') return
    if (this.#reports > 0) this.#text_after_report = true
    if (field === 'content') state.addContent(text)
    else state.addReasoning(text)
  }

  /** Text went out that the reports so far do not count. */
  textAfterReport(): void {
    if (this.#reports > 0) this.#text_after_report = true
  }

  /** Usage was reported where clients look for it. */
  get reported_at_top(): boolean {
    return this.#top !== null
  }

  /** Usage that was reported elsewhere, as JSON, or null. */
  get hidden_usage_json(): string | null {
    return this.#hidden
  }

  /** There was one report and nothing after it: servers that count once do so at their end. */
  get reported_as_at_end(): boolean {
    return this.#reports === 1 && !this.#text_after_report && (this.#latest?.output ?? 0) > 0
  }

  get finished(): boolean {
    for (const choice of this.#choices.values()) if (choice.finish_reason === null) return false
    return this.#choices.size > 0
  }

  /** Read after every piece of an answer, so it only adds up. */
  observation(): Observation {
    let estimated_output = 0
    let estimated_reasoning = 0
    let first: ChoiceState | undefined = this.#choices.get(0)
    for (const choice of this.#choices.values()) {
      first ??= choice
      const { answer, reasoning } = choice.estimated()
      estimated_output += answer + reasoning
      estimated_reasoning += reasoning
    }
    return {
      reported: this.#latest,
      calls: NO_CALLS,
      estimated_output,
      estimated_reasoning,
      finish_reason: first?.finish_reason ?? null,
      finished: this.finished,
      repairs: this.repairs.size === 0 ? NO_REPAIRS : [...this.repairs],
    }
  }

  #seeChoice(choice: Fields, position: number): boolean {
    const state = this.stateOf(choice, position)
    if (state === null) return false
    const finish_reason = choice['finish_reason']
    // An answer that its server broke off is not finished, whatever else it says.
    if (saysFinished(finish_reason) && brokenOff(finish_reason) === null) state.finish_reason ??= finishOf(finish_reason).reason
    if (isFields(choice['usage'])) this.seeHidden(choice['usage'])
    return true
  }

  /** The last report counts, never a sum (vLLM's continuous_usage_stats repeat a growing total). */
  #accepted(value: unknown): TokenUsage | null {
    const usage = value === undefined || value === null ? null : readUsage(value)
    // All zeros in the middle of an answer is a server that fills the field before it counts.
    if (usage !== null && usage.output === 0 && allZero(usage) && this.#hasText() && !this.finished) return null
    if (usage === null) return null
    this.#reports++
    this.#text_after_report = false
    return usage
  }

  #hasText(): boolean {
    for (const choice of this.#choices.values()) if (choice.has_text) return true
    return false
  }
}

/** The choices of a chunk or answer; one that stands alone where a list belongs is a list of one. */
export function choicesOf({ choices }: Fields): readonly unknown[] {
  return Array.isArray(choices) ? choices : isFields(choices) ? [choices] : []
}

function allZero(usage: TokenUsage): boolean {
  return usage.input + usage.cached_input + usage.cache_write + usage.output === 0
}
