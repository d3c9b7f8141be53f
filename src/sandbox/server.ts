import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { systemClock, type Clock } from '../base/clock.ts'
import { estimateChatPrompt, estimateEmbeddingsInput, estimateRerankInput } from '../money/estimate.ts'
import { answerOf, parseChatRequest, RequestError, tokensOf, type ChatRequest } from './answer.ts'
import { DirectiveError, parseDirectives, resolveDirectives, type Directives, type PartialDirectives } from './directives.ts'
import { embeddingsBody, parseEmbeddingsRequest } from './embed.ts'
import { Exchange } from './exchange.ts'
import { errorJson, FaultBook, playBeforeHeaders, playInWhole, type FaultScope } from './faults.ts'
import { readForm, type Form } from './forms.ts'
import type { ReportedUsage, Stamp } from './layouts.ts'
import { nativeItems, nativeWhole } from './native.ts'
import { personaOf, type Persona } from './persona.ts'
import { parseRerankRequest, rerankBody } from './rerank.ts'
import { routeOf, type Route } from './route.ts'
import { rawItems, streamItems, wholeBody } from './shapes.ts'
import { pumpStream } from './stream.ts'
import { blankRow, Tally, type ServedPage, type ServedQuery } from './tally.ts'

export interface SandboxOptions {
  /** 0 for any free one. */
  readonly port: number
  /** Loopback by default. */
  readonly host?: string
  /** What every request asks for unless it asks otherwise. */
  readonly defaults?: PartialDirectives
  readonly clock?: Clock
}

/** A running sandbox. */
export interface Sandbox {
  /** Origin, without a path: `http://127.0.0.1:18080`. */
  readonly url: string
  readonly port: number
  /** Stops listening and cuts what is still open. */
  close(): Promise<void>
  /** Its own count, as `GET /sandbox/served`. */
  served(query?: ServedQuery): ServedPage
  /** Forgets the count and what `times` remembers, as `DELETE /sandbox/served`. */
  reset(): void
}

const MAX_BODY_BYTES = 64 * 1024 * 1024
const REQUEST_TIMEOUT_MS = 600_000
const KEEP_ALIVE_TIMEOUT_MS = 120_000
const MAX_CONNECTIONS = 20_000
const MODELS = ['sandbox-chat', 'sandbox-embedding']
const MODELS_CREATED_S = 1_795_392_000
const SSE = 'text/event-stream; charset=utf-8'

/**
 * Starts a provider that needs no key and speaks the OpenAI dialect over HTTP: chat completions, embeddings, models, with or
 * without `/v1` and below any path prefix. Directives (body member `sandbox`, header `x-sandbox`, `defaults`) make it
 * speak like one provider or another, slow down, or fail.
 * @throws DirectiveError when `defaults` are not directives; Error of `node:net` when the port cannot be had
 */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const defaults = parseDirectives(options.defaults ?? {})
  const host = options.host ?? '127.0.0.1'
  const desk = new Desk(defaults, options.clock ?? systemClock())
  const server = createServer((request, response) => void desk.serve(request, response))
  server.requestTimeout = REQUEST_TIMEOUT_MS
  server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS
  server.maxConnections = MAX_CONNECTIONS
  const port = await listen(server, options.port, host)
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    close: () => close(server),
    served: (query) => desk.tally.page(query),
    reset: () => desk.reset(),
  }
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const address = server.address()
  return address === null || typeof address === 'string' ? port : address.port
}

async function close(server: Server): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.close((error) => {
      if (error === undefined) resolve()
      else reject(error)
    })
    server.closeAllConnections()
  })
}

/** Takes requests in and has them answered. */
class Desk {
  readonly tally = new Tally()
  readonly #defaults: PartialDirectives
  readonly #clock: Clock
  readonly #faults = new FaultBook()

  constructor(defaults: PartialDirectives, clock: Clock) {
    this.#defaults = defaults
    this.#clock = clock
  }

