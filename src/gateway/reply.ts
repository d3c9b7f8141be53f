import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'

/** Longest that a client may take nothing of what is waiting for it. */
const STALL_TIMEOUT_MS = 60_000

/**
 * The client's side of one call: Node's own response, with the few questions the stages ask of it.
 * Written directly rather than through web streams: a streamed answer is many small writes.
 */
export class Reply {
  readonly #outgoing: ServerResponse
  #base: OutgoingHttpHeaders
  #gone = false
  #wrote_at_ms = 0
  #onGone: (() => void) | null = null
  #onDrain: (() => void) | null = null
  #onClose: (() => void) | null = null

  constructor(outgoing: ServerResponse, base: OutgoingHttpHeaders) {
    this.#outgoing = outgoing
    this.#base = base
    outgoing.once('close', () => {
      this.#closed()
      this.#onClose?.()
    })
    outgoing.on('drain', () => {
      // Not before the headers of the next request: Node sets the idle timeout of a connection itself.
      outgoing.socket?.setTimeout(0)
      this.#onDrain?.()
    })
    outgoing.once('timeout', () => outgoing.destroy())
    outgoing.on('error', () => this.#closed())
  }

  /** The client left before the answer was complete. */
  get gone(): boolean {
    return this.#gone
  }

  /** Status and headers are on their way and cannot change. */
  get committed(): boolean {
    return this.#outgoing.headersSent
  }

  /** The client has not yet taken what was written: write nothing that can wait. */
  get busy(): boolean {
    return this.#gone || this.#outgoing.writableNeedDrain
  }

  /** When something was last written, in the clock of the `at_ms` given to the writers. */
  get wrote_at_ms(): number {
    return this.#wrote_at_ms
  }

  /** Called once if the client leaves before the end; at once if it has left already. */
  whenGone(listener: () => void): void {
    this.#onGone = listener
    if (this.#gone) listener()
  }

  /** Called whenever the socket accepts bytes again after `write` answered false. */
  whenWritable(listener: () => void): void {
    this.#onDrain = listener
  }

  /** Called once the client has the whole answer or is gone: at once if that is already so. */
  whenClosed(listener: () => void): void {
    if (this.#outgoing.closed) listener()
    else this.#onClose = listener
  }

  /** Headers of whatever the answer turns out to be, unless it is on its way already. */
  addHeaders(headers: OutgoingHttpHeaders): void {
    this.#base = { ...this.#base, ...headers }
  }

  head(status: number, headers: OutgoingHttpHeaders): void {
    if (this.#gone || this.committed) return
    this.#outgoing.writeHead(status, { ...this.#base, ...headers })
  }

  /** False when the socket's buffer is full: stop reading the upstream until `whenWritable`. */
  write(bytes: Buffer | string, at_ms: number): boolean {
    if (this.#gone) return true
    this.#wrote_at_ms = at_ms
    const taken = this.#outgoing.write(bytes)
    if (!taken) this.#watchStall()
    return taken
  }

  end(bytes?: Buffer | string): void {
    if (this.#gone) return
    this.#onGone = null
    if (bytes === undefined) this.#outgoing.end()
    else this.#outgoing.end(bytes)
    if (this.#outgoing.writableLength > 0) this.#watchStall()
  }

  /** A client that takes nothing for this long is gone. Node counts a write that makes progress as activity. */
  #watchStall(): void {
    this.#outgoing.socket?.setTimeout(STALL_TIMEOUT_MS)
  }

  /** A whole answer at once. */
  send(status: number, headers: OutgoingHttpHeaders, body: Buffer | string): void {
    this.head(status, { ...headers, 'content-length': Buffer.byteLength(body) })
    this.end(body)
  }

  #closed(): void {
    if (this.#gone || this.#outgoing.writableFinished) return
    this.#gone = true
    this.#onGone?.()
    // A paused upstream would wait for ever for a drain that cannot come.
    this.#onDrain?.()
  }
}
