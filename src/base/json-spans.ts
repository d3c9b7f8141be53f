/**
 * Where things are in JSON bytes, without building values. Edits are made on the bytes, so that whatever is not
 * edited (big integers, duplicate keys, spacing) stays as it was. Linear in the input, iterative, bounded.
 *
 * The structure is checked in full (brackets, commas, colons, literals, numbers). The inside of strings is not: escapes and
 * control characters are left to `JSON.parse`, which every caller runs on the same bytes anyway.
 */

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const MINUS = 0x2d
const PLUS = 0x2b
const DOT = 0x2e
const ZERO = 0x30
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
/** In ASCII both closing brackets are two above their opening ones. */
const TO_CLOSER = 2

/** Strings are searched byte by byte for this long, then with the native search. */
const SHORT_STRING_BYTES = 64

/** Bounds of one scan. */
export interface JsonLimits {
  /** Deepest nesting accepted; an object of scalars has depth 1. */
  readonly max_depth: number
  /** Most members (elements) reported of the object (array) that is scanned; nested ones are not counted. */
  readonly max_members?: number
}

const MAX_MEMBERS = 10_000
const DEFAULT_LIMITS: JsonLimits = { max_depth: 512 }

/** The bytes are not the JSON that was expected, or exceed a limit. The message never quotes the input. */
export class JsonSpanError extends Error {
  override name = 'JsonSpanError'
  /** Byte offset at which the scan stopped. */
  readonly offset: number
  constructor(reason: string, offset: number) {
    super(`${reason} at byte ${offset}`)
    this.offset = offset
  }
}

/** One member of an object, as byte offsets. The key's span includes its quotes; ends are exclusive. */
export interface MemberSpan {
  readonly key_start: number
  readonly key_end: number
  readonly value_start: number
  readonly value_end: number
}

/** One element of an array, as byte offsets; the end is exclusive. */
export interface ElementSpan {
  readonly start: number
  readonly end: number
}

/** Replaces the bytes from `start` to `end` (exclusive). `start === end` inserts. */
export interface Edit {
  readonly start: number
  readonly end: number
  readonly replacement: Buffer
}

/**
 * The members of the object that begins at `start` (white space before it is skipped), in order, duplicates included.
 *
 * @throws JsonSpanError when no well-formed object is there, or a limit is exceeded. What follows the object is not looked at.
 */
export function objectMembers(bytes: Buffer, start: number, limits: JsonLimits = DEFAULT_LIMITS): MemberSpan[] {
  const members: MemberSpan[] = []
  const max_members = limits.max_members ?? MAX_MEMBERS
  visitObject(bytes, start, limits.max_depth, (key_start, key_end, value_start, value_end) => {
    if (members.length >= max_members) throw new JsonSpanError(`more than ${max_members} members`, key_start)
    members.push({ key_start, key_end, value_start, value_end })
  })
  return members
}

/**
 * The elements of the array that begins at `start` (white space before it is skipped), in order.
 *
 * @throws JsonSpanError when no well-formed array is there, or a limit is exceeded. What follows the array is not looked at.
 */
export function arrayElements(bytes: Buffer, start: number, limits: JsonLimits = DEFAULT_LIMITS): ElementSpan[] {
  const elements: ElementSpan[] = []
  const max_members = limits.max_members ?? MAX_MEMBERS
  let at = open(bytes, start, OPEN_BRACKET, limits.max_depth)
  if (bytes[at] === CLOSE_BRACKET) return elements
  for (;;) {
    const end = skipValue(bytes, at, limits.max_depth - 1)
    if (elements.length >= max_members) throw new JsonSpanError(`more than ${max_members} elements`, at)
    elements.push({ start: at, end })
    at = skipSpace(bytes, end)
    if (bytes[at] === CLOSE_BRACKET) return elements
    at = skipSpace(bytes, expect(bytes, at, COMMA))
  }
}

/** Whether the member's key is `name` once unescaped: `"mod\u0065l"` is `model`. */
export function keyIs(bytes: Buffer, member: MemberSpan, name: string): boolean {
  return sameKey(bytes, member.key_start, member.key_end, name)
}

/**
 * The edits that remove the members at `indexes` (ascending) with the right commas, so that the object stays well-formed.
 * Together, because neighbours share a comma.
 */
export function removeMembers(members: readonly MemberSpan[], indexes: readonly number[]): Edit[] {
  const edits: Edit[] = []
  for (let from = 0; from < indexes.length;) {
    let to = from
    while (to + 1 < indexes.length && indexes[to + 1] === (indexes[to] ?? 0) + 1) to++
    const edit = removeRun(members, indexes[from] ?? 0, indexes[to] ?? 0)
    if (edit !== null) edits.push(edit)
    from = to + 1
  }
  return edits
}

