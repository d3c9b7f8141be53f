/** As little of HTTP/1.1 as a client of the benchmark needs. */

const LAST_CHUNK = Buffer.from('\r\n0\r\n\r\n')
const OK = Buffer.from('HTTP/1.1 200')

/** Whether the answer that begins with these bytes is a success. */
export function isSuccess(chunk: Buffer): boolean {
  return chunk.subarray(0, OK.length).equals(OK)
}

/** Finds the end of one answer after the other: by content-length, or by the last chunk. */
export class AnswerEnd {
  begun = false
  #left = 0
  #chunked = false
  #tail: Buffer = Buffer.alloc(0)

  /** True when the answer ends with this chunk. Answers never share a chunk, since the next request is sent only after this. */
  take(chunk: Buffer): boolean {
    if (!this.begun) this.#begin(chunk)
    else if (!this.#chunked) this.#left -= chunk.length
    const ended = this.#chunked ? this.#endsHere(chunk) : this.#left <= 0
    if (ended) this.begun = false
    return ended
  }

  #begin(chunk: Buffer): void {
    this.begun = true
    this.#tail = chunk.subarray(0, 0)
    const end = chunk.indexOf('\r\n\r\n')
    const text = chunk.toString('latin1', 0, end)
    const length = /\r\ncontent-length: *(\d+)/i.exec(text)
    this.#chunked = length === null
    this.#left = Number(length?.[1] ?? 0) - (chunk.length - end - 4)
  }

  #endsHere(chunk: Buffer): boolean {
    if (chunk.length >= LAST_CHUNK.length) {
      this.#tail = chunk
      return chunk.subarray(chunk.length - LAST_CHUNK.length).equals(LAST_CHUNK)
    }
    const joined = Buffer.concat([this.#tail.subarray(-LAST_CHUNK.length), chunk])
    this.#tail = joined
    return joined.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK)
  }
}

/** A request as the official Python SDK sends it. */
export function requestBytes(path: string, key: string, body: string): Buffer {
  const head = [
    `POST ${path} HTTP/1.1`,
    'host: bench.test',
    `authorization: Bearer ${key}`,
    'content-type: application/json',
    'accept: application/json',
    'user-agent: OpenAI/Python 2.9.0',
    'x-stainless-lang: python',
    'x-stainless-package-version: 2.9.0',
    'x-stainless-retry-count: 0',
    `content-length: ${Buffer.byteLength(body)}`,
  ]
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`)
}

/** About 1 KB of prompt, as a small chat has. */
const SENTENCES = 'Li Bing and his son led the people to divide the Min river at Dujiangyan, to drain the floods and to water the fields. '
const PROMPT = SENTENCES.repeat(7)

/** The body of a small chat. */
export function chatBody(model: string, stream: boolean): string {
  const messages = [
    { role: 'system', content: 'You answer in one sentence.' },
    { role: 'user', content: PROMPT },
  ]
  return JSON.stringify({ model, messages, temperature: 0.7, max_tokens: 2000, ...(stream ? { stream: true } : {}) })
}
