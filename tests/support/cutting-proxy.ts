import { connect, createServer, type Server, type Socket } from 'node:net'
import { atEnd } from './cleanup.ts'

/** A TCP proxy that cuts a connection at a moment that a test chooses. */
export interface CuttingProxy {
  readonly port: number
  /**
   * Cuts the next connection whose client sends `text`: `before` the server hears of it, or `after` the server has answered, which the
   * client then does not hear. @returns once that has happened
   */
  cutAt(text: string, when: 'before' | 'after'): Promise<void>
  /** From now on, nothing that either side sends arrives, and no connection is closed. */
  hold(): void
  close(): Promise<void>
}

interface Cut {
  readonly text: string
  readonly when: 'before' | 'after'
  done(): void
}

/** Starts a proxy in front of a port of this machine; closed when the current test ends. */
export async function startCuttingProxy(target_port: number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  let cut: Cut | null = null
  let held = false
  const server: Server = createServer((client) => {
    const upstream = connect(target_port, '127.0.0.1')
    let answered: (() => void) | null = null
    const end = (): void => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      // The other side hears of it by the end of its own.
      socket.on('error', end)
      socket.on('close', () => {
        sockets.delete(socket)
        if (!held) end()
      })
    }
    client.on('data', (chunk: Buffer) => {
      if (held) return
      const hit = cut !== null && chunk.includes(cut.text) ? cut : null
      if (hit === null) return void upstream.write(chunk)
      cut = null
      const finish = (): void => {
        end()
        hit.done()
      }
      if (hit.when === 'before') return finish()
      answered = finish
      upstream.write(chunk)
    })
    upstream.on('data', (chunk: Buffer) => {
      if (held) return
      if (answered === null) client.write(chunk)
      else answered()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }
  atEnd(close)
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
  return {
    port: address.port,
    cutAt: (text, when) =>
      new Promise((done) => {
        cut = { text, when, done }
      }),
    hold: () => void (held = true),
    close,
  }
}
