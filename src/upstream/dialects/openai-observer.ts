import { createCounter } from '../../money/estimate.ts'
import type { TokenCounter, Tokenizer } from '../../money/estimate.ts'
import { NO_CALLS } from '../../money/usage.ts'
import type { TokenUsage } from '../../money/usage.ts'
import type { Observation } from './dialect.ts'
import { isFields, readUsage } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** More choices than any API gives (OpenAI's `n` ends at 128). */
const MAX_CHOICES = 128
/** Tool calls of one choice counted apart; those beyond share the last counter. */
const MAX_TOOL_CALLS = 128

const NO_REPAIRS: readonly string[] = []

/** One choice as far as it was delivered. Every text has its own counter: pieces of different texts must not run together. */
interface ChoiceState {
  finish_reason: string | null
  readonly answer: Map<string, TokenCounter>
  reasoning: TokenCounter | null
}

/** Watches an answer go by: usage, finish reasons, and the tokens of the text delivered. */
export class OpenaiObserver {
  readonly repairs = new Set<string>()
  readonly #tokenizer: Tokenizer
  readonly #choices = new Map<number, ChoiceState>()
  #top: TokenUsage | null = null
  #in_choice: { readonly usage: TokenUsage; readonly json: string } | null = null
  #latest: TokenUsage | null = null

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
  }

  /** Takes in usage and finish reasons of a chunk. Answers false for a chunk that no OpenAI-compatible server sends. */
  see(chunk: Fields): boolean {
    const choices = chunk['choices']
    if (Array.isArray(choices)) {
      for (let position = 0; position < choices.length; position++) {
        const choice: unknown = choices[position]
        if (isFields(choice) && !this.#seeChoice(choice, position)) return false
      }
    }
    const usage = this.#accepted(chunk['usage'])
    if (usage !== null) this.#top = this.#latest = usage
    return true
  }

  /** Counts the text of a chunk that goes out (or the message of a whole answer). */
  count(chunk: Fields): void {
    const choices = chunk['choices']
    if (!Array.isArray(choices)) return
    for (let position = 0; position < choices.length; position++) {
      const choice: unknown = choices[position]
      if (!isFields(choice)) continue
      const state = this.#choices.get(indexOf(choice, position))
      const text = choice['delta'] ?? choice['message']
      if (state !== undefined && isFields(text)) this.#countText(state, text)
    }
  }

  /** Counts one text of an only choice that {@link see} has seen before. */
  countText(choice: Fields, field: 'content' | 'reasoning_content', text: string): void {
    const state = this.#choices.get(indexOf(choice, 0))
    if (state === undefined || text === '') return
    if (field === 'content') this.#add(state, 'content', text)
    else (state.reasoning ??= createCounter(this.#tokenizer)).add(text)
  }

  /** Usage was reported where clients look for it. */
  get reported_at_top(): boolean {
    return this.#top !== null
  }

  /** The usage that was reported inside a choice, as JSON, or null. */
  get choice_usage_json(): string | null {
    return this.#in_choice === null ? null : this.#in_choice.json
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
      for (const counter of choice.answer.values()) estimated_output += counter.total()
      estimated_reasoning += choice.reasoning?.total() ?? 0
    }
    return {
      reported: this.#latest,
      calls: NO_CALLS,
      estimated_output: estimated_output + estimated_reasoning,
      estimated_reasoning,
      finish_reason: first?.finish_reason ?? null,
      finished: this.finished,
      repairs: this.repairs.size === 0 ? NO_REPAIRS : [...this.repairs],
    }
  }

  #seeChoice(choice: Fields, position: number): boolean {
    const index = indexOf(choice, position)
    let state = this.#choices.get(index)
    if (state === undefined) {
      if (this.#choices.size >= MAX_CHOICES) return false
      state = { finish_reason: null, answer: new Map(), reasoning: null }
      this.#choices.set(index, state)
    }
    const finish_reason = choice['finish_reason']
    if (typeof finish_reason === 'string' && finish_reason !== '') state.finish_reason ??= finish_reason
    const usage = this.#accepted(choice['usage'])
    if (usage !== null) {
      this.#in_choice = { usage, json: JSON.stringify(choice['usage']) }
      this.#latest = usage
    }
    return true
  }

  /** The last report counts, never a sum (vLLM's continuous_usage_stats repeat a growing total). */
  #accepted(value: unknown): TokenUsage | null {
    const usage = value === undefined || value === null ? null : readUsage(value)
    // All zeros in the middle of an answer is a server that fills the field before it counts.
    if (usage !== null && usage.output === 0 && allZero(usage) && this.#hasText() && !this.finished) return null
    return usage
  }

  #hasText(): boolean {
    for (const choice of this.#choices.values()) if (choice.reasoning !== null || choice.answer.size > 0) return true
    return false
  }

  #countText(state: ChoiceState, text: Fields): void {
    this.#add(state, 'content', text['content'])
    this.#add(state, 'refusal', text['refusal'])
    const reasoning = reasoningOf(text)
    if (reasoning !== '') (state.reasoning ??= createCounter(this.#tokenizer)).add(reasoning)
    const calls = text['tool_calls']
    if (calls === undefined || calls === null) return
    for (const [position, call] of (Array.isArray(calls) ? calls : [calls]).entries()) {
      if (!isFields(call) || !isFields(call['function'])) continue
      const index = Math.min(indexOf(call, position), MAX_TOOL_CALLS - 1)
      this.#add(state, `name ${index}`, call['function']['name'])
      this.#add(state, `arguments ${index}`, call['function']['arguments'])
    }
  }

  #add(state: ChoiceState, channel: string, text: unknown): void {
    if (typeof text !== 'string' || text === '') return
    let counter = state.answer.get(channel)
    if (counter === undefined) {
      counter = createCounter(this.#tokenizer)
      state.answer.set(channel, counter)
    }
    counter.add(text)
  }
}

/** Three spellings of the same text; some servers send two of them, so only the first that is there counts. */
function reasoningOf(text: Fields): string {
  const plain = text['reasoning_content'] ?? text['reasoning']
  if (typeof plain === 'string' && plain !== '') return plain
  const details = text['reasoning_details']
  if (!Array.isArray(details)) return ''
  return details.map((detail) => (isFields(detail) && typeof detail['text'] === 'string' ? detail['text'] : '')).join('')
}

/** The index as the client sees it: −1 is repaired to 0; without one the position stands in. */
function indexOf(fields: Fields, position: number): number {
  const index = fields['index']
  if (index === -1) return 0
  return typeof index === 'number' && Number.isInteger(index) && index >= 0 ? index : position
}

function allZero(usage: TokenUsage): boolean {
  return usage.input + usage.cached_input + usage.cache_write + usage.output === 0
}
