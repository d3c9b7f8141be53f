/**
 * The load of the benchmark: keep-alive connections that each send one request after the other, parsing as little as possible.
 * Orders come over IPC, one at a time, as {@link LoadOrder}; each is answered with a {@link LoadReport}.
 */
import { connect, type Socket } from 'node:net'
import { AnswerEnd, isSuccess, requestBytes } from './http.ts'

/** What to send where. */
export interface LoadOrder {
  readonly port: number
  readonly path: string
  /** Sent in turn over all connections: the nth request has the nth key and the nth body, each from the beginning again at its end. */
  readonly keys: readonly string[]
  readonly bodies: readonly string[]
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
    this.#heads = requestsOf(order)
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
      if (!answer.begun && !isSuccess(chunk)) return this.#fail(socket, chunk.toString('latin1', 0, 400))
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

function requestsOf({ path, keys, bodies }: LoadOrder): readonly Buffer[] {
  const combinations = Math.max(keys.length, bodies.length)
  return Array.from({ length: combinations }, (_, index) =>
    requestBytes(path, keys[index % keys.length] ?? '', bodies[index % bodies.length] ?? ''),
  )
}

let load: Load | null = null
process.on('message', (order: LoadOrder) => {
  load?.close()
  load = new Load(order, (report) => process.send?.(report))
  load.start()
})
process.once('disconnect', () => process.exit(0))
