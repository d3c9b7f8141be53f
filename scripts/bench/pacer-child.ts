/**
 * Sends requests at a fixed rate, whether or not earlier ones have been answered, by several routes in turn.
 * Orders come over IPC as {@link PaceOrder}; each is answered with a {@link PaceReport}.
 */
import { connect, type Socket } from 'node:net'
import { AnswerEnd, isSuccess, requestBytes } from './http.ts'

export interface PaceRoute {
  readonly port: number
  readonly path: string
  readonly key: string
  readonly body: string
}
export interface PaceOrder {
  readonly routes: readonly PaceRoute[]
  /** By each route. */
  readonly per_second: number
  readonly duration_ms: number
}
/** Milliseconds from sending, per route: to the first data event (or any byte of the body of a whole answer), and to the end. */
export interface PaceReport {
  readonly routes: ReadonlyArray<{ readonly first_ms: readonly number[]; readonly end_ms: readonly number[] }>
  readonly failures: readonly string[]
}

/** More than this at a time would mean that a route cannot keep up at all. */
const MAX_OPEN = 2000
const FIRST_EVENT = Buffer.from('data:')
const HEAD_END = Buffer.from('\r\n\r\n')

class Route {
  readonly first_ms: number[] = []
  readonly end_ms: number[] = []
  readonly failures: string[] = []
  readonly #port: number
  readonly #request: Buffer
  readonly #streamed: boolean
  readonly #idle: Connection[] = []
  #open = 0

  constructor({ port, path, key, body }: PaceRoute) {
    this.#port = port
    this.#request = requestBytes(path, key, body)
    this.#streamed = body.includes('"stream":true')
  }

  get open(): number {
    return this.#open
  }

  send(): void {
    if (this.#open >= MAX_OPEN) return void this.failures.push(`${MAX_OPEN} requests are open`)
    this.#open += 1
    const connection = this.#idle.pop() ?? new Connection(this.#port, this.#streamed ? FIRST_EVENT : HEAD_END)
    connection.send(this.#request, (first_ms, end_ms) => {
      this.#open -= 1
      if (typeof first_ms === 'string') return void this.failures.push(first_ms)
      this.first_ms.push(first_ms)
      this.end_ms.push(end_ms)
      this.#idle.push(connection)
    })
  }

  close(): void {
    for (const connection of this.#idle) connection.close()
  }
}

/** One keep-alive connection, one request at a time. */
class Connection {
  readonly #socket: Socket
  readonly #first: Buffer
  readonly #end = new AnswerEnd()
  #sent_at = 0
  #first_ms: number | null = null
  #done: ((first_ms: number | string, end_ms: number) => void) | null = null

  constructor(port: number, first: Buffer) {
    this.#first = first
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#socket.on('error', (error) => this.#ended(error.message))
    this.#socket.on('close', () => this.#ended('the connection was closed'))
  }

  send(request: Buffer, done: (first_ms: number | string, end_ms: number) => void): void {
    this.#done = done
    this.#first_ms = null
    this.#sent_at = performance.now()
    this.#socket.write(request)
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(chunk: Buffer): void {
    const after_ms = performance.now() - this.#sent_at
    if (!this.#end.begun && !isSuccess(chunk)) return this.#ended(chunk.toString('latin1', 0, 300))
    if (this.#first_ms === null && chunk.includes(this.#first)) this.#first_ms = after_ms
    if (this.#end.take(chunk)) this.#ended(this.#first_ms ?? after_ms, after_ms)
  }

  #ended(first_ms: number | string, end_ms = 0): void {
    const done = this.#done
    this.#done = null
    if (typeof first_ms === 'string') this.#socket.destroy()
    done?.(first_ms, end_ms)
  }
}

/** The routes take their turns at equal distances, so that no request meets its counterpart by another route. */
async function pace({ routes, per_second, duration_ms }: PaceOrder): Promise<PaceReport> {
  const all = routes.map((route) => new Route(route))
  const started_at = performance.now()
  const total = Math.floor((duration_ms * per_second * all.length) / 1000)
  const due_ms = (count: number): number => (count * 1000) / (per_second * all.length)
  for (let sent = 0; sent < total;) {
    const elapsed_ms = performance.now() - started_at
    for (; sent < total && due_ms(sent) <= elapsed_ms; sent++) all[sent % all.length]?.send()
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  while (all.some(({ open }) => open > 0)) await new Promise((resolve) => setTimeout(resolve, 5))
  for (const route of all) route.close()
  return {
    routes: all.map(({ first_ms, end_ms }) => ({ first_ms, end_ms })),
    failures: all.flatMap(({ failures }) => failures.slice(0, 3)),
  }
}

process.on('message', (order: PaceOrder) => void pace(order).then((report) => process.send?.(report)))
process.once('disconnect', () => process.exit(0))
