import { createFramer } from '../../src/upstream/sse.ts'
import type { Frame } from '../../src/upstream/sse.ts'

/** All frames of a stream that arrives in these chunks. */
export function framesOf(chunks: readonly Buffer[], max_event_bytes: number): Frame[] {
  const framer = createFramer({ max_event_bytes })
  return [...chunks.flatMap((chunk) => framer.push(chunk)), ...framer.end()]
}

/** A frame as plain text, in which a late line feed has joined the frame it belongs to. */
export interface PlainFrame {
  readonly raw: string
  readonly data: string | null
  readonly event: string | null
  readonly comment_only: boolean
  readonly complete: boolean
  readonly segments: string
}

/** Frames in a form that does not depend on how the stream was split. */
export function merged(frames: readonly Frame[]): PlainFrame[] {
  const plain: PlainFrame[] = []
  for (const frame of frames) {
    const last = plain.at(-1)
    if (frame.late_line_feed && last !== undefined) {
      plain[plain.length - 1] = { ...last, raw: `${last.raw}\n` }
      continue
    }
    const { event, comment_only, complete } = frame
    const segments = frame.data_segments.map((segment) => `${segment.data_start}@${segment.raw_start}`).join(' ')
    plain.push({ raw: frame.raw.toString('latin1'), data: frame.data?.toString('latin1') ?? null, event, comment_only, complete, segments })
  }
  return plain
}

/** The bytes cut at the given positions, which need not be sorted or distinct. */
export function cut(bytes: Buffer, positions: readonly number[]): Buffer[] {
  const bounds = [0, ...positions.toSorted((a, b) => a - b), bytes.length]
  return bounds.slice(1).map((end, index) => bytes.subarray(bounds[index] ?? 0, end))
}
