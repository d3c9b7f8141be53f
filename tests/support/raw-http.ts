import { connect, type Socket } from 'node:net'
import { atEnd } from './cleanup.ts'

/** A bare connection, for what no HTTP client would send. */
export interface RawConnection {
  readonly socket: Socket
  /** Everything received so far, as Latin-1. */
  received(): string
  write(bytes: string | Buffer): void
  /** Resolves with everything received once the server has closed its side. */
  readonly closed: Promise<string>
}

/** Connects to the origin of `url`; destroyed when the test ends. */
export async function rawConnection(url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), noDelay: true })
  atEnd(() => void socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  const closed = new Promise<string>((resolve) => {
    // A reset is one of the ways in which a server may end what it refused.
    socket.on('error', () => resolve(text))
    socket.once('close', () => resolve(text))
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  return {
    socket,
    received: () => text,
    write: (bytes) => void socket.write(bytes),
    closed,
  }
}
