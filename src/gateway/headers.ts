import type { OutgoingHttpHeaders } from 'node:http'
import type { Endpoint } from '../config/model.ts'
import { filingText } from '../routing/filings.ts'
import type { RateStates } from '../storage/ports.ts'
import type { Admission } from './admit.ts'
import { labelHeaders } from './label.ts'

export const SSE_HEADERS: OutgoingHttpHeaders = Object.freeze({
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // nginx in front of a gateway would otherwise collect the stream.
  'x-accel-buffering': 'no',
})

/** Headers of an answer: which model, why, under which filing, what of the request was changed for it, and that it was generated. */
export function answerHeaders(admission: Admission, target: Endpoint, adjusted: string | null): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {
    'x-weir-model': admission.route.model.id,
    'x-weir-route': admission.route.reason,
  }
  if (target.sandbox) headers['x-weir-sandbox'] = '1'
  const filing = filingText(target)
  if (filing !== null) headers['x-weir-filing'] = filing
  if (admission.capped_tokens !== null) headers['x-weir-max-tokens'] = String(admission.capped_tokens)
  if (adjusted !== null) headers['x-weir-adjusted'] = adjusted
  Object.assign(headers, labelHeaders(admission, target))
  return headers
}

/** `x-ratelimit-*` as OpenAI names them; a limit that does not exist has no header. */
export function rateHeaders(rates: RateStates): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {}
  for (const unit of ['requests', 'tokens'] as const) {
    const rate = rates[unit]
    if (rate === null) continue
    headers[`x-ratelimit-limit-${unit}`] = String(rate.limit)
    headers[`x-ratelimit-remaining-${unit}`] = String(Math.max(0, rate.remaining))
    headers[`x-ratelimit-reset-${unit}`] = `${Math.max(0, rate.reset_ms)}ms`
  }
  return headers
}
