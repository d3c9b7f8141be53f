import { InvariantError } from '../../base/assert.ts'
import { LimitsUnavailable } from '../cluster-ports.ts'

/** Data of a later release than this one: it is left as it is. */
export class UnknownVersion extends Error {
  override name = 'UnknownVersion'
}

/** Replies of a server that has run nothing of what it was asked. */
const NOT_RUN: ReadonlySet<string> = new Set([
  'ASK',
  'BUSY',
  'CLUSTERDOWN',
  'LOADING',
  'MASTERDOWN',
  'MISCONF',
  'MOVED',
  'NOAUTH',
  'NOPERM',
  'NOREPLICAS',
  'READONLY',
  'TRYAGAIN',
  'WRONGPASS',
])
/** What the client says of a command that it has not sent. */
const NOT_SENT = /isn't writeable|isn't ready|Too many Cluster redirections|None of startup nodes|Cluster is ended/

/**
 * What became of a command that failed, as {@link LimitsUnavailable} where the server is the reason. Errors of the client carry the
 * command with its arguments, passwords included: nothing of them is kept but the message.
 */
export function failureOf(error: unknown): Error {
  if (error instanceof LimitsUnavailable || error instanceof UnknownVersion) return error
  const { name, message } = error instanceof Error ? error : new Error(String(error))
  if (name === 'ReplyError') return refusalOf(message)
  if (NOT_SENT.test(message)) return unavailable('away', message)
  return unavailable('unknown', message)
}

/** Whether the server does not know a script, and so has not run it. */
export function isUnknownScript(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('NOSCRIPT')
}

/** An error's message alone. */
export function plainError(error: unknown): Error {
  return new Error(error instanceof Error ? error.message : String(error))
}

function refusalOf(message: string): Error {
  const code = /^[A-Z]+/.exec(message)?.[0] ?? ''
  const text = message.replace(/^WEIR[A-Z]+ /, '').replace(/ script: [0-9a-f]{40}.*$/, '')
  if (code === 'OOM') return unavailable('full', message)
  if (NOT_RUN.has(code)) return unavailable('away', message)
  if (code === 'WEIRVERSION') return new UnknownVersion(text)
  if (code === 'WEIRRANGE') return new RangeError(text)
  if (code === 'WEIRTENANT') return new InvariantError(text)
  return new Error(`Redis refused a command: ${message}`)
}

function unavailable(kind: LimitsUnavailable['kind'], message: string): LimitsUnavailable {
  const what = { away: 'Redis is away', unknown: 'Redis gave no answer', closed: 'closed', full: 'Redis has no memory left' }[kind]
  return new LimitsUnavailable(kind, `${what}: ${message}`)
}