  reset(): void {
    this.tally.reset()
    this.#faults.reset()
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? ''
    const url = request.url ?? '/'
    const query_at = url.indexOf('?')
    const path = query_at < 0 ? url : url.slice(0, query_at)
    const route = routeOf(path, headerOf(request, 'x-tc-action'))
    const counted = method === 'POST' && route !== null && route.endpoint !== 'models'
    const id = headerOf(request, 'x-request-id')
    const attempt = Number(headerOf(request, 'x-weir-attempt')) || 1
    const now_ms = this.#clock.now_ms()
    const row = counted ? this.tally.open(id, attempt, path, now_ms) : blankRow(0, id, attempt, path, now_ms)
    const exchange = new Exchange(request, response, row, this.#clock)
    try {
      if (route === null) this.#serveOwn(exchange, method, path, query_at < 0 ? '' : url.slice(query_at + 1))
      else if (counted || route.endpoint === 'models') await this.#serveRoute(exchange, method, route)
      else refuse(exchange, 405, `${path} does not accept ${method}.`)
    } catch (error) {
      fail(exchange, error)
    }
  }

  #serveOwn(exchange: Exchange, method: string, path: string, query: string): void {
    const what = `${method} ${path}`
    if (what === 'GET /healthz') return json(exchange, { status: 'ok' })
    if (what === 'GET /sandbox/served') return json(exchange, this.tally.page(servedQuery(new URLSearchParams(query))))
    if (what === 'DELETE /sandbox/served') {
      this.reset()
      return json(exchange, { reset: true })
    }
    refuse(exchange, 404, `Nothing is served at ${path}. Try /v1/chat/completions, /v1/embeddings, /v1/models or /sandbox/served.`)
  }

