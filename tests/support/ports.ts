import { createServer } from 'node:net'

/**
 * A TCP port of the loopback interface that nothing listened on a moment ago, found by binding and closing one.
 * Connections to it are refused until somebody binds it, so it also serves as a port that refuses.
 */
export async function freePort(): Promise<number> {
  const server = createServer()
  return await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => {
        if (address === null || typeof address === 'string') reject(new Error('the system gave no port'))
        else resolve(address.port)
      })
    })
  })
}
