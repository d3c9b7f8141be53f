import { JsonProgress } from './tool-calls.ts'

const EMPTY = Buffer.alloc(0)

/** Where an event stream should be there is JSON: one answer, a list, or one value after another (NDJSON). */
export function looksLikeJson(first_byte: number): boolean {
  return first_byte === 0x7b || first_byte === 0x5b || first_byte === 0x22
}

/** Cuts JSON values that follow one another out of a body as it arrives. */
export class JsonBody {
  readonly #max_bytes: number
  #held: Buffer = EMPTY
  #progress = new JsonProgress()

  /** @param max_bytes of one value */
  constructor(max_bytes: number) {
    this.#max_bytes = max_bytes
  }

  /** The values that are complete with this chunk, or null if one is too large. */
  push(chunk: Buffer): Buffer[] | null {
    const values: Buffer[] = []
    let from = 0
    for (let at = 0; at < chunk.length; at++) {
      if (!this.#progress.step(chunk[at] ?? 0)) continue
      values.push(Buffer.concat([this.#held, chunk.subarray(from, at + 1)]))
      this.#held = EMPTY
      this.#progress = new JsonProgress()
      from = at + 1
    }
    this.#held = Buffer.concat([this.#held, chunk.subarray(from)])
    return this.#held.length > this.#max_bytes || values.some((value) => value.length > this.#max_bytes) ? null : values
  }

  /** What was left, without white space: empty where the last value was complete. */
  rest(): Buffer {
    return Buffer.from(this.#held.toString('utf8').trim())
  }
}