  async #serveRoute(exchange: Exchange, method: string, route: Route): Promise<void> {
    const { prefix, endpoint } = route
    const scope: FaultScope = { request_id: exchange.row.request_id, prefix, endpoint }
    if (endpoint === 'models') {
      if (method !== 'GET') return refuse(exchange, 405, `${exchange.row.path} does not accept ${method}.`)
      return await this.#models(exchange, scope)
    }
    const body = await readBody(exchange.request)
    if (exchange.gone) return
    if (body === null) return refuse(exchange, 413, `The body is larger than ${MAX_BODY_BYTES} bytes.`, ['connection', 'close'])
    const parsed = parseBody(body)
    if (endpoint === 'chat') await this.#chat(exchange, scope, route, parsed)
    else if (endpoint === 'rerank') await this.#rerank(exchange, scope, parsed)
    else await this.#embeddings(exchange, scope, parsed)
  }

  async #models(exchange: Exchange, scope: FaultScope): Promise<void> {
    const { directives, persona } = this.#asked(exchange.request, undefined, scope.prefix, null)
    const fault = this.#faults.due(directives.fail, scope)
    if (fault !== null && (await playBeforeHeaders(exchange, fault, persona))) return
    const data = MODELS.map((id) => ({ id, object: 'model', created: MODELS_CREATED_S, owned_by: 'sandbox' }))
    json(exchange, { object: 'list', data })
  }

  async #chat(exchange: Exchange, scope: FaultScope, { form, model }: Route, given: unknown): Promise<void> {
    const { directives, persona } = this.#asked(exchange.request, given, scope.prefix, form)
    const body = form === null ? given : readForm(form, given, model)
    const request = parseChatRequest(body)
    const { row } = exchange
    // DashScope asks for a stream by a header, and its answers grow unless they are asked not to.
    const stream = request.stream || headerOf(exchange.request, 'x-dashscope-sse') === 'enable'
    row.model = request.model
    row.stream = stream
    row.prompt_tokens = estimateChatPrompt(body as Parameters<typeof estimateChatPrompt>[0], 'sandbox')
    row.cached_tokens = Math.min(directives.cached_tokens, row.prompt_tokens)
    const fault = this.#faults.due(directives.fail, scope)
    row.directive = fault?.kind ?? (directives.raw === null ? 'answer' : 'raw')
    if (fault !== null && (await playBeforeHeaders(exchange, fault, persona))) return
    if (persona !== null && object(exchange, persona, body)) return
    const type = fault?.kind === 'wrong_content_type' ? fault.content_type : null
    if (directives.raw !== null) {
      exchange.head(directives.status, type ?? directives.raw_type)
      return await pumpStream(exchange, rawItems(directives.raw, directives.split), directives, fault)
    }
    const answer = this.#compose(exchange, request, directives)
    const [choice] = answer.choices
    const native =
      form === null || choice === undefined
        ? null
        : {
            form,
            answer: {
              choice,
              usage: answer.usage,
              stamp: answer.stamp,
              directives,
              incremental: memberOf(body, 'incremental_output') === true,
            },
          }
    if (stream) {
      exchange.head(directives.status, type ?? SSE, ['cache-control', 'no-cache'])
      const items =
        native === null
          ? streamItems(answer.choices, answer.usage, answer.stamp, directives, request.include_usage)
          : nativeItems(native.form, native.answer)
      return await pumpStream(exchange, items, directives, fault)
    }
    await exchange.wait(directives.first_token_delay_ms + directives.token_delay_ms * answer.tokens)
    const made =
      native === null ? wholeBody(answer.choices, answer.usage, answer.stamp, directives) : nativeWhole(native.form, native.answer)
    const whole = Buffer.from(made)
    if (fault !== null && (await playInWhole(exchange, fault, whole, directives.status))) return
    exchange.answerInFull(directives.status, type ?? 'application/json', whole, answer.tokens, answer.reasoning)
  }

  #compose(exchange: Exchange, request: ChatRequest, directives: Directives) {
    const choices = answerOf(request, directives)
    const tokens = choices.reduce((sum, choice) => sum + tokensOf(choice), 0)
    const reasoning = choices.reduce((sum, choice) => sum + choice.reasoning.length, 0)
    const { row } = exchange
    const usage: ReportedUsage = {
      prompt_tokens: row.prompt_tokens,
      cached_tokens: row.cached_tokens,
      completion_tokens: tokens,
      reasoning_tokens: reasoning,
      ...directives.report,
    }
    const stamp: Stamp = {
      id: `chatcmpl-sbx${String(row.index).padStart(9, '0')}`,
      model: request.model,
      created_s: Math.floor(row.started_at / 1_000),
    }
    return { choices, tokens, reasoning, usage, stamp }
  }

  async #embeddings(exchange: Exchange, scope: FaultScope, body: unknown): Promise<void> {
    const { directives, persona } = this.#asked(exchange.request, body, scope.prefix, null)
    const request = parseEmbeddingsRequest(body)
    if (directives.embeddings_batch !== null && request.inputs.length > directives.embeddings_batch) {
      throw new RequestError(`input must have at most ${directives.embeddings_batch} entries.`, 'input')
    }
    exchange.row.model = request.model
    exchange.row.prompt_tokens = estimateEmbeddingsInput(memberOf(body, 'input'), 'sandbox')
    await this.#answerOnce(exchange, scope, directives, persona, (tokens) => embeddingsBody(request, tokens))
  }

  async #rerank(exchange: Exchange, scope: FaultScope, body: unknown): Promise<void> {
    const { directives, persona } = this.#asked(exchange.request, body, scope.prefix, null)
    const request = parseRerankRequest(body)
    exchange.row.model = request.model
    exchange.row.prompt_tokens = estimateRerankInput(request.query, request.documents, 'sandbox')
    await this.#answerOnce(exchange, scope, directives, persona, (tokens) => rerankBody(request, `rerank-sbx${exchange.row.index}`, tokens))
  }

  /** An answer that is made of its input. */
  async #answerOnce(
    exchange: Exchange,
    scope: FaultScope,
    directives: Directives,
    persona: Persona | null,
    body: (tokens: number | null) => string,
  ): Promise<void> {
    const { row } = exchange
    const fault = this.#faults.due(directives.fail, scope)
    row.directive = fault?.kind ?? (directives.raw === null ? 'answer' : 'raw')
    if (fault !== null && (await playBeforeHeaders(exchange, fault, persona))) return
    const type = fault?.kind === 'wrong_content_type' ? fault.content_type : 'application/json'
    await exchange.wait(directives.first_token_delay_ms)
    const reported = directives.shape === 'absent' ? null : (directives.report?.prompt_tokens ?? row.prompt_tokens)
    const made = directives.raw === null ? Buffer.from(body(reported)) : Buffer.from(directives.raw, 'base64')
    if (fault !== null && (await playInWhole(exchange, fault, made, directives.status))) return
    exchange.answerInFull(directives.status, type, made, 0, 0)
  }

  /** What is asked for, and who is played. @throws DirectiveError */
  #asked(request: IncomingMessage, body: unknown, prefix: string, form: Form | null): { directives: Directives; persona: Persona | null } {
    const given = [this.#defaults]
    const header = headerOf(request, 'x-sandbox')
    if (header !== '') given.push(parseDirectives(parseHeader(header)))
    const member = memberOf(body, 'sandbox')
    if (member !== undefined) given.push(parseDirectives(member))
    const played = given.findLast(({ play }) => play !== undefined)?.play ?? null
    const persona = personaOf(prefix, played, form)
    // What the provider is like comes first: whatever is asked for expressly wins.
    return { directives: resolveDirectives(persona === null ? given : [persona.directives, ...given]), persona }
  }
}