function removeRun(members: readonly MemberSpan[], first: number, last: number): Edit | null {
  const first_member = members[first]
  const last_member = members[last]
  if (first_member === undefined || last_member === undefined) return null
  const before = members[first - 1]
  const after = members[last + 1]
  if (after !== undefined) return { start: first_member.key_start, end: after.key_start, replacement: NOTHING }
  return { start: before === undefined ? first_member.key_start : before.value_end, end: last_member.value_end, replacement: NOTHING }
}

const NOTHING = Buffer.alloc(0)

/**
 * The bytes with the edits made. Edits may come in any order.
 *
 * @throws RangeError if edits overlap or lie outside: a mistake of the caller, never of the input
 */
export function spliceBytes(bytes: Buffer, edits: readonly Edit[]): Buffer {
  if (edits.length === 0) return bytes
  const parts: Buffer[] = []
  let at = 0
  for (const edit of edits.toSorted((a, b) => a.start - b.start)) {
    if (edit.start < at || edit.end < edit.start || edit.end > bytes.length) throw new RangeError('edits overlap or lie outside')
    parts.push(bytes.subarray(at, edit.start), edit.replacement)
    at = edit.end
  }
  parts.push(bytes.subarray(at))
  return Buffer.concat(parts)
}

/** Most occurrences of keys that one rewrite replaces; more duplicates than this are an attack, not a request. */
const MAX_REWRITES = 1_000

/**
 * Sets top-level members of a JSON object: every occurrence of a key in `set` gets the new value (given as JSON bytes), and
 * keys that do not occur are appended. All other bytes stay as they are.
 *
 * @throws JsonSpanError when `body` is not one well-formed JSON object, or a limit is exceeded
 */
export function rewriteMembers(body: Buffer, set: Readonly<Record<string, Buffer>>, limits: JsonLimits = DEFAULT_LIMITS): Buffer {
  const wanted = Object.entries(set)
  const missing = new Set(Object.keys(set))
  const edits: Edit[] = []
  let last_end = -1
  const end = visitObject(body, 0, limits.max_depth, (key_start, key_end, value_start, value_end) => {
    last_end = value_end
    for (const [name, replacement] of wanted) {
      if (!sameKey(body, key_start, key_end, name)) continue
      if (edits.length >= MAX_REWRITES) throw new JsonSpanError(`a key occurs more than ${MAX_REWRITES} times`, key_start)
      missing.delete(name)
      edits.push({ start: value_start, end: value_end, replacement })
    }
  })
  const trailing = skipSpace(body, end)
  if (trailing !== body.length) throw new JsonSpanError('something follows the object', trailing)
  const appended = wanted
    .filter(([name]) => missing.has(name))
    .map(([name, value]) => Buffer.concat([Buffer.from(`${JSON.stringify(name)}:`), value]))
  if (appended.length === 0) return spliceBytes(body, edits)
  const at = last_end === -1 ? skipSpace(body, 0) + 1 : last_end
  const text = appended.flatMap((member, index) => (index === 0 && last_end === -1 ? [member] : [COMMA_BYTES, member]))
  return spliceBytes(body, [...edits, { start: at, end: at, replacement: Buffer.concat(text) }])
}

const COMMA_BYTES = Buffer.from(',')

/** Walks an object's members; answers the offset behind its closing brace. */
function visitObject(
  bytes: Buffer,
  start: number,
  max_depth: number,
  visit: (key_start: number, key_end: number, value_start: number, value_end: number) => void,
): number {
  let at = open(bytes, start, OPEN_BRACE, max_depth)
  if (bytes[at] === CLOSE_BRACE) return at + 1
  for (;;) {
    const key_start = at
    const key_end = skipString(bytes, at)
    const value_start = skipSpace(bytes, expect(bytes, skipSpace(bytes, key_end), COLON))
    const value_end = skipValue(bytes, value_start, max_depth - 1)
    visit(key_start, key_end, value_start, value_end)
    at = skipSpace(bytes, value_end)
    if (bytes[at] === CLOSE_BRACE) return at + 1
    at = skipSpace(bytes, expect(bytes, at, COMMA))
  }
}

function open(bytes: Buffer, start: number, opener: number, max_depth: number): number {
  const at = skipSpace(bytes, start)
  if (bytes[at] !== opener) throw new JsonSpanError(opener === OPEN_BRACE ? 'no object' : 'no array', at)
  if (max_depth < 1) throw tooDeep(at)
  return skipSpace(bytes, at + 1)
}

