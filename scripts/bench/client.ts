/**
 * The load of the benchmark: keep-alive connections that each send one request after the other, parsing as little as possible.
 * Orders come over IPC, one at a time, as {@link LoadOrder}; each is answered with a {@link LoadReport}.
 */
import { connect, type Socket } from 'node:net'

/** What to send where. */
export interface LoadOrder {
  readonly port: number
  readonly path: string
  /** Sent in turn over all connections. */
  readonly requests: readonly { readonly key: string; readonly body: string }[]
  readonly connections: number
  /** No request begins after this; those that run are finished. 0: one request per connection, held open until the next order. */
  readonly duration_ms: number
}

/** What came of an order. */
export interface LoadReport {
  readonly answers: number
  readonly bytes: number
  readonly failures: number
  /** The beginning of the first answer that was no success. */
  readonly failure: string | null
}

const LAST_CHUNK = Buffer.from('\r\n0\r\n\r\n')
const OK = 'HTTP/1.1 200'

class Load {
  readonly #order: LoadOrder
  readonly #heads: readonly Buffer[]
  readonly #sockets: Socket[] = []
  readonly #ends_at: number
  #next = 0
  #active = 0
  #answers = 0
  #bytes = 0
  #failures = 0
  #failure: string | null = null
  readonly #report: (report: LoadReport) => void

  constructor(order: LoadOrder, report: (report: LoadReport) => void) {
    this.#order = order
    this.#heads = order.requests.map(({ key, body }) => requestBytes(order.path, key, body))
    this.#ends_at = performance.now() + order.duration_ms
    this.#report = report
  }

  start(): void {
    this.#active = this.#order.connections
    for (let index = 0; index < this.#order.connections; index++) this.#open()
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  get #holding(): boolean {
    return this.#order.duration_ms === 0
  }

  #open(): void {
    const socket = connect({ port: this.#order.port, host: '127.0.0.1', noDelay: true })
    this.#sockets.push(socket)
    const answer = new AnswerEnd()
    socket.once('connect', () => this.#send(socket))
    socket.on('data', (chunk: Buffer) => {
      this.#bytes += chunk.length
      if (!answer.begun && !chunk.subarray(0, OK.length).equals(Buffer.from(OK)))
        return this.#fail(socket, chunk.toString('latin1', 0, 400))
      if (this.#holding) {
        if (!answer.begun) this.#answered(socket)
        answer.take(chunk)
      } else if (answer.take(chunk)) this.#answered(socket)
    })
    socket.on('error', (error) => this.#fail(socket, error.message))
    socket.on('close', () => this.#fail(socket, 'the connection was closed'))
  }

  #send(socket: Socket): void {
    const head = this.#heads[this.#next++ % this.#heads.length]
    if (head !== undefined) socket.write(head)
  }

  #answered(socket: Socket): void {
    this.#answers += 1
    if (!this.#holding && performance.now() < this.#ends_at) return this.#send(socket)
    if (!this.#holding) socket.removeAllListeners('close').destroy()
    this.#finished()
  }

  #fail(socket: Socket, why: string): void {
    if (socket.listenerCount('data') === 0) return
    this.#failures += 1
    this.#failure ??= why
    socket.removeAllListeners('data').removeAllListeners('close').destroy()
    this.#finished()
  }

  #finished(): void {
    this.#active -= 1
    if (this.#active === 0) this.#report({ answers: this.#answers, bytes: this.#bytes, failures: this.#failures, failure: this.#failure })
  }
}

/** Finds the end of one answer after the other: by content-length, or by the last chunk. */
class AnswerEnd {
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

function requestBytes(path: string, key: string, body: string): Buffer {
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

let load: Load | null = null
process.on('message', (order: LoadOrder) => {
  load?.close()
  load = new Load(order, (report) => process.send?.(report))
  load.start()
})
process.once('disconnect', () => process.exit(0))
