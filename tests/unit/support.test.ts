import { existsSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { freePort } from '../support/ports.ts'
import { spawnNode } from '../support/processes.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

describe('test support', () => {
  test('a free port refuses connections', async () => {
    const port = await freePort()
    const code = await new Promise((resolve) => {
      connect(port, '127.0.0.1').once('error', (error: NodeJS.ErrnoException) => {
        resolve(error.code)
      })
    })
    expect(code).toBe('ECONNREFUSED')
  })

  test('waitFor gives the truthy value, and names what never came', async () => {
    let turns = 0
    expect(await waitFor(() => (turns += 1) > 2 && 'there', { timeout_ms: 5000, what: 'turns' })).toBe('there')
    await expect(waitFor(() => false, { timeout_ms: 20, what: 'the moon' })).rejects.toThrow('the moon after 20 ms')
  })

  let left_behind = ''
  test('a temporary directory exists during its test', () => {
    left_behind = tempDir()
    writeFileSync(join(left_behind, 'file'), '')
    expect(existsSync(left_behind)).toBe(true)
  })
  test('and is gone after it', () => {
    expect(left_behind).not.toBe('')
    expect(existsSync(left_behind)).toBe(false)
  })

  test('a spawned script is observed, stopped, and its exit reported', async () => {
    const file = join(tempDir(), 'script.ts')
    writeFileSync(
      file,
      `process.on('SIGTERM', () => process.exit(7)); const n: number = 41; console.log('ready', n + 1, process.env.GREETING);
       setInterval(() => {}, 1000)`,
    )
    const script = spawnNode(file, [], { GREETING: 'hi' })
    expect((await script.waitForOutput(/ready (\d+) (\w+)/, 20_000)).slice(1)).toEqual(['42', 'hi'])
    expect(await script.stop()).toEqual({ code: 7, signal: null })
  })

  test('waiting for output fails at once when the script ends first', async () => {
    const file = join(tempDir(), 'script.ts')
    writeFileSync(file, `console.error('no luck')`)
    await expect(spawnNode(file).waitForOutput(/ready/, 60_000)).rejects.toThrow('no luck')
  })
})
