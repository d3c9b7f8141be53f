import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { HELLO } from '../support/gateway.ts'
import { rawConnection } from '../support/raw-http.ts'
import { readSse, sseOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'
import { spawnWhole, type WholeProcess } from '../support/whole.ts'

const MEBIBYTE = 1024 * 1024
const HAS_PROC = existsSync('/proc/self/status')
if (!HAS_PROC) console.warn('no /proc here: the memory of another process cannot be read, so tests that do are skipped')

/** Resident memory of a process. */
function residentBytes(pid: number): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  if (kibibytes === undefined) throw new Error(`process ${pid} says nothing of its memory`)
  return Number(kibibytes) * 1024
}

interface Totals {
  readonly totals: ReadonlyArray<{
    readonly requests: number
    readonly completed: number
    readonly tokens: { readonly input: number; readonly output: number }
  }>
}

async function totalsOf(whole: WholeProcess): Promise<Totals['totals'][number] | undefined> {
  return ((await (await whole.get('/v1/usage')).json()) as Totals).totals[0]
}

it.skipIf(!HAS_PROC)(
  'a client that does not read pauses the upstream; memory stays bounded, and reading on gets it all',
  { timeout: 180_000 },
  async () => {
    const whole = await spawnWhole()
    await (await whole.chat({ stream: true })).text()
    const before = residentBytes(whole.process.pid)
    const tokens = 3200
    const body = JSON.stringify({ model: 'solo', messages: HELLO, stream: true, sandbox: { tokens, bytes_per_token: 65_536 } })
    const connection = await rawConnection(whole.url)
    let received = 0
    let tail = ''
    connection.socket.removeAllListeners('data')
    connection.socket.on('data', (chunk: Buffer) => {
      received += chunk.length
      tail = (tail + chunk.toString('latin1')).slice(-200)
    })
    connection.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer ${whole.key}\r\n` +
        `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    )
    await waitFor(() => received > 0, { timeout_ms: 20_000, what: 'the stream to begin' })
    connection.socket.pause()
    const sent = (): number => whole.sandbox.served().served[1]?.sent_tokens ?? 0
    for (let seen = -1; seen !== sent();) {
      seen = sent()
      await sleep(1500)
    }
    const grown = residentBytes(whole.process.pid) - before
    expect(sent() * 65_536).toBeLessThan(60 * MEBIBYTE)
    expect(grown).toBeLessThan(64 * MEBIBYTE)
    connection.socket.resume()
    await connection.closed
    expect(received).toBeGreaterThan(tokens * 65_536)
    expect(tail).toContain('data: [DONE]')
    expect(residentBytes(whole.process.pid) - before).toBeLessThan(128 * MEBIBYTE)
    expect(await totalsOf(whole)).toMatchObject({ requests: 2, completed: 2 })
  },
)

it('two thousand streams at once each get their own answer, whole, and two thousand exact events', { timeout: 240_000 }, async () => {
  const whole = await spawnWhole()
  const count = 2000
  const asked = Array.from({ length: count }, (_, index) => `question ${index}`)
  const streams = asked.map(async (content) => {
    const response = await whole.chat({
      messages: [{ role: 'user', content }],
      stream: true,
      stream_options: { include_usage: true },
      sandbox: { first_token_delay_ms: 8000, token_delay_ms: 200 },
    })
    const stream = await sseOf(response)
    return {
      whole: stream.done_count === 1 && stream.error === null && stream.content.includes(`"${content}"`),
      output: stream.events.at(-1)?.usage?.completion_tokens ?? 0,
    }
  })
  await waitFor(() => whole.sandbox.served().totals.open === count, { timeout_ms: 60_000, what: `${count} open streams` })
  const answers = await Promise.all(streams)
  expect(answers.filter((answer) => !answer.whole)).toEqual([])
  const { totals } = whole.sandbox.served()
  const usage = await totalsOf(whole)
  expect(totals).toMatchObject({ requests: count, finished: count, aborted: 0 })
  expect(usage).toMatchObject({ requests: count, completed: count, tokens: { input: totals.prompt_tokens, output: totals.sent_tokens } })
  expect(answers.reduce((sum, { output }) => sum + output, 0)).toBe(totals.sent_tokens)
  expect(await whole.admin('/audit')).toMatchObject({ ok: true })
})

it('bytes arrive as they come: the first part of a stream is there before the last was made', async () => {
  const whole = await spawnWhole()
  const response = await whole.chat({ stream: true, sandbox: { tokens: 40, token_delay_ms: 100 } })
  const reader = response.body?.getReader()
  const first = await reader?.read()
  expect(whole.sandbox.served().totals.finished).toBe(0)
  let text = Buffer.from(first?.value ?? []).toString()
  for (let read = await reader?.read(); read !== undefined && !read.done; read = await reader?.read())
    text += Buffer.from(read.value).toString()
  expect(readSse(text)).toMatchObject({ done_count: 1, error: null })
})
