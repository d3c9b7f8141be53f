import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { errorBody, WeirError } from '../base/errors.ts'

interface Exchange {
  readonly incoming: IncomingMessage
  readonly outgoing: ServerResponse
}

/** Answers what Node's parser refuses: it never becomes a request, so the answer goes to the bare socket, in the usual shape. */
export class BrokenHttp {
  readonly #open = new WeakMap<Socket, Exchange[]>()

  /** Tells of a request that was understood, so that nothing is written into the middle of its answer. */
  opened(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { socket } = incoming
    const exchange = { incoming, outgoing }
    let exchanges = this.#open.get(socket)
    if (exchanges === undefined) {
      // A list, not a Set: a Set that is emptied all the time leaves old tables behind that keep each other's entries alive.
      exchanges = []
      this.#open.set(socket, exchanges)
    }
    exchanges.push(exchange)
    const open = exchanges
    outgoing.once('close', () => open.splice(open.indexOf(exchange), 1))
  }

  /** For the server's `clientError`. Always ends the connection. */
  refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    if (!socket.writable || error.code === 'ECONNRESET' || this.#owesAnAnswer(socket)) {
      socket.destroy()
      return
    }
    const refusal = new WeirError(codeOfHttpError(error.code), { values: { detail: 'the HTTP message is malformed.' } })
    const body = JSON.stringify(errorBody(refusal, 'en', ''))
    const reason = { 400: 'Bad Request', 408: 'Request Timeout', 431: 'Request Header Fields Too Large' }[refusal.status] ?? 'Error'
    const head = `HTTP/1.1 ${refusal.status} ${reason}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`
    socket.end(head + body, () => socket.destroy())
  }

  /** Bytes written now would be taken for the answer, or land inside the answer, to a request that has wholly arrived. */
  #owesAnAnswer(socket: Socket): boolean {
    for (const { incoming, outgoing } of this.#open.get(socket) ?? []) {
      if (incoming.complete || outgoing.headersSent) return true
    }
    return false
  }
}

function codeOfHttpError(code: string | undefined): 'headers_too_large' | 'request_timeout' | 'invalid_request' {
  if (code === 'HPE_HEADER_OVERFLOW') return 'headers_too_large'
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request_timeout' : 'invalid_request'
}