/** Skips one value of any kind, which begins exactly at `start`. Iterative: a stack of the closers still to come. */
function skipValue(bytes: Buffer, start: number, max_depth: number): number {
  const first = bytes[start]
  if (first === QUOTE) return skipString(bytes, start)
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) return skipScalar(bytes, start)
  const closers: number[] = []
  let at = start
  for (;;) {
    const byte = bytes[at]
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      if (closers.length >= max_depth) throw tooDeep(at)
      at = skipSpace(bytes, at + 1)
      if (bytes[at] !== byte + TO_CLOSER) {
        closers.push(byte + TO_CLOSER)
        if (byte === OPEN_BRACE) at = skipKey(bytes, at)
        continue
      }
      at++
    } else {
      at = byte === QUOTE ? skipString(bytes, at) : skipScalar(bytes, at)
    }
    at = closeAll(bytes, at, closers)
    if (closers.length === 0) return at
  }
}

/** Behind a value: closes what ends here, and moves on to the next value if a comma follows. */
function closeAll(bytes: Buffer, after: number, closers: number[]): number {
  let at = after
  while (closers.length > 0) {
    const closer = closers[closers.length - 1]
    at = skipSpace(bytes, at)
    if (bytes[at] === COMMA) {
      at = skipSpace(bytes, at + 1)
      return closer === CLOSE_BRACE ? skipKey(bytes, at) : at
    }
    if (bytes[at] !== closer) throw new JsonSpanError('malformed JSON', at)
    closers.pop()
    at++
  }
  return at
}

/** From a key's opening quote to the first byte of its value. */
function skipKey(bytes: Buffer, start: number): number {
  return skipSpace(bytes, expect(bytes, skipSpace(bytes, skipString(bytes, start)), COLON))
}

function skipSpace(bytes: Buffer, start: number): number {
  let at = start
  for (;;) {
    const byte = bytes[at]
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return at
    at++
  }
}

function expect(bytes: Buffer, at: number, byte: number): number {
  if (bytes[at] !== byte) throw new JsonSpanError('malformed JSON', at)
  return at + 1
}

/** From an opening quote to behind its closing one. */
function skipString(bytes: Buffer, start: number): number {
  let at = expect(bytes, start, QUOTE)
  for (;;) {
    const near = Math.min(at + SHORT_STRING_BYTES, bytes.length)
    while (at < near) {
      const byte = bytes[at]
      if (byte === QUOTE) return at + 1
      at += byte === BACKSLASH ? 2 : 1
    }
    const quote = bytes.indexOf(QUOTE, at)
    if (quote === -1) throw new JsonSpanError('unterminated string', bytes.length)
    let backslashes = 0
    while (quote - 1 - backslashes >= at && bytes[quote - 1 - backslashes] === BACKSLASH) backslashes++
    if (backslashes % 2 === 0) return quote + 1
    at = quote + 1
  }
}

const LITERALS: Readonly<Record<number, Buffer>> = { 0x74: Buffer.from('true'), 0x66: Buffer.from('false'), 0x6e: Buffer.from('null') }

function skipScalar(bytes: Buffer, start: number): number {
  const first = bytes[start] ?? 0
  if (first === MINUS || isDigit(first)) return skipNumber(bytes, start)
  const literal = LITERALS[first]
  if (literal === undefined) throw new JsonSpanError('malformed JSON', start)
  for (let index = 0; index < literal.length; index++) {
    if (bytes[start + index] !== literal[index]) throw new JsonSpanError('malformed JSON', start)
  }
  return start + literal.length
}

/** RFC 8259 §6. */
function skipNumber(bytes: Buffer, start: number): number {
  let at = bytes[start] === MINUS ? start + 1 : start
  at = bytes[at] === ZERO ? at + 1 : skipDigits(bytes, at)
  if (bytes[at] === DOT) at = skipDigits(bytes, at + 1)
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    const sign = bytes[at + 1]
    at = skipDigits(bytes, sign === PLUS || sign === MINUS ? at + 2 : at + 1)
  }
  return at
}

function skipDigits(bytes: Buffer, start: number): number {
  let at = start
  while (isDigit(bytes[at] ?? 0)) at++
  if (at === start) throw new JsonSpanError('malformed number', at)
  return at
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

function tooDeep(at: number): JsonSpanError {
  return new JsonSpanError('nested too deeply', at)
}

function sameKey(bytes: Buffer, key_start: number, key_end: number, name: string): boolean {
  const length = key_end - key_start - 2
  // A character is never shorter in JSON than in UTF-16, and at its longest the six bytes of \uXXXX.
  if (length < name.length || length > name.length * 6) return false
  if (length === name.length) {
    for (let index = 0; index < length; index++) {
      if (bytes[key_start + 1 + index] !== name.charCodeAt(index)) return false
    }
    return true
  }
  for (let at = key_start + 1; at < key_end - 1; at++) {
    const byte = bytes[at] ?? 0
    if (byte === BACKSLASH || byte >= 0x80) return unescaped(bytes, key_start, key_end) === name
  }
  return false
}

function unescaped(bytes: Buffer, start: number, end: number): unknown {
  try {
    return JSON.parse(bytes.toString('utf8', start, end))
  } catch {
    throw new JsonSpanError('malformed string', start)
  }
}
