/**
 * Framing of event streams: bytes in, events out, no I/O. The rules are those of the WHATWG HTML standard, "Server-sent events",
 * §9.2.5 (parsing) and §9.2.6 (interpretation), with the raw bytes of every event kept beside its meaning.
 */

const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20
const COLON = 0x3a
const BOM = Buffer.from([0xef, 0xbb, 0xbf])
const NEWLINE = Buffer.from('\n')
const EMPTY = Buffer.alloc(0)

/** A line of data: the offset in `data` where it begins, and the offset of the same byte in `raw`. */
export interface DataSegment {
  readonly data_start: number
  readonly raw_start: number
}

/** One event (or block of comments) of a stream. */
export interface Frame {
  /** The exact bytes, blank line included. All frames' `raw` together are the input without its byte order mark. */
  readonly raw: Buffer
  /** The `data` lines joined with `\n`, or null if there was none. */
  readonly data: Buffer | null
  /** One per `data` line, ascending. */
  readonly data_segments: readonly DataSegment[]
  readonly event: string | null
  /** No field of any kind: comments or nothing. */
  readonly comment_only: boolean
  /**
   * Only a line feed, which belongs to the previous frame. A frame is released at the carriage return that ends it, so that
   * nothing waits for a line feed that may never come; when it does come in a later chunk, it comes as this.
   */
  readonly late_line_feed: boolean
  /** The blank line was there. False only for what was left at the end of the stream. */
  readonly complete: boolean
}

/** An event is larger than accepted. `frames` are the events of the same push before it. */
export class EventTooLargeError extends Error {
  override name = 'EventTooLargeError'
  readonly frames: readonly Frame[]
  constructor(max_event_bytes: number, frames: readonly Frame[]) {
    super(`an event is larger than ${max_event_bytes} bytes`)
    this.frames = frames
  }
}

export interface Framer {
  /**
   * The events that are complete with this chunk. They may share its memory.
   *
   * @throws EventTooLargeError; nothing may be pushed after it
   */
  push(chunk: Buffer): Frame[]
  /** What was left without its blank line: no frame or one, with `complete: false`. */
  end(): Frame[]
  /** A byte order mark was removed. */
  readonly bom_removed: boolean
}

/** A framer for one stream. `max_event_bytes` bounds one event, raw, and so the memory held between pushes. */
export function createFramer(options: { readonly max_event_bytes: number }): Framer {
  return new EventFramer(options.max_event_bytes)
}

/**
 * The offset in `raw` of an offset in `data`. Serves for both ends of an edit: an exclusive end at the start of a line of data
 * maps behind the line's `data:`, so that removing a line break removes the whole joint.
 */
export function rawOffset(frame: Frame, data_offset: number): number {
  const segments = frame.data_segments
  let low = 0
  let high = segments.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((segments[middle]?.data_start ?? 0) <= data_offset) low = middle
    else high = middle - 1
  }
  const segment = segments[low]
  if (segment === undefined) throw new RangeError('the frame has no data')
  return segment.raw_start + data_offset - segment.data_start
}

