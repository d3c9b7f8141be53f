import { arrayElements, JsonSpanError } from '../../base/json-spans.ts'
import type { Frame } from '../sse.ts'
import { ANSWER_LIMITS } from './openai-repairs.ts'

const DATA = Buffer.from('data: ')
const BLANK_LINES = Buffer.from('\n\n')

/** The usual event around a JSON value. */
export function plainFrame(json: Buffer): Frame {
  // A value that spans lines would be several lines of data.
  const data = json.includes(0x0a) || json.includes(0x0d) ? Buffer.from(json.toString('utf8').replaceAll(/[\r\n]+/g, ' ')) : json
  const raw = Buffer.concat([DATA, data, BLANK_LINES])
  return {
    raw,
    data: raw.subarray(DATA.length, DATA.length + data.length),
    data_segments: [{ data_start: 0, raw_start: DATA.length }],
    event: null,
    comment_only: false,
    late_line_feed: false,
    complete: true,
  }
}

/** The value, or undefined if the bytes are not JSON. */
export function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}

/** The values of a JSON list, as bytes. */
export function arrayValues(data: Buffer): Buffer[] {
  try {
    return arrayElements(data, 0, ANSWER_LIMITS).map(({ start, end }) => data.subarray(start, end))
  } catch (error) {
    if (!(error instanceof JsonSpanError)) throw error
    return []
  }
}

const DONE = Buffer.from('[DONE]')
const END_EVENTS: ReadonlySet<string> = new Set(['done', 'end', 'complete', 'completed', 'finish', 'finished'])
const HEARTBEATS: ReadonlySet<string> = new Set(['ping', 'heartbeat', 'keepalive', 'keep-alive'])

/** `[DONE]`, of which official SDKs compare the beginning only; or an event named for the end with nothing in it. */
export function saysDone(frame: Frame): boolean {
  const data = frame.data
  if (data === null) return false
  if (data[0] === DONE[0] && data.subarray(0, DONE.length).equals(DONE)) return true
  if (frame.event === null || !END_EVENTS.has(frame.event)) return false
  const text = data.toString('utf8', 0, 16).trim()
  return text === '' || text === '{}' || text === 'null' || text === 'DONE' || text === 'done'
}

export function isHeartbeat(frame: Frame): boolean {
  return frame.event !== null && HEARTBEATS.has(frame.event)
}

export function isBlank(data: Buffer): boolean {
  return (data[0] ?? 0x20) <= 0x20 && data.toString('latin1').trim() === ''
}

export function isObjectOfNothing(value: object): boolean {
  for (const _ in value) return false
  return true
}

/**
 * The lines of data of a frame as events of their own, where each of them is a JSON value or `[DONE]`: servers that end an
 * event with one line feed. Null if they are not.
 */
export function separateLines(frame: Frame, data: Buffer): Frame[] | null {
  if (frame.data_segments.length < 2) return null
  const lines = data
    .toString('utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
  if (!lines.every((line) => line.startsWith('[DONE]') || parseJson(Buffer.from(line)) !== undefined)) return null
  return lines.map((line) => plainFrame(Buffer.from(line)))
}
