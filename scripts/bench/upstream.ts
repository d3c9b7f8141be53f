/**
 * The upstream of the benchmark: as cheap as a server can be, so that what is measured is the proxy in front of it. Precomputed bytes,
 * the path chooses the answer: `/whole` one JSON body, `/burst` 64 events as fast as they can be written (one write each),
 * `/paced` one event every 10 ms, `/idle` one event and then silence. Started with an IPC channel; says `{port}` on it.
 */
import { createServer, type Socket } from 'node:net'

const EMPTY = Buffer.alloc(0)
const EVENTS = 64
const PACE_SLOTS = 10
const CONTENT = 'Water is divided at the fish mouth; the sand is thrown over the weir. '

const head = (type: string, rest: string): string => `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\n${rest}\r\n\r\n`

function wholeAnswer(): Buffer {
  const message = { role: 'assistant', content: CONTENT }
  const body = JSON.stringify({
    ...{ id: 'chatcmpl-bench', object: 'chat.completion', created: 1_790_000_000, model: 'bench-model' },
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: { prompt_tokens: 240, completion_tokens: 16, total_tokens: 256 },
  })
  return Buffer.from(head('application/json', `content-length: ${body.length}`) + body)
}

function event(choices: object[], usage: object | null): string {
  const chunk = { id: 'chatcmpl-bench', object: 'chat.completion.chunk', created: 1_790_000_000, model: 'bench-model', choices, usage }
  return `data: ${JSON.stringify(chunk)}\n\n`
}

/** As providers send them: 62 of content, one with the finish reason, one with usage, each in an HTTP chunk of its own. */
function streamEvents(): Buffer[] {
  const choice = (content: string, finish_reason: string | null): object => ({
    index: 0,
    delta: { content },
    logprobs: null,
    finish_reason,
  })
  const texts = Array.from({ length: EVENTS - 2 }, () => event([choice(CONTENT, null)], null))
  const usage = { prompt_tokens: 240, completion_tokens: 992, total_tokens: 1232 }
  texts.push(event([choice('', 'stop')], null), event([], usage))
  return texts.map((text, index) => {
    const all = index === texts.length - 1 ? `${text}data: [DONE]\n\n` : text
    return Buffer.from(`${all.length.toString(16)}\r\n${all}\r\n`)
  })
}

const WHOLE = wholeAnswer()
const STREAM_HEAD = Buffer.from(head('text/event-stream', 'transfer-encoding: chunked'))
const EVENTS_BYTES = streamEvents()
const LAST_CHUNK = Buffer.from('0\r\n\r\n')

function sendEvent(socket: Socket, index: number): void {
  const bytes = EVENTS_BYTES[index]
  if (bytes === undefined) return
  socket.write(index === EVENTS - 1 ? Buffer.concat([bytes, LAST_CHUNK]) : bytes)
}

function burst(socket: Socket): void {
  socket.write(STREAM_HEAD)
  let next = 0
  const step = (): void => {
    if (socket.destroyed) return
    sendEvent(socket, next)
    next += 1
    if (next < EVENTS) setImmediate(step)
  }
  step()
}

interface Paced {
  readonly socket: Socket
  next: number
}
/** Streams by the millisecond of the 10 in which their next event is due, so that they are spread out as in life. */
const slots = Array.from({ length: PACE_SLOTS }, () => new Set<Paced>())
let paced_count = 0
let slot_now = 0

function paced(socket: Socket): void {
  socket.write(STREAM_HEAD)
  slots[paced_count++ % PACE_SLOTS]?.add({ socket, next: 0 })
}

function paceSlot(slot: Set<Paced>): void {
  for (const stream of slot) {
    sendEvent(stream.socket, stream.next)
    stream.next += 1
    if (stream.next >= EVENTS || stream.socket.destroyed) slot.delete(stream)
  }
}

function idle(socket: Socket): void {
  socket.write(STREAM_HEAD)
  sendEvent(socket, 0)
}

const ANSWERS: ReadonlyMap<string, (socket: Socket) => void> = new Map([
  ['/whole', (socket: Socket) => void socket.write(WHOLE)],
  ['/burst', burst],
  ['/paced', paced],
  ['/idle', idle],
])

/** Just enough of HTTP: requests one at a time, with a content-length, the head in one piece or a few. */
function serve(socket: Socket): void {
  socket.setNoDelay(true)
  socket.on('error', () => socket.destroy())
  let held: Buffer = EMPTY
  socket.on('data', (chunk: Buffer) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
    const end = held.indexOf('\r\n\r\n')
    if (end === -1) return
    const text = held.toString('latin1', 0, end)
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? 0)
    if (held.length < end + 4 + length) return
    held = EMPTY
    const answer = ANSWERS.get(/^POST (\/\w+)/.exec(text)?.[1] ?? '')
    if (answer === undefined) socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n')
    else answer(socket)
  })
}

setInterval(() => {
  slot_now = (slot_now + 1) % PACE_SLOTS
  const slot = slots[slot_now]
  if (slot !== undefined) paceSlot(slot)
}, 1)
const server = createServer(serve)
server.listen(0, '127.0.0.1', 4096, () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port })
})
process.once('disconnect', () => process.exit(0))
