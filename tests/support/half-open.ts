import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { atEnd } from './cleanup.ts'

/** What happens to bytes on their way: passed on, or swallowed without a word, as by a network that has lost one direction. */
export type Direction = 'to_server' | 'to_client'

/** A TCP proxy that can lose bytes in one direction or both while its connections stay open, or cut them. */
export interface HalfOpenProxy {
  readonly port: number
  /** Swallows what goes this way from now on, also on connections that are made later. */
  blackhole(direction: Direction): void
  /** Passes everything again. Connections that have lost bytes are cut: a TCP stream with a hole in it does not exist. */
  heal(): void
  /** Cuts every connection. */
  cut(): void
  /** New connections go to another port; those that are there are cut. As a name or address that is moved to another server. */
  retarget(port: number): void
}

/** Starts a proxy in front of a port on this machine; it ends with the test. */
export async function startHalfOpenProxy(target_port: number): Promise<HalfOpenProxy> {
  let target = target_port
  const lost = new Set<Direction>()
  const sockets = new Set<Socket>()
  const holed = new Set<Socket>()

  const pass = (from: Socket, to: Socket, direction: Direction): void => {
    from.on('data', (chunk) => {
      if (!lost.has(direction)) return void to.write(chunk)
      holed.add(from)
      holed.add(to)
    })
    from.on('end', () => {
      if (!lost.has(direction)) to.end()
    })
    from.on('error', () => to.destroy())
    from.on('close', () => {
      sockets.delete(from)
      holed.delete(from)
      if (!lost.has(direction)) to.destroy()
    })
  }
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1')
    sockets.add(client).add(upstream)
    pass(client, upstream, 'to_server')
    pass(upstream, client, 'to_client')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = (some: Iterable<Socket>): void => {
    for (const socket of [...some]) socket.destroy()
  }
  atEnd(async () => {
    cut(sockets)
    await new Promise((resolve) => server.close(resolve))
  })
  return {
    port: (server.address() as AddressInfo).port,
    blackhole: (direction) => void lost.add(direction),
    heal: () => {
      lost.clear()
      cut(holed)
    },
    cut: () => cut(sockets),
    retarget: (port) => {
      target = port
      cut(sockets)
    },
  }
}
