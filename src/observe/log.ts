import { pino, stdTimeFunctions, type DestinationStream, type Logger as Pino } from 'pino'

/** What is known of one occurrence: ids, counts, codes. Never content, never a secret. An error goes under `err`. */
export type LogFields = Readonly<Record<string, unknown>>

/** Writes one JSON line per call. */
export interface Logger {
  debug(fields: LogFields, msg: string): void
  info(fields: LogFields, msg: string): void
  warn(fields: LogFields, msg: string): void
  error(fields: LogFields, msg: string): void
  /** A logger whose every line carries these fields too. */
  child(fields: LogFields): Logger
}

/** The process's logger. */
export interface RootLogger extends Logger {
  /** Writes out what is buffered, synchronously. Runs by itself when the process exits. */
  flush(): void
  /** Lines below this level are not written from now on: the level is known only once the configuration is. */
  setLevel(level: LoggerOptions['level']): void
}

export interface LoggerOptions {
  /** Lines below this level are not written. */
  readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug'
  /** Where lines go; standard output when absent. `write` gets one line, line feed included. */
  readonly destination?: { write(line: string): void }
}

/** Lines are collected up to this size, so that a busy gateway does not make a system call per request … */
const BUFFER_CHARACTERS = 65_536
/** … and written at least this often. */
const FLUSH_INTERVAL_MS = 250
/** Most that may wait for a reader that is stuck; lines beyond it are dropped and counted. */
const MAX_WAITING_BYTES = 8_388_608
/** Causes of an error that are written. */
const MAX_CAUSES = 4
const MAX_STACK_FRAMES = 12

/** The second line of defence: callers log ids, never these. At the top of a line and one level down. */
const SECRET_FIELDS: ReadonlySet<string> = new Set([
  'authorization',
  'Authorization',
  'proxy-authorization',
  'api_key',
  'apiKey',
  'x-api-key',
  'cookie',
  'set-cookie',
  'secret',
  'token',
  'password',
  'hash',
  'body',
  'messages',
  'prompt',
  'content',
  'user',
])
const REDACTED = '[redacted]'

/**
 * Makes the process's logger: JSON lines with ISO 8601 times in UTC. Standard output is written in the background and flushed when
 * the process exits; a `destination` is written at once.
 */
export function createLogger(options: LoggerOptions): RootLogger {
  if (options.destination !== undefined) {
    const logger = pinoOn(options.destination, options.level)
    return { ...narrowed(logger), flush: () => {}, setLevel: levelOf(logger) }
  }
  const output = standardOutput()
  const lines = new LineBuffer((text) => output.write(text))
  const flush = (): void => {
    lines.flush()
    output.flushSync()
  }
  const logger = pinoOn(lines, options.level)
  reportDrops(output, logger)
  flushAtExit(flush)
  return { ...narrowed(logger), flush, setLevel: levelOf(logger) }
}

function levelOf(logger: ReturnType<typeof pinoOn>): RootLogger['setLevel'] {
  return (level) => {
    logger.level = level
  }
}

const AT_EXIT: (() => void)[] = []

/** One listener for all loggers: a process of tests makes many, and Node warns of the eleventh listener. */
function flushAtExit(flush: () => void): void {
  if (AT_EXIT.length === 0) process.once('exit', () => AT_EXIT.forEach((each) => each()))
  AT_EXIT.push(flush)
}

/** Collects lines and hands them on together: joining them one by one to what waits would copy all of it for every line. */
class LineBuffer {
  readonly #write: (text: string) => void
  #lines: string[] = []
  #characters = 0

  constructor(write: (text: string) => void) {
    this.#write = write
    setInterval(() => this.flush(), FLUSH_INTERVAL_MS).unref()
  }

  write(line: string): void {
    this.#lines.push(line)
    this.#characters += line.length
    if (this.#characters >= BUFFER_CHARACTERS) this.flush()
  }

  flush(): void {
    if (this.#lines.length === 0) return
    const text = this.#lines.join('')
    this.#lines = []
    this.#characters = 0
    this.#write(text)
  }
}

function pinoOn(destination: DestinationStream, level: LoggerOptions['level']): Pino {
  return pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: redacted },
      serializers: { err: plainError, error: plainError },
    },
    destination,
  )
}

/** The fields as they may be written. Much faster than pino's redaction by wildcard, which costs more than the whole line. */
function redacted(fields: LogFields): Record<string, unknown> {
  return hasSecret(fields) || Object.values(fields).some((value) => isPlain(value) && hasSecret(value)) ? masked(fields, 1) : fields
}

function hasSecret(fields: LogFields): boolean {
  for (const name in fields) {
    if (SECRET_FIELDS.has(name)) return true
  }
  return false
}

function masked(fields: LogFields, levels_below: number): Record<string, unknown> {
  const entries = Object.entries(fields).map(([name, value]): [string, unknown] => {
    if (SECRET_FIELDS.has(name)) return [name, REDACTED]
    return [name, levels_below > 0 && isPlain(value) ? masked(value, levels_below - 1) : value]
  })
  return Object.fromEntries(entries)
}

function isPlain(value: unknown): value is LogFields {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

function narrowed(logger: Pino): Logger {
  return {
    debug: (fields, msg) => logger.debug(fields, msg),
    info: (fields, msg) => logger.info(fields, msg),
    warn: (fields, msg) => logger.warn(fields, msg),
    error: (fields, msg) => logger.error(fields, msg),
    child: (fields) => narrowed(logger.child(redacted(fields))),
  }
}

function standardOutput(): ReturnType<typeof pino.destination> {
  return pino.destination({ fd: 1, sync: false, maxLength: MAX_WAITING_BYTES })
}

function reportDrops(output: ReturnType<typeof pino.destination>, logger: Pino): void {
  let dropped = 0
  output.on('drop', (text: string) => {
    dropped += text.split('\n').length - 1
  })
  output.on('drain', () => {
    if (dropped === 0) return
    const lines = dropped
    dropped = 0
    logger.warn({ lines }, 'log lines were dropped because their reader was too slow')
  })
}

/** An error as it may be logged. */
interface PlainError {
  readonly type: string
  readonly message: string
  readonly code?: string
  readonly stack?: string
  readonly cause?: PlainError
}

/** Only name, message, code, stack and causes: other members of an error may quote a provider or a caller. */
function plainError(error: unknown, depth = 0): PlainError {
  if (!(error instanceof Error)) return { type: typeof error, message: 'not an error object' }
  const code: unknown = 'code' in error ? error.code : undefined
  const frames = (error.stack ?? '').split('\n').filter((line) => line.startsWith('    at '))
  return {
    type: error.name,
    message: messageOf(error),
    ...(typeof code === 'string' ? { code } : {}),
    ...(frames.length === 0 ? {} : { stack: frames.slice(0, MAX_STACK_FRAMES).join('\n') }),
    ...(error.cause === undefined || depth >= MAX_CAUSES ? {} : { cause: plainError(error.cause, depth + 1) }),
  }
}

/** The message of a failed `JSON.parse` quotes the text it was given. */
function messageOf(error: Error): string {
  return error instanceof SyntaxError ? 'syntax error (the text is withheld)' : error.message
}
