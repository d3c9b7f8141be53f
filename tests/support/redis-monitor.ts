import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { atEnd } from './cleanup.ts'

/** A command that a server was given. */
export interface SeenCommand {
  /** Address of the client, or `lua` for what a script does. */
  readonly source: string
  /** Its words, separated by blanks. */
  readonly text: string
}

/**
 * What a server is told from now on (`MONITOR`), until the test ends. Over a socket of its own: the client library fails on commands that
 * arrive together with the answer to `MONITOR`.
 */
export async function monitorRedis(port: number): Promise<readonly SeenCommand[]> {
  const seen: SeenCommand[] = []
  const socket = connect(port, '127.0.0.1')
  atEnd(() => void socket.destroy())
  const begun = Promise.withResolvers<void>()
  socket.once('error', begun.reject)
  createInterface({ input: socket }).on('line', (line) => {
    if (line === '+OK') return begun.resolve()
    const match = /^\+[\d.]+ \[\d+ ([^\]]+)\] (.*)$/.exec(line)
    if (match === null) return begun.reject(new Error(`MONITOR says ${line}`))
    const [, source = '', words = ''] = match
    const texts = [...words.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = '']) => word)
    seen.push({ source, text: texts.join(' ') })
  })
  socket.write('MONITOR\r\n')
  await begun.promise
  return seen
}
