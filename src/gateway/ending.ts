import { WeirError } from '../base/errors.ts'
import { LedgerUnavailable, LimitsUnavailable } from '../storage/cluster-ports.ts'
import { FAILURES, UpstreamFailure } from '../upstream/failure.ts'
import type { Ending } from './settle.ts'

/** How a request that ended with this error is recorded. */
export function endingOf(error: unknown, delivered: boolean): Ending {
  if (error instanceof UpstreamFailure && error.kind === 'client_gone') return { status: 'aborted', code: 'client_closed_request' }
  return { status: delivered ? 'truncated' : 'failed', code: toWeirError(error).code }
}

/** True if storage had no answer because too much waits, or because it has failed. The journal is known by name: drivers are not imported here. */
export function isStorageUnavailable(error: unknown): boolean {
  if (error instanceof LimitsUnavailable || error instanceof LedgerUnavailable) return true
  return error instanceof Error && error.name === 'JournalUnavailable'
}

/** When shared limits that are away are to be asked again. */
const AWAY_RETRY_MS = 1000

/** The caller's view of any error: its own refusals as they are, upstream failures by their kind, all else as `internal_error`. */
export function toWeirError(error: unknown): WeirError {
  if (error instanceof WeirError) return error
  if (error instanceof LimitsUnavailable) return new WeirError('admission_unavailable', { cause: error, retry_after_ms: AWAY_RETRY_MS })
  if (error instanceof LedgerUnavailable) return new WeirError('ledger_unavailable', { cause: error, retry_after_ms: AWAY_RETRY_MS })
  if (!(error instanceof UpstreamFailure)) return new WeirError('internal_error', { cause: error })
  const { kind, details } = error
  const said = details.provider_message
  const retry = details.retry_after_ms === undefined ? {} : { retry_after_ms: details.retry_after_ms }
  const values = { detail: callersWords(kind, said), model: '', estimate: '?', limit: '?' }
  return new WeirError(FAILURES[kind].code, { values, cause: error, ...retry })
}

/** What the caller may read: the provider's words where they are about the request, the kind alone where they are about us. */
function callersWords(kind: keyof typeof FAILURES, said: string | undefined): string {
  const about_the_request = kind === 'invalid' || kind === 'unsupported' || kind === 'content' || kind === 'context_length'
  if (about_the_request && said !== undefined) return said
  return WORDS[kind]
}

const WORDS: Readonly<Record<keyof typeof FAILURES, string>> = {
  dial_failed: 'no connection could be made.',
  connect_timeout: 'the connection took too long.',
  tls_failed: 'the TLS handshake failed.',
  saturated: 'every connection is in use.',
  rate: 'its rate limit for this gateway is reached.',
  quota: 'its quota for this gateway is used up.',
  balance: 'its account for this gateway needs to be topped up by the operator.',
  auth: 'it refused the credentials of this gateway; the operator must renew them.',
  overload: 'it is overloaded.',
  server: 'it failed.',
  model_missing: 'it does not serve this model.',
  content: 'it refused the content.',
  invalid: 'it refused the request.',
  unsupported: 'it cannot do what was asked.',
  context_length: 'the prompt is too long for it.',
  reset: 'the connection broke before an answer.',
  headers_timeout: 'no answer began in time.',
  first_event_timeout: 'no first token came in time.',
  silence_timeout: 'the answer stopped in the middle.',
  deadline: 'the total time for this request is used up.',
  malformed: 'its answer could not be understood.',
  truncated: 'its answer ended too early.',
  client_gone: 'the client left.',
  shutting_down: 'the gateway is shutting down.',
}
