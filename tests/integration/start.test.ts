import { createServer, type Server } from 'node:http'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { writeConfiguration } from '../support/gateway.ts'
import { freePort } from '../support/ports.ts'
import { spawnNode } from '../support/processes.ts'
import { openTest } from '../support/storage.ts'
import { spawnWhole, startWhole } from '../support/whole.ts'

/** Somebody who listens where the gateway would. */
async function occupied(): Promise<{ readonly port: number; close(): Promise<void> }> {
  const port = await freePort()
  const server: Server = createServer()
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const close = async (): Promise<void> => {
    if (server.listening) await new Promise((resolve) => server.close(resolve))
  }
  atEnd(close)
  return { port, close }
}

it.each(['WEIR_PORT', 'WEIR_ADMIN_PORT'])('a start that does not get %s says so and exits with 1', async (taken) => {
  const { config_dir, data_dir } = writeConfiguration('http://127.0.0.1:9', {})
  const ports = { WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', [taken]: String((await occupied()).port) }
  const starting = spawnNode('src/main.ts', [], { ...ports, WEIR_DATA_DIR: data_dir, WEIR_CONFIG_DIR: config_dir })
  expect(await starting.exited).toEqual({ code: 1, signal: null })
  expect(starting.stderr()).toContain(`port ${ports[taken]} is in use`)
})

it('a start that fails leaves nothing behind: storage and the port that it had are free, and the next start works', async () => {
  const { config_dir, data_dir } = writeConfiguration('http://127.0.0.1:9', {})
  const other = await occupied()
  const env = { WEIR_PORT: String(await freePort()), WEIR_ADMIN_PORT: String(other.port), WEIR_DATA_DIR: data_dir }
  const before = process.getActiveResourcesInfo().toSorted()
  const options = { config_dir, env, clock: systemClock(), logger: createLogger({ level: 'error', destination: { write: () => {} } }) }
  await expect(startWeir(options)).rejects.toThrow('EADDRINUSE')
  const kinds = new Set(['TCPServerWrap', 'Timeout', 'MessagePort'])
  const left = (of: readonly string[]): readonly string[] => of.filter((kind) => kinds.has(kind))
  expect(left(process.getActiveResourcesInfo().toSorted()).length).toBeLessThanOrEqual(left(before).length)
  await other.close()
  const weir = await startWeir(options)
  await weir.drain()
})

it('of reloads that overlap the one that was loaded last is in force', async () => {
  const whole = await startWhole()
  const file = join(whole.config_dir, 'weir.yaml')
  const settings = JSON.parse(readFileSync(file, 'utf8')) as object
  const reloads = Array.from({ length: 6 }, (_, index) => {
    writeFileSync(file, JSON.stringify({ ...settings, cors: { origins: [`https://${index}.example`] } }))
    return whole.weir.reload()
  })
  const digests = (await Promise.all(reloads)).map((outcome) => (outcome.ok ? outcome.digest : 'refused'))
  expect(new Set(digests).size).toBe(6)
  const ready = (await (await fetch(`${whole.url}/readyz`)).json()) as { config: string }
  expect(digests.at(-1)?.startsWith(ready.config)).toBe(true)
})

it('an endpoint whose configuration changed starts with a closed breaker; one that did not keeps its state', async () => {
  const whole = await startWhole({ sandbox: { fail: { kind: 'refuse', status: 401 } } })
  const open = async (): Promise<readonly string[]> =>
    [...(await whole.metrics()).matchAll(/^weir_breaker_state\{endpoint="([^"]+)",state="open"\} 1$/gm)].map(([, id = '']) => id)
  await (await whole.chat({})).text()
  await (await whole.chat({ model: 'pair' })).text()
  expect(await open()).toEqual(['solo-a', 'pair-a', 'pair-b'])
  const file = join(whole.config_dir, 'catalogue.yaml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('"up-solo"', '"up-other"'))
  expect(await whole.weir.reload()).toMatchObject({ ok: true })
  expect(await open()).toEqual(['pair-a', 'pair-b'])
})

it('what a killed process left open is named as such by an audit without a gateway', async () => {
  const whole = await spawnWhole()
  const open = await whole.chat({ stream: true, sandbox: { tokens: 5000, token_delay_ms: 10 } })
  await whole.process.stop('SIGKILL')
  await open.text().catch(() => '')
  const audit = spawnNode('src/cli.ts', ['audit'], { WEIR_DATA_DIR: whole.data_dir, WEIR_CONFIG_DIR: whole.config_dir })
  expect(await audit.exited).toMatchObject({ code: 1 })
  expect(audit.stdout()).toContain('1 left open by a process that died; the next start of the gateway closes what it left')
  const storage = await openTest(whole.data_dir)
  expect((await storage.log.unfinished()).length).toBe(1)
  await storage.close()
})
