import type { IncomingMessage } from 'node:http'
import { WeirError } from '../base/errors.ts'

/**
 * Reads a request body of at most `max_bytes`. A declared length over the limit is refused before a byte is read.
 *
 * @throws WeirError `request_too_large`; `client_closed_request` if the client leaves in the middle
 */
export function readBody(incoming: IncomingMessage, max_bytes: number): Promise<Buffer> {
  const declared = Number(incoming.headers['content-length'] ?? 0)
  if (declared > max_bytes) return Promise.reject(tooLarge(max_bytes))
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    incoming.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= max_bytes) chunks.push(chunk)
      else reject(tooLarge(max_bytes))
    })
    incoming.once('end', () => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)))
    incoming.once('error', (cause) => reject(new WeirError('client_closed_request', { cause })))
    incoming.once('close', () => {
      if (!incoming.complete) reject(new WeirError('client_closed_request'))
    })
  })
}

function tooLarge(max_bytes: number): WeirError {
  return new WeirError('request_too_large', { values: { limit: max_bytes } })
}

/** How much of a refused request's body is read and thrown away, so that the client gets to read the refusal. */
const DISCARD_MAX_BYTES = 256 * 1024 * 1024
const DISCARD_MAX_MS = 10_000

/** Reads the rest of a body nobody wants, within limits. Resolves when it has ended or the limits are reached. */
export function discardBody(incoming: IncomingMessage): Promise<void> {
  if (incoming.complete || incoming.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, DISCARD_MAX_MS)
    const done = (): void => {
      clearTimeout(timer)
      resolve()
    }
    let bytes = 0
    incoming.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > DISCARD_MAX_BYTES) done()
    })
    incoming.once('end', done)
    incoming.once('close', done)
    incoming.resume()
  })
}
