import type { OutgoingHttpHeaders } from 'node:http'
import type { Endpoint } from '../config/model.ts'
import { filingText } from '../routing/filings.ts'
import type { RateStates } from '../storage/ports.ts'
import { lifeOf, successorOf } from '../routing/lives.ts'
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
    ...lifeHeaders(admission),
  }
  if (target.sandbox) headers['x-weir-sandbox'] = '1'
  const filing = filingText(target)
  if (filing !== null) headers['x-weir-filing'] = filing
  if (admission.capped_tokens !== null) headers['x-weir-max-tokens'] = String(admission.capped_tokens)
  if (adjusted !== null) headers['x-weir-adjusted'] = adjusted
  Object.assign(headers, labelHeaders(admission, target))
  return headers
}

/**
 * What a client should know of a model that is on its way out: since when it is deprecated (RFC 9745), when it goes (RFC 8594), what
 * takes its place. Where nobody said since when, it is deprecated now.
 */
function lifeHeaders({ route, snapshot, caller, receipt }: Admission): OutgoingHttpHeaders {
  const { model } = route
  const { deprecated_at, retires_at } = model
  const at_ms = receipt.admitted_at
  const deprecated = lifeOf(model, at_ms) === 'deprecated'
  if (!deprecated && retires_at === null) return {}
  const successor = successorOf(model, snapshot.configuration.catalogue, caller.tenant.id, at_ms)
  return {
    ...(deprecated ? { deprecation: `@${Math.floor((deprecated_at ?? at_ms) / 1000)}` } : {}),
    ...(retires_at === null ? {} : { sunset: new Date(retires_at).toUTCString() }),
    ...(successor === null ? {} : { 'x-weir-replaced-by': successor.id }),
  }
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
