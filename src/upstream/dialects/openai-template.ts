import { arrayElements, keyIs, objectMembers, spliceBytes } from '../../base/json-spans.ts'
import type { Edit, MemberSpan } from '../../base/json-spans.ts'
import type { Frame } from '../sse.ts'
import { ANSWER_LIMITS, REASONING_COPY } from './openai-repairs.ts'
import { isFields } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** The texts that may differ between chunks of one template. */
export type TextField = 'content' | 'reasoning_content' | 'reasoning'

/** Of a chunk, what every chunk with the same template has too. */
export interface TemplateFacts {
  readonly field: TextField
  /** Index of its only choice, as sent. */
  readonly choice: Fields
  readonly id: unknown
  readonly created: unknown
}

/**
 * What two chunks share that differ in one text only: all bytes before and behind it. A JSON text whose one string is replaced by another
 * JSON string means the same but for that string, so such a chunk needs no parsing of its own: it is edited as the first one was.
 */
export class ChunkTemplate {
  readonly facts: TemplateFacts
  readonly #before: Buffer
  readonly #behind: Buffer
  /** The same bytes as the client is to see them. */
  readonly out_before: Buffer
  readonly out_behind: Buffer
  /** For a text that goes out once more under another name: the bytes between the two. */
  readonly out_between: Buffer | null

  private constructor(facts: TemplateFacts, raw: Buffer, start: number, end: number, edits: readonly Edit[]) {
    this.facts = facts
    // Copies: a view would keep the whole piece of the answer that it was read from.
    this.#before = Buffer.from(raw.subarray(0, start))
    this.#behind = Buffer.from(raw.subarray(end))
    this.out_before = spliceBytes(
      this.#before,
      edits.filter((edit) => edit.end <= start),
    )
    const behind = edits.filter((edit) => edit.start >= end).map((edit) => moved(edit, -end))
    const copy = behind.find((edit) => isCopy(edit, raw.subarray(start, end)))
    const from = copy?.start ?? 0
    const rest = behind.filter((edit) => edit !== copy && edit.start >= from)
    this.out_behind = spliceBytes(
      this.#behind.subarray(from),
      rest.map((edit) => moved(edit, -from)),
    )
    const between = behind.filter((edit) => edit !== copy && edit.end <= from && edit.start < from)
    this.out_between = copy === undefined ? null : Buffer.concat([spliceBytes(this.#behind.subarray(0, from), between), REASONING_COPY])
  }

  /**
   * The template of a chunk, or null if the next ones like it must be parsed: more than one choice, usage, a finish reason, tool calls.
   *
   * @param edits those of `data`, as `chunkEdits` made them
   */
  static of(frame: Frame, data: Buffer, chunk: Fields, edits: readonly Edit[]): ChunkTemplate | null {
    const [segment, second] = frame.data_segments
    if (segment === undefined || second !== undefined || frame.event !== null || !frame.complete) return null
    const facts = factsOf(chunk)
    const text = facts === null ? null : textSpan(data, facts.field)
    if (facts === null || text === null) return null
    const { raw_start } = segment
    const [start, end] = [text.value_start + raw_start, text.value_end + raw_start]
    const raw_edits = edits.map((edit) => moved(edit, raw_start))
    if (raw_edits.some((edit) => edit.end > start && edit.start < end)) return null
    if (facts.field === 'reasoning' && !raw_edits.some((edit) => edit.start >= end && isCopy(edit, frame.raw.subarray(start, end))))
      return null
    return new ChunkTemplate(facts, frame.raw, start, end, raw_edits)
  }

  /** The text of a chunk that has this template, as JSON, from and to offsets of `raw`; null if it has another. */
  match(raw: Buffer): { readonly text: string; readonly start: number; readonly end: number } | null {
    const start = this.#before.length
    const end = raw.length - this.#behind.length
    if (end - start < 2 || this.#before.compare(raw, 0, start) !== 0 || this.#behind.compare(raw, end) !== 0) return null
    const text = stringFrom(raw, start, end)
    return text === null ? null : { text, start, end }
  }
}

function isCopy({ start, end, replacement }: Edit, text: Buffer): boolean {
  return (
    start === end && replacement.length === REASONING_COPY.length + text.length && replacement.subarray(REASONING_COPY.length).equals(text)
  )
}

function moved({ start, end, replacement }: Edit, by: number): Edit {
  return { start: start + by, end: end + by, replacement }
}

/** The value if the bytes are exactly one JSON string. */
function stringFrom(raw: Buffer, start: number, end: number): string | null {
  if (raw[start] !== 0x22 || raw[end - 1] !== 0x22) return null
  try {
    const value: unknown = JSON.parse(raw.toString('utf8', start, end))
    return typeof value === 'string' ? value : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

/** Null unless the chunk carries one text of one choice and nothing else that is watched. */
function factsOf(chunk: Fields): TemplateFacts | null {
  const choices = chunk['choices']
  if (!Array.isArray(choices) || choices.length !== 1 || isGiven(chunk['usage'])) return null
  const choice: unknown = choices[0]
  if (!isFields(choice) || isGiven(choice['usage']) || isGiven(choice['finish_reason'])) return null
  const delta = choice['delta']
  if (!isFields(delta)) return null
  for (const name of ['refusal', 'reasoning_details', 'tool_calls', 'function_call']) if (isGiven(delta[name])) return null
  const given = TEXT_FIELDS.filter((name) => isGiven(delta[name]))
  const [field] = given
  if (field === undefined || given.length > 1 || typeof delta[field] !== 'string') return null
  return { field, choice, id: chunk['id'], created: chunk['created'] }
}

const TEXT_FIELDS: readonly TextField[] = ['content', 'reasoning_content', 'reasoning']

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== ''
}

/** Where the text is: `choices[0].delta.<field>`, each of these keys once. */
function textSpan(data: Buffer, field: TextField): MemberSpan | null {
  const choices = onlyMember(data, 0, 'choices')
  const [choice] = choices === null ? [] : arrayElements(data, choices.value_start, ANSWER_LIMITS)
  const delta = choice === undefined ? null : onlyMember(data, choice.start, 'delta')
  return delta === null ? null : onlyMember(data, delta.value_start, field)
}

function onlyMember(data: Buffer, start: number, name: string): MemberSpan | null {
  const found = objectMembers(data, start, ANSWER_LIMITS).filter((member) => keyIs(data, member, name))
  return found.length === 1 ? (found[0] ?? null) : null
}