/** Says no as the provider would, to what it does not take. */
function object(exchange: Exchange, persona: Persona, body: unknown): boolean {
  const objection = persona.objection(body as Readonly<Record<string, unknown>>)
  if (objection === null) return false
  exchange.row.directive = 'invalid'
  const { status, body: told } = persona.errors.invalid
  exchange.answer(
    status,
    'application/json',
    told.replace(/"(refused|A parameter is not valid\.|Invalid parameters)"/, JSON.stringify(objection)),
  )
  return true
}

const memberOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined

function headerOf(request: IncomingMessage, name: string): string {
  const value = request.headers[name]
  return typeof value === 'string' ? value : ''
}

function parseHeader(header: string): unknown {
  try {
    return JSON.parse(header)
  } catch (error) {
    throw new DirectiveError('x-sandbox: expected JSON', { cause: error })
  }
}

function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch (error) {
    throw new RequestError(`The body is not JSON: ${String(error)}`, null)
  }
}

/** The body, or null when it is too large. Resolves empty when the client leaves. */
async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) return null
  return await new Promise((resolve) => {
    const chunks: Buffer[] = []
    let size_bytes = 0
    request.on('data', (chunk: Buffer) => {
      size_bytes += chunk.length
      if (size_bytes <= MAX_BODY_BYTES) chunks.push(chunk)
      else {
        request.pause()
        resolve(null)
      }
    })
    request.once('end', () => {
      const [first] = chunks
      resolve(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks))
    })
    // A request that breaks off closes its response too: the exchange sees that the client is gone.
    request.once('error', () => resolve(Buffer.alloc(0)))
    request.once('close', () => resolve(Buffer.alloc(0)))
  })
}

function servedQuery(query: URLSearchParams): ServedQuery {
  const request_id = query.get('request_id')
  return {
    ...(request_id === null ? {} : { request_id }),
    since: wholeNumber(query, 'since', 0),
    ...(query.has('limit') ? { limit: wholeNumber(query, 'limit', 1) } : {}),
  }
}

function wholeNumber(query: URLSearchParams, name: string, least: number): number {
  const value = Number(query.get(name) ?? least)
  if (!Number.isSafeInteger(value) || value < least) throw new RequestError(`${name} must be a whole number from ${least} on.`, name)
  return value
}

function json(exchange: Exchange, value: unknown): void {
  exchange.answer(200, 'application/json', JSON.stringify(value))
}

function refuse(exchange: Exchange, status: number, message: string, headers: readonly string[] = []): void {
  exchange.row.directive = 'invalid'
  exchange.answer(status, 'application/json', errorJson(message, 'invalid_request_error', 'invalid_request'), headers)
}

/** Tells the client what is wrong: with its request, or with the sandbox itself. */
function fail(exchange: Exchange, error: unknown): void {
  if (exchange.gone) return
  if (exchange.response.headersSent) return exchange.cut()
  if (error instanceof DirectiveError || error instanceof RequestError) {
    const param = error instanceof RequestError ? error.param : 'sandbox'
    exchange.row.directive = 'invalid'
    return exchange.answer(400, 'application/json', errorJson(error.message, 'invalid_request_error', 'invalid_request', param))
  }
  exchange.answer(500, 'application/json', errorJson(`The sandbox failed: ${String(error)}`, 'server_error', 'internal_error'))
}