/** Finds line ends going forward through one buffer; every byte is searched once for each of the two kinds. */
class LineEnds {
  readonly #bytes: Buffer
  #next_lf = -1
  #next_cr = -1

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Offset of the first CR or LF at or behind `from`, or -1. `from` never decreases between calls. */
  next(from: number): number {
    if (this.#next_lf < from) this.#next_lf = found(this.#bytes.indexOf(LF, from))
    if (this.#next_cr < from) this.#next_cr = found(this.#bytes.indexOf(CR, from))
    const nearest = Math.min(this.#next_lf, this.#next_cr)
    return nearest === NEVER ? -1 : nearest
  }
}

const NEVER = Number.MAX_SAFE_INTEGER

function found(offset: number): number {
  return offset === -1 ? NEVER : offset
}

class EventFramer implements Framer {
  readonly #max_event_bytes: number
  bom_removed = false
  /** Bytes of a possible byte order mark seen so far; 3 once that is decided. */
  #bom_bytes = 0
  /** The beginning of the current event, in a buffer that doubles: one-byte chunks cost no more than whole ones. */
  #held: Buffer = EMPTY
  #held_bytes = 0
  #line_empty = true
  #lines = 0
  /** The last byte was a CR: an LF directly after it belongs to it. */
  #after_cr = false
  #late_line_feed = false

  constructor(max_event_bytes: number) {
    this.#max_event_bytes = max_event_bytes
  }

  push(chunk: Buffer): Frame[] {
    const bytes = this.#bom_bytes === BOM.length ? chunk : this.#withoutBom(chunk)
    const frames: Frame[] = []
    if (bytes.length === 0) return frames
    let start = 0
    if (this.#late_line_feed) {
      this.#late_line_feed = false
      if (bytes[0] === LF) {
        frames.push(lateLineFeed(bytes.subarray(0, 1)))
        start = 1
      }
    }
    const lines = new LineEnds(bytes)
    while (start < bytes.length) {
      const end = this.#scan(bytes, lines, start)
      this.#checkSize(bytes, start, end, frames)
      if (end === -1) {
        this.#hold(bytes, start)
        break
      }
      frames.push(this.#release(bytes, start, end))
      start = end
    }
    return frames
  }

  end(): Frame[] {
    if (this.#bom_bytes > 0 && this.#bom_bytes < BOM.length) this.#hold(BOM.subarray(0, this.#bom_bytes), 0)
    if (this.#held_bytes === 0) return []
    const raw = this.#held.subarray(0, this.#held_bytes)
    this.#held_bytes = 0
    return [readFields(raw, false)]
  }

  /** Offset behind the blank line that ends the current event, or -1 if the bytes end first. */
  #scan(bytes: Buffer, lines: LineEnds, start: number): number {
    let at = start
    if (this.#after_cr) {
      this.#after_cr = false
      if (bytes[at] === LF) at++
    }
    while (at < bytes.length) {
      const line_end = lines.next(at)
      if (line_end === -1) {
        this.#line_empty = false
        return -1
      }
      const blank = this.#line_empty && line_end === at
      at = line_end + 1
      if (bytes[line_end] === CR) {
        if (at === bytes.length) this.#after_cr = true
        else if (bytes[at] === LF) at++
      }
      this.#line_empty = true
      if (blank) return at
      this.#lines++
    }
    return -1
  }

  /** The line feed of a final CRLF is not counted, so that the limit does not depend on where the chunks are split. */
  #checkSize(bytes: Buffer, start: number, end: number, frames: readonly Frame[]): void {
    const until = end === -1 ? bytes.length : end
    const line_feed = end - start > 1 && bytes[end - 1] === LF && bytes[end - 2] === CR ? 1 : 0
    if (this.#held_bytes + until - start - line_feed > this.#max_event_bytes) throw new EventTooLargeError(this.#max_event_bytes, frames)
  }

  #release(bytes: Buffer, start: number, end: number): Frame {
    let raw: Buffer
    if (this.#held_bytes === 0) {
      raw = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end)
    } else {
      this.#append(bytes, start, end)
      raw = this.#held.subarray(0, this.#held_bytes)
      this.#held = EMPTY
      this.#held_bytes = 0
    }
    const single_line = this.#lines === 1
    this.#lines = 0
    this.#late_line_feed = this.#after_cr
    this.#after_cr = false
    return (single_line ? readSingleData(raw) : null) ?? readFields(raw, true)
  }

  #hold(bytes: Buffer, start: number): void {
    this.#append(bytes, start, bytes.length)
  }

  #append(bytes: Buffer, start: number, end: number): void {
    const needed = this.#held_bytes + end - start
    if (needed > this.#held.length) {
      const larger = Buffer.allocUnsafe(Math.max(512, needed, Math.min(needed * 2, this.#max_event_bytes + 2)))
      this.#held.copy(larger, 0, 0, this.#held_bytes)
      this.#held = larger
    }
    bytes.copy(this.#held, this.#held_bytes, start, end)
    this.#held_bytes = needed
  }

  #withoutBom(chunk: Buffer): Buffer {
    const seen = this.#bom_bytes
    let at = 0
    while (seen + at < BOM.length && at < chunk.length && chunk[at] === BOM[seen + at]) at++
    if (seen + at === BOM.length) {
      this.#bom_bytes = BOM.length
      this.bom_removed = true
      return chunk.subarray(at)
    }
    if (at === chunk.length) {
      this.#bom_bytes = seen + at
      return EMPTY
    }
    this.#bom_bytes = BOM.length
    return seen === 0 ? chunk : Buffer.concat([BOM.subarray(0, seen), chunk])
  }
}

function lateLineFeed(raw: Buffer): Frame {
  return { raw, data: null, data_segments: [], event: null, comment_only: true, late_line_feed: true, complete: true }
}

/** The usual event, one line of data and a blank line, without searching it again. */
function readSingleData(raw: Buffer): Frame | null {
  if (!isDataField(raw, 0) || raw[4] !== COLON) return null
  const raw_start = raw[5] === SPACE ? 6 : 5
  const raw_end = beforeLineEnd(raw, beforeLineEnd(raw, raw.length))
  const data_segments = [{ data_start: 0, raw_start }]
  return {
    raw,
    data: raw.subarray(raw_start, raw_end),
    data_segments,
    event: null,
    comment_only: false,
    late_line_feed: false,
    complete: true,
  }
}

function beforeLineEnd(raw: Buffer, end: number): number {
  return raw[end - 1] === LF && raw[end - 2] === CR ? end - 2 : end - 1
}

/** `data` at `at`, compared by bytes. */
function isDataField(raw: Buffer, at: number): boolean {
  return raw[at] === 0x64 && raw[at + 1] === 0x61 && raw[at + 2] === 0x74 && raw[at + 3] === 0x61
}

function readFields(raw: Buffer, complete: boolean): Frame {
  const lines = new LineEnds(raw)
  const data: Buffer[] = []
  const data_segments: DataSegment[] = []
  let data_bytes = 0
  let event: string | null = null
  let comment_only = true
  for (let at = 0; at < raw.length;) {
    const line_end = lines.next(at)
    const end = line_end === -1 ? raw.length : line_end
    if (end > at && raw[at] !== COLON) {
      comment_only = false
      const field = fieldOf(raw, at, end)
      if (field.name_end - at === 4 && isDataField(raw, at)) {
        data_segments.push({ data_start: data_bytes, raw_start: field.value_start })
        data.push(raw.subarray(field.value_start, end), NEWLINE)
        data_bytes += end - field.value_start + 1
      } else if (field.name_end - at === 5 && raw.toString('latin1', at, field.name_end) === 'event') {
        event = raw.toString('utf8', field.value_start, end)
      }
    }
    at = raw[end] === CR && raw[end + 1] === LF ? end + 2 : end + 1
  }
  const joined = data.length === 0 ? null : data.length === 2 ? (data[0] ?? EMPTY) : Buffer.concat(data, data_bytes - 1)
  return { raw, data: joined, data_segments, event, comment_only, late_line_feed: false, complete }
}

/** Where a line's field name ends and its value begins: behind the colon and one space. */
function fieldOf(raw: Buffer, start: number, end: number): { name_end: number; value_start: number } {
  let name_end = start
  // Known names have at most five letters, so a colon further on cannot matter.
  while (name_end < end && name_end - start < 6 && raw[name_end] !== COLON) name_end++
  if (name_end === end) return { name_end, value_start: end }
  const after = name_end + 1
  return { name_end, value_start: after < end && raw[after] === SPACE ? after + 1 : after }
}
