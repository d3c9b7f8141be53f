import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '../base/clock.ts'
import { MAX_WAIT_MS } from './directives.ts'
import type { OpenRow } from './tally.ts'

/** One request and its answer: writes with back-pressure, waits that end when the client leaves, and the row that counts. */
export class Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly row: OpenRow
  /** The connection is closed, by whichever side. */
  gone = false
  #wake: (() => void) | null = null
  #unflushed = 0
  #cut = false
  #complete = false
  #tokens_at_end = 0
  #reasoning_at_end = 0

  constructor(request: IncomingMessage, response: ServerResponse, row: OpenRow, clock: Clock) {
    this.request = request
    this.response = response
    this.row = row
    // An error of the connection is followed by 'close', which is what the row records.
    response.on('error', () => {
      this.gone = true
    })
    response.once('finish', () => {
      row.finished = this.#complete
      row.sent_tokens += this.#tokens_at_end
      row.reasoning_tokens += this.#reasoning_at_end
    })
    response.once('close', () => {
      this.gone = true
      row.aborted = !response.writableFinished && !this.#cut
      row.ended_at = clock.now_ms()
      this.#wake?.()
    })
  }

  /** Headers, as a flat list of names and values. They leave with the first bytes of the body, or by `flushHeaders`. */
  head(status: number, content_type: string, more: readonly string[] = []): void {
    this.row.status = status
    this.response.writeHead(status, ['content-type', content_type, 'x-request-id', `sbx-${this.row.index}`, ...more])
  }

  /** Writes a piece; its tokens count once the operating system has it. Returns false when the reader is behind. */
  write(bytes: string | Buffer, tokens: number, reasoning: number): boolean {
    if (this.gone) return false
    this.#unflushed += 1
    return this.response.write(bytes, (error) => {
      this.#unflushed -= 1
      if (!error) {
        this.row.sent_tokens += tokens
        this.row.reasoning_tokens += reasoning
      }
      if (this.#unflushed === 0) this.#wake?.()
    })
  }

  /** Ends the answer. `complete` says whether it was the whole of it. */
  end(complete: boolean): void {
    this.#complete = complete
    this.response.end()
  }

  /** A whole body with its length. A refusal or a damaged body is not a complete answer: pass no tokens for it. */
  answer(status: number, content_type: string, body: string | Buffer, more: readonly string[] = []): void {
    if (this.gone) return
    this.head(status, content_type, ['content-length', String(Buffer.byteLength(body)), ...more])
    this.response.end(body)
  }

  /** A whole and complete answer; its tokens count with its last byte. */
  answerInFull(status: number, content_type: string, body: Buffer, tokens: number, reasoning: number): void {
    this.#complete = true
    this.#tokens_at_end = tokens
    this.#reasoning_at_end = reasoning
    this.answer(status, content_type, body)
  }

  /** Destroys the connection, so that the client sees it break. */
  cut(): void {
    this.#cut = true
    this.request.socket.destroy()
  }

  /** Does nothing for `stall_ms`, ten minutes at most, then cuts the connection; ends early when the client leaves. */
  async stall(stall_ms: number): Promise<void> {
    await this.wait(Math.min(stall_ms, MAX_WAIT_MS))
    if (!this.gone) this.cut()
  }

  /** Waits, or until the client leaves. */
  async wait(wait_ms: number): Promise<void> {
    if (this.gone || wait_ms <= 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, wait_ms)
      this.#wake = () => {
        if (!this.gone) return
        clearTimeout(timer)
        resolve()
      }
    })
    this.#wake = null
  }

  /** Waits until the reader has caught up or left. */
  async drained(): Promise<void> {
    if (this.gone || !this.response.writableNeedDrain) return
    await new Promise<void>((resolve) => {
      this.response.once('drain', resolve)
      this.#wake = () => {
        if (!this.gone) return
        this.response.off('drain', resolve)
        resolve()
      }
    })
    this.#wake = null
  }

  /** Waits until everything written was taken by the operating system, or the client left. */
  async flushed(): Promise<void> {
    while (this.#unflushed > 0 && !this.gone) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    this.#wake = null
  }
}
