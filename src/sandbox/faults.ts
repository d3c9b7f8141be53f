import { DirectiveError, type Directives, type Fault } from './directives.ts'
import type { Exchange } from './exchange.ts'
import type { Persona } from './persona.ts'
import { dataEvent } from './shapes.ts'

/** What decides whether a failure is due. */
export interface FaultScope {
  readonly request_id: string
  readonly prefix: string
  readonly endpoint: 'chat' | 'embeddings' | 'models' | 'rerank'
}

const MAX_COUNTS = 10_000
const HTML_PAGE = '<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>'
const BROKEN_JSON = '{"id":"broken","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"'

/** Remembers how often each request id was failed, for `times`; forgets the oldest of 10,000. */
export class FaultBook {
  readonly #failed = new Map<string, number>()

  /** The failure to play now, or null. Counts it. */
  due(fault: Fault | null, scope: FaultScope): Fault | null {
    if (fault === null) return null
    if (fault.only_prefix !== null && fault.only_prefix !== scope.prefix) return null
    if (fault.endpoint !== null && fault.endpoint !== scope.endpoint) return null
    if (fault.times === null) return fault
    const failed = this.#failed.get(scope.request_id) ?? 0
    if (failed >= fault.times) return null
    this.#failed.delete(scope.request_id)
    this.#failed.set(scope.request_id, failed + 1)
    if (this.#failed.size > MAX_COUNTS) this.#forgetOldest()
    return fault
  }

  reset(): void {
    this.#failed.clear()
  }

  #forgetOldest(): void {
    const oldest = this.#failed.keys().next()
    if (oldest.done !== true) this.#failed.delete(oldest.value)
  }
}

/** The OpenAI-shaped body of an error. */
export function errorJson(message: string, type: string, code: string | null, param: string | null = null): string {
  return JSON.stringify({ error: { message, type, param, code } })
}

function faultBody(fault: Fault): string {
  if (fault.body !== null) return fault.body
  const rate = fault.status === 429
  const message = fault.message ?? (rate ? 'Rate limit reached, asked for by a directive.' : 'A failure, asked for by a directive.')
  const type = rate ? 'rate_limit_error' : fault.status < 500 ? 'invalid_request_error' : 'server_error'
  return errorJson(message, type, fault.code ?? (rate ? 'rate_limit_exceeded' : 'sandbox_failure'))
}

/** Plays a failure that comes before the headers. Returns true if there is nothing left to answer. */
export async function playBeforeHeaders(exchange: Exchange, fault: Fault, persona: Persona | null): Promise<boolean> {
  switch (fault.kind) {
    case 'provider': {
      const told = persona?.errors[fault.cause]
      if (told === undefined) throw new DirectiveError('fail.kind provider: say which by play or by the path /as/<provider>')
      exchange.answer(told.status, 'application/json', told.body)
      return true
    }
    case 'refuse':
    case 'rate': {
      const retry_after: readonly string[] = fault.retry_after === null ? [] : ['retry-after', String(fault.retry_after)]
      exchange.answer(fault.status, 'application/json', faultBody(fault), retry_after)
      return true
    }
    case 'error_in_200':
      exchange.answer(200, 'application/json', faultBody(fault))
      return true
    case 'html_page':
      exchange.answer(200, 'text/html', HTML_PAGE)
      return true
    case 'stall_before_headers':
      await exchange.stall(fault.stall_ms)
      return true
    case 'cut_before_headers':
      exchange.cut()
      return true
    case 'slow_headers':
      await exchange.wait(fault.delay_ms)
      return exchange.gone
    default:
      return false
  }
}

/** Plays a failure inside a stream, at its place. Returns true if the stream ends with it. */
export async function playInStream(exchange: Exchange, fault: Fault, directives: Directives): Promise<boolean> {
  switch (fault.kind) {
    case 'stall_before_first':
    case 'stall_middle':
      exchange.response.flushHeaders()
      await exchange.flushed()
      await exchange.stall(fault.stall_ms)
      return true
    case 'cut_middle':
      exchange.response.flushHeaders()
      await exchange.flushed()
      exchange.cut()
      return true
    case 'end_middle':
      exchange.end(false)
      return true
    case 'error_event':
      exchange.write(dataEvent(faultBody(fault), directives), 0, 0)
      if (fault.done) exchange.write(dataEvent('[DONE]', directives), 0, 0)
      exchange.end(false)
      return true
    case 'malformed_json':
      exchange.write(dataEvent(BROKEN_JSON, { ...directives, multi_line: false }), 0, 0)
      return false
    default:
      return false
  }
}

/** Plays a failure of a whole JSON answer. Returns true if it was one of them. */
export async function playInWhole(exchange: Exchange, fault: Fault, body: Buffer, status: number): Promise<boolean> {
  const half = body.subarray(0, body.length >> 1)
  switch (fault.kind) {
    case 'stall_before_first':
      exchange.head(status, 'application/json', ['content-length', String(body.length)])
      exchange.response.flushHeaders()
      await exchange.stall(fault.stall_ms)
      return true
    case 'stall_middle':
    case 'cut_middle':
      exchange.head(status, 'application/json', ['content-length', String(body.length)])
      exchange.write(half, 0, 0)
      await exchange.flushed()
      if (fault.kind === 'stall_middle') await exchange.stall(fault.stall_ms)
      else exchange.cut()
      return true
    case 'end_middle':
    case 'bad_whole':
    case 'malformed_json':
      exchange.answer(status, 'application/json', half)
      return true
    case 'error_event':
      exchange.answer(200, 'application/json', faultBody(fault))
      return true
    default:
      return false
  }
}
