import { isFields } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** Tool calls of one choice told apart, at most; those beyond are taken for pieces of the last one. */
export const MAX_TOOL_CALLS = 128

/** What a fragment of a tool call says of itself. */
export interface ToolPiece {
  /** Null where it is missing or no index (−1). */
  readonly index: number | null
  readonly id: string
  readonly name: string
  /** Arguments as text, or null where there are none. */
  readonly arguments: string | null
}

/** Where a fragment belongs, and what of it the client must not see again. */
export interface Placement {
  /** From 0 in the order in which calls began, without gaps. */
  readonly index: number
  /** The call's first fragment: it must have an id, a type, and arguments. */
  readonly first: boolean
  /** The id by which the client knows the call. */
  readonly id: string
  /** The fragment says an id that the client has (official SDKs would put them together). */
  readonly id_again: boolean
  readonly name_again: boolean
}

interface KnownCall {
  readonly index: number
  readonly native_index: number | null
  /** As the upstream says it; empty where it does not. */
  readonly native_id: string
  readonly id: string
  name: string
  readonly arguments: JsonProgress
}

/**
 * Tells which call each fragment belongs to, by id, index and order, whichever of them a server leaves out, repeats or
 * counts wrongly: GLM-4.5 sends −1, Spark and MiniMax no index, Spark no id, Qwen an empty one, vLLM of some versions a new
 * one with each fragment. One per choice.
 */
export class ToolCallTracker {
  readonly #calls: KnownCall[] = []
  readonly #id_prefix: string

  /** @param id_prefix of ids for calls that have none: unique for the answer and the choice */
  constructor(id_prefix: string) {
    this.#id_prefix = id_prefix
  }

  get count(): number {
    return this.#calls.length
  }

  place(piece: ToolPiece): Placement {
    const known = this.#find(piece)
    const call = known ?? this.#begin(piece)
    if (piece.arguments !== null) call.arguments.take(piece.arguments)
    const first = known === null
    const placement = {
      index: call.index,
      first,
      id: call.id,
      id_again: !first && piece.id !== '',
      name_again: !first && piece.name !== '' && piece.name === call.name,
    }
    if (call.name === '') call.name = piece.name
    return placement
  }

  #find(piece: ToolPiece): KnownCall | null {
    const same_id = piece.id === '' ? undefined : this.#calls.findLast((call) => call.native_id === piece.id)
    const same_index = piece.index === null ? this.#calls.at(-1) : this.#calls.findLast((call) => call.native_index === piece.index)
    const held = same_id ?? same_index
    if (held === undefined) return null
    return this.#begins(piece, held) && this.#calls.length < MAX_TOOL_CALLS ? null : held
  }

  /** Whether a fragment that seems to belong to `held` begins another call: only a beginning has a name, and one that is not said again. */
  #begins(piece: ToolPiece, held: KnownCall): boolean {
    if (piece.name === '' || held.name === '') return false
    if (piece.id !== '' && held.native_id !== '' && piece.id !== held.native_id) return true
    if (piece.index !== null && held.native_index !== null && piece.index !== held.native_index) return true
    const says_more = piece.arguments !== null && piece.arguments !== ''
    return piece.name === held.name ? held.arguments.complete && says_more : held.arguments.begun
  }

  #begin(piece: ToolPiece): KnownCall {
    const index = this.#calls.length
    const unusable = piece.id === '' || this.#calls.some((call) => call.id === piece.id)
    const id = unusable ? `${this.#id_prefix}_${index}` : piece.id
    const call = { index, native_index: piece.index, native_id: piece.id, id, name: '', arguments: new JsonProgress() }
    this.#calls.push(call)
    return call
  }
}

/** Follows a JSON text as it arrives, to know when it is complete. */
export class JsonProgress {
  begun = false
  complete = false
  #depth = 0
  #in_string = false
  #escaped = false

  take(text: string): void {
    for (let at = 0; at < text.length; at++) this.step(text.charCodeAt(at))
  }

  /** One character (or byte: all that matter are ASCII). Answers true when it ends the outermost object or list. */
  step(code: number): boolean {
    if (this.#in_string) {
      if (this.#escaped) this.#escaped = false
      else if (code === BACKSLASH) this.#escaped = true
      else if (code === QUOTE) this.#in_string = false
      return false
    }
    if (code <= 0x20) return false
    this.begun = true
    if (code === QUOTE) this.#in_string = true
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) this.#depth++
    else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) this.#depth--
    else return false
    this.complete = this.#depth <= 0 && !this.#in_string
    return this.complete
  }
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d

/** What a fragment says: in `function` as everyone does, or beside it. */
export function readToolCall(call: Fields): ToolPiece {
  const made = isFields(call['function']) ? call['function'] : call
  const given = made['arguments'] ?? null
  return {
    index: indexOf(call['index']),
    id: typeof call['id'] === 'string' ? call['id'] : typeof call['id'] === 'number' ? String(call['id']) : '',
    name: typeof made['name'] === 'string' ? made['name'] : '',
    arguments: given === null ? null : typeof given === 'string' ? given : JSON.stringify(given),
  }
}

/** An index from 0 on, also as a text; else null. */
export function indexOf(value: unknown): number | null {
  const index = typeof value === 'string' && /^\d{1,6}$/.test(value) ? Number(value) : value
  return typeof index === 'number' && Number.isSafeInteger(index) && index >= 0 ? index : null
}
