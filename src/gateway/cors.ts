import type { OutgoingHttpHeaders } from 'node:http'
import type { Settings } from '../config/model.ts'

const EXPOSED = [
  'x-request-id',
  'x-weir-model',
  'x-weir-route',
  'x-weir-filing',
  'x-weir-sandbox',
  'x-weir-aigc',
  'x-weir-label',
  'x-weir-max-tokens',
  'x-weir-adjusted',
  'x-weir-replaced-by',
  'deprecation',
  'sunset',
  'x-should-retry',
  'retry-after',
  'retry-after-ms',
  'x-ratelimit-limit-requests',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-reset-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-tokens',
].join(', ')

// `*` would be shorter, but browsers never count `authorization` into it (Fetch Standard, CORS-safelisting).
const STAINLESS = [
  'arch',
  'lang',
  'os',
  'package-version',
  'retry-count',
  'runtime',
  'runtime-version',
  'timeout',
  'helper-method',
  'async',
]
const ALLOWED = [
  'authorization',
  'content-type',
  'accept',
  'x-api-key',
  'x-weir-tags',
  'x-weir-domain',
  'openai-organization',
  'openai-project',
  'openai-beta',
  'anthropic-version',
  'anthropic-beta',
  'idempotency-key',
  ...STAINLESS.map((name) => `x-stainless-${name}`),
].join(', ')

/** Answers to a preflight, beside {@link corsHeaders}. */
export const PREFLIGHT_HEADERS: OutgoingHttpHeaders = Object.freeze({
  'access-control-allow-methods': 'GET, POST, OPTIONS',
  'access-control-allow-headers': ALLOWED,
  'access-control-max-age': '86400',
})

/** CORS headers for an origin that the settings allow; keys travel in headers, so credentials are never allowed. */
export function corsHeaders(origin: string | undefined, settings: Settings): OutgoingHttpHeaders {
  if (origin === undefined) return {}
  const { origins } = settings.cors
  if (origins.includes('*')) return { 'access-control-allow-origin': '*', 'access-control-expose-headers': EXPOSED }
  if (!origins.includes(origin)) return {}
  return { 'access-control-allow-origin': origin, vary: 'origin', 'access-control-expose-headers': EXPOSED }
}
