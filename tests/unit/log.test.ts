import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createLogger, type LoggerOptions } from '../../src/observe/log.ts'
import { spawnNode } from '../support/processes.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

function collected(level: LoggerOptions['level'] = 'info'): {
  logger: ReturnType<typeof createLogger>
  lines: () => Record<string, unknown>[]
  text: () => string
} {
  const written: string[] = []
  const logger = createLogger({ level, destination: { write: (line) => void written.push(line) } })
  return { logger, lines: () => written.map((line) => JSON.parse(line) as Record<string, unknown>), text: () => written.join('') }
}

test('writes one JSON line with level, time, fields and message', () => {
  const { logger, lines, text } = collected()
  logger.info({ request_id: 'r1', status: 200 }, 'request')
  expect(lines()).toEqual([
    { level: 'info', time: expect.stringMatching(/^\d{4}-.*Z$/) as unknown, request_id: 'r1', status: 200, msg: 'request' },
  ])
  expect(text().endsWith('\n')).toBe(true)
})

test('a line feed in a value cannot forge a line', () => {
  const { logger, lines, text } = collected()
  logger.warn({ model: 'a\n{"level":"error"}' }, 'b\nc')
  expect(text().trimEnd()).not.toContain('\n')
  expect(lines()[0]?.['model']).toBe('a\n{"level":"error"}')
})

test('below its level it writes nothing', () => {
  const { logger, lines } = collected('warn')
  logger.debug({}, 'a')
  logger.info({}, 'b')
  logger.warn({}, 'c')
  logger.error({}, 'd')
  expect(lines().map(({ level }) => level)).toEqual(['warn', 'error'])
})

test('a child carries its fields', () => {
  const { logger, lines } = collected()
  logger.child({ node: 'n1', secret: 'hunter2' }).child({ part: 'journal' }).info({ a: 1 }, 'x')
  expect(lines()[0]).toMatchObject({ node: 'n1', secret: '[redacted]', part: 'journal', a: 1 })
})

test.each(['authorization', 'api_key', 'apiKey', 'x-api-key', 'cookie', 'secret', 'token', 'password', 'messages', 'prompt', 'content'])(
  'a field called %s never shows, at the top or one level down',
  (name) => {
    const { logger, text } = collected()
    logger.info({ [name]: 'hunter2', kept: 1 }, 'x')
    logger.info({ headers: { [name]: 'hunter2', accept: 'json' } }, 'x')
    expect(text()).not.toContain('hunter2')
    expect(text()).toContain('[redacted]')
    expect(text()).toContain('"accept":"json"')
  },
)

test('an error shows its name, message, code, stack and causes, and no other member', () => {
  const { logger, lines, text } = collected()
  const cause = Object.assign(new TypeError('inner'), { code: 'ECONNREFUSED', details: { provider_message: 'hunter2' } })
  logger.error({ err: Object.assign(new Error('outer', { cause }), { body: 'hunter2' }) }, 'failed')
  expect(lines()[0]?.['err']).toMatchObject({
    type: 'Error',
    message: 'outer',
    cause: { type: 'TypeError', message: 'inner', code: 'ECONNREFUSED' },
  })
  expect(text()).toContain('log.test.ts')
  expect(text()).not.toContain('hunter2')
})

test('the text that JSON.parse choked on is withheld, from message and stack alike', () => {
  const { logger, text } = collected()
  const failure = ((): unknown => {
    try {
      return JSON.parse('my secret prompt')
    } catch (error) {
      return error
    }
  })()
  logger.error({ err: failure }, 'bad body')
  logger.error({ err: 'my secret prompt' }, 'not even an error')
  expect(text()).not.toContain('secret prompt')
})

test('an error that causes itself ends', () => {
  const { logger, lines } = collected()
  const error = new Error('round')
  error.cause = error
  logger.error({ err: error }, 'x')
  expect(lines()).toHaveLength(1)
})

test('what is buffered for standard output is written when the process exits, also by an uncaught error', async () => {
  const script = join(tempDir(), 'exit.ts')
  const log = JSON.stringify(join(REPO_ROOT, 'src/observe/log.ts'))
  writeFileSync(
    script,
    `import { createLogger } from ${log}\nconst l = createLogger({ level: 'info' })\nl.info({}, 'last words')\nthrow new Error('gone')\n`,
  )
  const child = spawnNode(script)
  expect((await child.exited).code).toBe(1)
  expect(child.stdout()).toContain('last words')
})

test('the level can be set once the configuration is known', () => {
  const { logger, lines } = collected('info')
  logger.setLevel('error')
  logger.info({}, 'quiet')
  logger.error({}, 'heard')
  expect(lines().map((line) => line['msg'])).toEqual(['heard'])
})
