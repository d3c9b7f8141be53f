import { createReadStream } from 'node:fs'

/** One line of a file, without its end. */
export interface FileLine {
  /** From 1. */
  readonly number: number
  /** Null where the line is longer than the limit. */
  readonly bytes: Buffer | null
}

const CHUNK_BYTES = 262_144
const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d

/**
 * The lines of a file of any size, one after the other: never more than one of them is in memory. Empty lines come too.
 *
 * @param onBytes told how many bytes have been read
 * @throws the error of a file that cannot be read
 */
export async function* linesOf(path: string, max_line_bytes: number, onBytes: (bytes: number) => void): AsyncGenerator<FileLine> {
  const line = new Line(max_line_bytes)
  let number = 0
  for await (const read of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
    const chunk = read as Buffer
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      line.add(chunk.subarray(start, end))
      number += 1
      yield { number, bytes: line.take() }
      start = end + 1
    }
    line.add(chunk.subarray(start))
    onBytes(chunk.length)
  }
  if (!line.empty) yield { number: number + 1, bytes: line.take() }
}

/** Puts a line together from the chunks that it came in. */
class Line {
  readonly #most: number
  #parts: Buffer[] = []
  #length = 0

  constructor(most: number) {
    this.#most = most
  }

  get empty(): boolean {
    return this.#length === 0
  }

  add(part: Buffer): void {
    this.#length += part.length
    if (this.#length > this.#most) this.#parts = []
    else if (part.length > 0) this.#parts.push(part)
  }

  take(): Buffer | null {
    const whole = this.#length > this.#most ? null : Buffer.concat(this.#parts)
    this.#parts = []
    this.#length = 0
    return whole?.at(-1) === CARRIAGE_RETURN ? whole.subarray(0, -1) : whole
  }
}
