import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { atEnd } from './cleanup.ts'

/** What a provider says instead of an answer. */
export interface KeyRefusal {
  readonly status: number
  readonly code: string
  readonly headers?: Readonly<Record<string, string>>
}

/** A provider's front door: it knows keys, and passes on to the sandbox whom it lets in. */
export interface KeyGate {
  readonly url: string
  /** Keys in the order in which they came. */
  readonly seen: readonly string[]
  /** Refuses a key from now on; null lets it in. */
  set(key: string, refusal: KeyRefusal | null): void
}

/** Starts a front in front of `origin`; it ends with the test. Every key is let in until it is refused. */
export async function startKeyGate(origin: string): Promise<KeyGate> {
  const refusals = new Map<string, KeyRefusal>()
  const seen: string[] = []
  const server = createServer((incoming, outgoing) => {
    const key = (incoming.headers.authorization ?? '').replace(/^Bearer /, '')
    seen.push(key)
    const refusal = refusals.get(key)
    if (refusal !== undefined) {
      incoming.resume()
      outgoing.writeHead(refusal.status, { 'content-type': 'application/json', ...refusal.headers })
      outgoing.end(JSON.stringify({ error: { message: refusal.code, type: refusal.code, code: refusal.code } }))
      return
    }
    const { method, headers, url = '' } = incoming
    const onward = request(origin + url, { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
      answer.on('error', () => outgoing.destroy())
    })
    onward.on('error', () => outgoing.destroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(() => {
    server.closeAllConnections()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    set: (key, refusal) => {
      if (refusal === null) refusals.delete(key)
      else refusals.set(key, refusal)
    },
  }
}
