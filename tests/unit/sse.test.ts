import { describe, expect, it } from 'vitest'
import { createFramer, EventTooLargeError, rawOffset } from '../../src/upstream/sse.ts'
import type { Frame } from '../../src/upstream/sse.ts'
import { framesOf, merged } from '../support/frames.ts'

const LIMIT = 1 << 20
const frames = (...chunks: string[]): Frame[] =>
  framesOf(
    chunks.map((chunk) => Buffer.from(chunk)),
    LIMIT,
  )
const seen = (list: readonly Frame[]): unknown[] => list.map((frame) => [frame.event, frame.data?.toString() ?? null])

const STREAM = [
  '\ufeffdata: {"a":1}\n\n',
  'data:x\r\n\r\n',
  ': keep-alive\n\n',
  'data: one\rdata:two\r\r',
  '\n\n',
  'event: error\r\nid: 7\nretry:10\ndata\ndata:  padded\r\n\n',
  'datum: no\n\n',
  'data: 中文 \ufeff\n\r',
  ':\n:\n\r\n',
  'database: x\ndata: y\n\n',
  'event\ndata: z\n\n',
  'data: rest',
].join('')

describe('framer', () => {
  it('reads events as the standard says', () => {
    expect(seen(frames(STREAM))).toEqual([
      [null, '{"a":1}'],
      [null, 'x'],
      [null, null],
      [null, 'one\ntwo'],
      [null, null],
      ['error', '\n padded'],
      [null, null],
      [null, '中文 \ufeff'],
      [null, null],
      [null, 'y'],
      ['', 'z'],
      [null, 'rest'],
    ])
    expect(frames(STREAM).map((frame) => frame.comment_only)).toEqual([
      false,
      false,
      true,
      false,
      true,
      false,
      false,
      false,
      true,
      false,
      false,
      false,
    ])
  })

  it('gives the same frames and loses no byte, wherever the stream is split in two', () => {
    const bytes = Buffer.from(STREAM)
    const whole = merged(framesOf([bytes], LIMIT))
    for (let at = 0; at <= bytes.length; at++) {
      const split = framesOf([bytes.subarray(0, at), bytes.subarray(at)], LIMIT)
      expect(merged(split), `split at ${at}`).toEqual(whole)
      expect(Buffer.concat(split.map((frame) => frame.raw)).equals(bytes.subarray(3)), `split at ${at}`).toBe(true)
    }
    expect(
      merged(
        framesOf(
          Array.from(bytes, (byte) => Buffer.of(byte)),
          LIMIT,
        ),
      ),
    ).toEqual(whole)
  })

  it('releases an event at its carriage return and gives the late line feed on its own', () => {
    const framer = createFramer({ max_event_bytes: LIMIT })
    expect(seen(framer.push(Buffer.from('data: a\r\n\r')))).toEqual([[null, 'a']])
    const next = framer.push(Buffer.from('\ndata: b\n\n'))
    expect(next.map((frame) => [frame.late_line_feed, frame.raw.toString()])).toEqual([
      [true, '\n'],
      [false, 'data: b\n\n'],
    ])
  })

  it('does not copy events that arrive whole', () => {
    const chunk = Buffer.from('data: a\n\ndata: b\n\n')
    for (const frame of createFramer({ max_event_bytes: LIMIT }).push(chunk)) expect(frame.raw.buffer).toBe(chunk.buffer)
  })

  it('maps data to raw so that a splice over a line break removes the joint', () => {
    const [frame] = frames('data: {"a":1\nid: 4\ndata:,"b":2\ndata: }\n\n')
    expect(frame?.data?.toString()).toBe('{"a":1\n,"b":2\n}')
    if (frame === undefined) return
    const cut = (from: number, to: number): string =>
      frame.raw.toString().slice(0, rawOffset(frame, from)) + frame.raw.toString().slice(rawOffset(frame, to))
    expect(cut(6, 13)).toBe('data: {"a":1\ndata: }\n\n')
    expect(cut(6, 14)).toBe('data: {"a":1}\n\n')
    expect(cut(8, 12)).toBe('data: {"a":1\nid: 4\ndata:,2\ndata: }\n\n')
  })

  it('marks what is left at the end as incomplete', () => {
    expect(frames('data: a\n').map((frame) => [frame.complete, frame.data?.toString()])).toEqual([[false, 'a']])
    expect(frames('data: a\n\n').map((frame) => frame.complete)).toEqual([true])
    expect(frames('\ufeff')).toEqual([])
    expect(framesOf([Buffer.of(0xef), Buffer.of(0xbb)], LIMIT).map((frame) => frame.raw.toString('hex'))).toEqual(['efbb'])
    expect(framesOf([Buffer.of(0xef), Buffer.from('data: a\n\n')], LIMIT).map((frame) => frame.raw.length)).toEqual([10])
  })

  it('refuses an event over the limit for every split, after giving those before it', () => {
    for (const [last, fits] of [
      ['data: 1234\n\n', true],
      ['data: 1234\r\r', true],
      ['data: 12345\n\n', false],
      ['data: 12\r\n\r\n', true],
      ['data: 123\r\n\r\n', true],
      ['data: 1234\r\n\r\n', false],
      ['data: 12345678', false],
    ] as const) {
      const bytes = Buffer.from(`data: a\n\n${last}`)
      for (let at = 0; at <= bytes.length; at++) {
        const outcome = tally([bytes.subarray(0, at), bytes.subarray(at)], 12)
        expect(outcome, `${JSON.stringify(last)} split at ${at}`).toEqual(
          fits ? { events: 2, refused: false } : { events: 1, refused: true },
        )
      }
    }
  })

  it('takes a large event in one-byte pieces', () => {
    const text = `data: ${'x'.repeat(300_000)}\n\n`
    expect(
      merged(
        framesOf(
          Array.from(Buffer.from(text), (byte) => Buffer.of(byte)),
          LIMIT,
        ),
      ),
    ).toEqual(merged(frames(text)))
  })
})

function tally(chunks: readonly Buffer[], max_event_bytes: number): { events: number; refused: boolean } {
  const framer = createFramer({ max_event_bytes })
  let events = 0
  try {
    for (const chunk of chunks) events += framer.push(chunk).filter((frame) => !frame.late_line_feed).length
  } catch (error) {
    if (!(error instanceof EventTooLargeError)) throw error
    return { events: events + error.frames.filter((frame) => !frame.late_line_feed).length, refused: true }
  }
  return { events, refused: false }
}
