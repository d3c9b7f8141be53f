import { UpstreamFailure } from './failure.ts'
import type { FailureKind } from './failure.ts'

/** How far an exchange had come when it failed. `dialling`: not one byte of the request was written. */
export type Progress = 'dialling' | 'sent' | 'answered'

/** Codes of the HTTP client (undici 8 lib/core/errors.js) and of Node's sockets, once the request was on its way. */
const KINDS_AFTER_SENDING: ReadonlyMap<string, FailureKind> = new Map([
  ['UND_ERR_HEADERS_TIMEOUT', 'headers_timeout'],
  ['UND_ERR_BODY_TIMEOUT', 'silence_timeout'],
  ['UND_ERR_HEADERS_OVERFLOW', 'malformed'],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'truncated'],
  ['ECONNRESET', 'reset'],
  ['EPIPE', 'reset'],
  ['ETIMEDOUT', 'reset'],
  ['UND_ERR_DESTROYED', 'reset'],
])

/** The failure that an error of the HTTP client means. An `UpstreamFailure` comes back as it is. */
export function transportFailure(error: unknown, progress: Progress): UpstreamFailure {
  if (error instanceof UpstreamFailure) return error
  const code = codeOf(error)
  const kind = progress === 'dialling' ? kindOfDialling(code) : kindAfterSending(code, error, progress)
  return new UpstreamFailure(kind, { cause: error })
}

function kindOfDialling(code: string): FailureKind {
  // The only headers waited for before the request is written are a proxy's answer to CONNECT.
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT' || code === 'UND_ERR_HEADERS_TIMEOUT') return 'connect_timeout'
  // We closed the transport ourselves: nothing against the upstream.
  if (code === 'UND_ERR_DESTROYED' || code === 'UND_ERR_CLOSED') return 'saturated'
  return isTlsCode(code) ? 'tls_failed' : 'dial_failed'
}

function kindAfterSending(code: string, error: unknown, progress: Progress): FailureKind {
  const known = KINDS_AFTER_SENDING.get(code)
  if (known !== undefined) return known
  // Undici 8.12 leaves out the code (HPE_…) of its parser's errors, so that only the words tell an early end from nonsense.
  if (error instanceof Error && error.name === 'HTTPParserError') return /EOF/.test(error.message) ? 'truncated' : 'malformed'
  if (code === 'UND_ERR_SOCKET' && error instanceof Error && /^bad (response|upgrade)$/.test(error.message)) return 'malformed'
  // With TLS 1.3 a server refuses our certificate only after we have begun to talk. It has read nothing of the request.
  if (progress === 'sent' && /^ERR_SSL_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/.test(code)) return 'tls_failed'
  return progress === 'answered' ? 'truncated' : 'reset'
}

/** Codes of OpenSSL's certificate verification (X509_V_ERR_*) as Node names them, and of the handshake itself. */
const CERTIFICATE_CODE = /CERT|CRL|SIGNATURE|ISSUER|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH|HOSTNAME_MISMATCH/

function isTlsCode(code: string): boolean {
  return code === 'EPROTO' || code === 'UND_ERR_PRX_TLS' || /^ERR_(SSL|TLS|OSSL)_/.test(code) || CERTIFICATE_CODE.test(code)
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}
