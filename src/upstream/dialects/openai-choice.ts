import { readText, unknownText } from './answer-text.ts'
import type { ChoiceState } from './openai-observer.ts'
import { brokenOff, finishOf, saysFinished } from './finish-reason.ts'
import type { Finish } from './finish-reason.ts'
import type { AnswerLabel } from './label.ts'
import { isFields } from './openai-usage.ts'
import { MAX_TOOL_CALLS, readToolCall } from './tool-calls.ts'
import type { Placement, ToolPiece } from './tool-calls.ts'

type Fields = Readonly<Record<string, unknown>>

/** A tool call of a chunk with the place it belongs to. */
export interface PlacedCall {
  readonly piece: ToolPiece
  readonly place: Placement
}

/** What one choice of a chunk (or of a whole answer) means, and what of it the client is to get. */
export interface ChoiceMeaning {
  readonly choice: Fields
  readonly position: number
  readonly index: number
  readonly state: ChoiceState
  /** The member with the texts: `delta` of a chunk, `message` of an answer; the other one where a server mixes them up; or `text`. */
  readonly container: 'delta' | 'message' | 'text' | null
  readonly body: Fields
  /** Null where the choice says none. */
  readonly finish: Finish | null
  /** The text that goes out: less than was said if the upstream repeats itself. */
  readonly content: string
  readonly reasoning: string
  readonly reasoning_field: string | null
  /** The content must be set rather than passed. */
  readonly content_changed: boolean
  /** What is to be put into the content to say that it was generated. */
  readonly label: AnswerLabel | null
  readonly reasoning_changed: boolean
  /** Null where nothing was said of tool calls; empty if what was said is a repetition. */
  readonly calls: readonly PlacedCall[] | null
  /** Text under names that nobody knows. */
  readonly unknown: string
  readonly role: 'keep' | 'remove' | 'assistant' | 'add'
}

/**
 * Works out one choice. `state` is changed by it: call once per chunk.
 *
 * @param whole an answer that is not streamed
 */
export function meaningOf(choice: Fields, position: number, state: ChoiceState, whole: boolean): ChoiceMeaning {
  const container = containerOf(choice, whole)
  const found = container === null ? null : choice[container]
  const body: Fields = isFields(found) ? found : container === 'text' ? { content: found } : {}
  const text = readText(body)
  const finish = saysFinished(choice['finish_reason']) ? finishOf(choice['finish_reason']) : null
  const repeats = !whole && container === 'message'
  const ends = finish !== null
  const content = repeats ? state.grownContent(text.content, ends) : ends && state.sent.isAgain(text.content) ? '' : text.content
  const reasoning = (repeats || ends) && state.reasoning_sent.isAgain(text.reasoning) ? '' : text.reasoning
  const calls = callsOf(body, state, repeats)
  const role = whole ? 'keep' : roleOf(body, state, calls !== null && calls.length > 0)
  if (role === 'add' || body['role'] !== undefined) state.role_sent = true
  return {
    ...{ choice, position, index: state.index, state, container, body, finish, content, reasoning, calls, role },
    reasoning_field: text.reasoning_field,
    content_changed: text.content_in_parts || content !== text.content,
    reasoning_changed: reasoning !== text.reasoning,
    label: state.label.take(content, ends || whole),
    unknown: unknownText(body),
  }
}

/** The failure that an answer with this choice really ended in, or null. */
export function brokenOffAt(choice: Fields): ReturnType<typeof brokenOff> {
  return saysFinished(choice['finish_reason']) ? brokenOff(choice['finish_reason']) : null
}

function containerOf(choice: Fields, whole: boolean): ChoiceMeaning['container'] {
  const names = whole ? (['message', 'delta'] as const) : (['delta', 'message'] as const)
  const named = names.find((name) => isFields(choice[name]))
  if (named !== undefined) return named
  return typeof choice['text'] === 'string' ? 'text' : null
}

function callsOf(body: Fields, state: ChoiceState, repeats: boolean): readonly PlacedCall[] | null {
  const given = body['tool_calls']
  if (given === undefined || given === null) return null
  // A message that repeats the answer has its calls again.
  if (repeats && state.tools.count > 0) return []
  const list: unknown[] = Array.isArray(given) ? given : [given]
  return list.filter(isFields).map((call) => {
    const piece = readToolCall(call)
    return { piece, place: state.tools.place(piece) }
  })
}

/**
 * Official SDKs put texts of one name together, so a role may be said once; and it can only be the assistant's (Zhipu says
 * `user` when it takes an answer back). A tool call without any before it needs one.
 */
function roleOf(body: Fields, state: ChoiceState, has_calls: boolean): ChoiceMeaning['role'] {
  const role = body['role']
  if (role === undefined) return has_calls && !state.role_sent ? 'add' : 'keep'
  if (state.role_sent) return 'remove'
  return role === 'assistant' ? 'keep' : 'assistant'
}

/** Adds the texts of a choice that go out to its counters. */
export function countMeaning({ state, content, reasoning, calls, unknown, body }: ChoiceMeaning): void {
  state.addContent(content)
  state.addReasoning(reasoning)
  state.add('refusal', body['refusal'])
  state.add('unknown', unknown)
  for (const { piece, place } of calls ?? []) {
    const index = Math.min(place.index, MAX_TOOL_CALLS - 1)
    if (!place.name_again) state.add(`name ${index}`, piece.name)
    state.add(`arguments ${index}`, piece.arguments)
  }
}
