import { Pool, ProxyAgent } from 'undici'
import type { Dispatcher } from 'undici'
import { UpstreamFailure } from './failure.ts'
import { proxyFor } from './proxy.ts'
import type { ProxySettings } from './proxy.ts'
import { Bag, type Bagged } from '../base/bag.ts'
import type { ByteSink, ByteSource, Transport, TransportOptions, UpstreamRequest, UpstreamResponse } from './source.ts'
import { readTlsFiles } from './tls-files.ts'
import type { TlsFiles } from './tls-files.ts'
import { transportFailure } from './transport-failure.ts'

/** Bytes of an answer kept for a reader that has not come yet; then the upstream is paused. */
const HELD_LIMIT_BYTES = 64 * 1024
/** Largest response headers; larger ones are `malformed`. */
const MAX_HEADER_BYTES = 32 * 1024
/** Shorter than the 5 s after which Node and uvicorn close an idle connection, so that we rarely write into a closing one. */
const KEEP_ALIVE_MS = 4_000
/** Longest idle life of a connection when the upstream's `Keep-Alive` header grants more. */
const KEEP_ALIVE_MAX_MS = 60_000
/** Most pools at a time. Above it the one idle for longest is closed. */
const MAX_LANES = 1_024
/** How often exchanges that are still dialling are looked at. */
const SWEEP_MS = 500

export interface PoolOptions {
  /** Most exchanges at a time per origin and set of transport options; one more fails as `saturated`. */
  readonly connections_per_origin: number
  readonly proxy: ProxySettings
}

/**
 * The HTTP/1.1 transport: one keep-alive pool per origin, transport options and connect timeout. Nothing is ever sent twice.
 *
 * Timeouts are those of undici: headers and silence have a resolution of about half a second either way, and the silence of an upstream
 * that is paused because the reader cannot keep up does not count. The connect timeout covers everything before the first byte of the
 * request: waiting for a connection, DNS, TCP, a proxy's CONNECT and TLS.
 *
 * `ca_file` replaces the system's roots for that endpoint. A file that cannot be read fails the exchange as `tls_failed`.
 */
export function createTransport(options: PoolOptions): Transport {
  return new PooledTransport(options)
}

/** One pool and what is going on in it. */
interface Lane {
  readonly transport: TransportOptions
  readonly connect_timeout_ms: number
  readonly dispatcher: Dispatcher
  open: number
  /** Rises with every use of any lane. */
  used: number
}

class PooledTransport implements Transport {
  readonly #options: PoolOptions
  readonly #lanes = new Map<string, Lane[]>()
  /** Exchanges of which no byte was written yet. */
  readonly #dialling = new Bag<Exchange>()
  #sweeper: NodeJS.Timeout | null = null
  #lane_count = 0
  #uses = 0
  #closed = false

  constructor(options: PoolOptions) {
    this.#options = options
  }

  send(request: UpstreamRequest): Promise<UpstreamResponse> {
    return new Promise((resolve, reject) => {
      if (request.signal.aborted) return reject(new UpstreamFailure(reasonOf(request.signal).kind, { unsent: true }))
      if (this.#closed) return reject(new UpstreamFailure('saturated'))
      const lane = this.#laneOf(request)
      if (lane.open >= this.#options.connections_per_origin) return reject(new UpstreamFailure('saturated'))
      const exchange = new Exchange(request, lane, this.#dialling, resolve, reject)
      this.#sweepLater()
      exchange.start(request)
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    const lanes = [...this.#lanes.values()].flat()
    this.#lanes.clear()
    await Promise.all(lanes.map((lane) => lane.dispatcher.destroy()))
    if (this.#sweeper !== null) clearInterval(this.#sweeper)
  }

  /** @throws UpstreamFailure tls_failed when a certificate file cannot be read, saturated when too many pools are in use */
  #laneOf(request: UpstreamRequest): Lane {
    const lanes = this.#lanes.get(request.origin)
    let lane = lanes?.find((candidate) => serves(candidate, request))
    if (lane === undefined) {
      this.#makeRoom()
      lane = openLane(request, this.#options)
      this.#lane_count += 1
      if (lanes === undefined) this.#lanes.set(request.origin, [lane])
      else lanes.push(lane)
    }
    lane.used = this.#uses += 1
    return lane
  }

  #makeRoom(): void {
    if (this.#lane_count < MAX_LANES) return
    const idle = [...this.#lanes]
      .flatMap(([origin, lanes]) => lanes.map((lane) => ({ origin, lane })))
      .filter(({ lane }) => lane.open === 0)
    const oldest = idle.toSorted((a, b) => a.lane.used - b.lane.used)[0]
    if (oldest === undefined) throw new UpstreamFailure('saturated')
    const rest = this.#lanes.get(oldest.origin)?.filter((lane) => lane !== oldest.lane) ?? []
    if (rest.length === 0) this.#lanes.delete(oldest.origin)
    else this.#lanes.set(oldest.origin, rest)
    this.#lane_count -= 1
    // It has nothing open, so destroying it can fail nobody, and nobody waits for it.
    void oldest.lane.dispatcher.destroy()
  }

  #sweepLater(): void {
    if (this.#sweeper !== null) return
    this.#sweeper = setInterval(() => {
      for (const exchange of this.#dialling.all()) exchange.waited()
      if (this.#dialling.size > 0 || this.#sweeper === null) return
      clearInterval(this.#sweeper)
      this.#sweeper = null
    }, SWEEP_MS).unref()
  }
}

function serves(lane: Lane, request: UpstreamRequest): boolean {
  if (lane.connect_timeout_ms !== request.timeouts.connect_timeout_ms) return false
  const [a, b] = [lane.transport, request.transport]
  if (a === b) return true
  return a.ca_file === b.ca_file && a.cert_file === b.cert_file && a.key_file === b.key_file && a.proxy === b.proxy
}

function openLane(request: UpstreamRequest, options: PoolOptions): Lane {
  const { origin, transport } = request
  const { connect_timeout_ms } = request.timeouts
  const tls = { ...readTlsFiles(transport), timeout: connect_timeout_ms }
  const proxy = transport.proxy ?? proxyFor(origin, options.proxy)
  const common = {
    connections: options.connections_per_origin,
    pipelining: 1,
    allowH2: false,
    maxHeaderSize: MAX_HEADER_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MAX_MS,
  }
  const dispatcher = proxy === null ? new Pool(origin, { ...common, connect: tls }) : proxied(proxy, common, tls, connect_timeout_ms)
  return { transport, connect_timeout_ms, dispatcher, open: 0, used: 0 }
}

function proxied(uri: string, common: Pool.Options, tls: TlsFiles, connect_timeout_ms: number): Dispatcher {
  return new ProxyAgent({
    ...common,
    uri,
    connectTimeout: connect_timeout_ms,
    requestTls: tls,
    // The answer to CONNECT has no other limit: undici would wait 300 s for a proxy that accepts and says nothing.
    clientFactory: (url, made) => new Pool(url, { ...made, headersTimeout: connect_timeout_ms }),
  })
}

function reasonOf(signal: AbortSignal): UpstreamFailure {
  const reason: unknown = signal.reason
  return reason instanceof UpstreamFailure ? reason : new UpstreamFailure('client_gone', { cause: reason })
}

const STOPPED = new Error('the exchange was stopped by its reader')

/** Above zero while the client's parser is on the stack: it must not be entered again, not even for another connection. */
let parsing = 0

/**
 * One request and its answer: undici's handler and the caller's byte source in one object, so that an exchange costs few allocations.
 * What arrives while nobody reads (before `flowTo`, or after `pause`) is held; undici may still deliver what it had read.
 */
class Exchange implements Dispatcher.DispatchHandler, ByteSource, Bagged {
  bag_index = -1
  readonly #signal: AbortSignal
  readonly #lane: Lane
  readonly #dialling: Bag<Exchange>
  readonly #resolve: (response: UpstreamResponse) => void
  readonly #reject: (failure: UpstreamFailure) => void
  #sweeps_left: number
  #controller: Dispatcher.DispatchController | null = null
  #answered = false
  #sink: ByteSink | null = null
  #paused = false
  #flushing = false
  #held: Buffer[] | null = null
  #held_bytes = 0
  /** No more will come from the wire. */
  #over = false
  /** How it ended, until the sink has been told. */
  #ending: UpstreamFailure | 'end' | null = null

  constructor(
    request: UpstreamRequest,
    lane: Lane,
    dialling: Bag<Exchange>,
    resolve: (response: UpstreamResponse) => void,
    reject: (failure: UpstreamFailure) => void,
  ) {
    this.#signal = request.signal
    this.#lane = lane
    this.#dialling = dialling
    this.#resolve = resolve
    this.#reject = reject
    // Counted in sweeps, not by a clock, so that a process that was stopped for a while does not fail everything at once.
    this.#sweeps_left = Math.ceil(request.timeouts.connect_timeout_ms / SWEEP_MS) + 2
  }

  /** @param request not kept: its body is large, and while an answer flows nobody needs it */
  start({ origin, path, headers, body, timeouts, signal }: UpstreamRequest): void {
    this.#lane.open += 1
    this.#dialling.add(this)
    signal.addEventListener('abort', this)
    const limits = { headersTimeout: timeouts.headers_timeout_ms, bodyTimeout: timeouts.silence_timeout_ms }
    try {
      this.#lane.dispatcher.dispatch({ origin, path, method: 'POST', headers, body, ...limits }, this)
    } catch (error) {
      this.#stop(transportFailure(error, 'dialling'))
    }
  }

  /** Called once per sweep while dialling: the bound of every wait that undici does not bound itself. */
  waited(): void {
    this.#sweeps_left -= 1
    if (this.#sweeps_left < 0) this.#stop(new UpstreamFailure('connect_timeout'))
  }

  /** The abort signal's listener. */
  handleEvent(): void {
    const reason = reasonOf(this.#signal)
    const unsent = this.#controller === null
    this.#stop(unsent ? new UpstreamFailure(reason.kind, { ...reason.details, unsent }) : reason)
  }

  // The handler of undici.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // A second start would send the request twice, which may cost twice.
    if (this.#over || this.#controller !== null) return controller.abort(STOPPED)
    this.#controller = controller
    this.#dialling.delete(this)
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: UpstreamResponse['headers']): void {
    if (this.#over || status < 200) return
    this.#answered = true
    this.#resolve({ status, headers, body: this })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return
    if (this.#sink === null || this.#paused || this.#held !== null) return this.#hold(controller, chunk)
    parsing += 1
    try {
      this.#sink.data(chunk)
    } finally {
      parsing -= 1
    }
  }

  onResponseEnd(): void {
    if (this.#over) return
    const sink = this.#sink
    this.#finish('end')
    parsing += 1
    try {
      this.#tell()
    } catch (error) {
      // Undici would report it to us as an error of an exchange that is over, where nobody hears it.
      sink?.failed(transportFailure(error, 'answered'))
    } finally {
      parsing -= 1
    }
  }

  onResponseError(_: unknown, error: Error): void {
    if (this.#over) return
    const progress = this.#answered ? 'answered' : this.#controller === null ? 'dialling' : 'sent'
    this.#finish(transportFailure(error, progress))
    this.#tell()
  }

  // The caller's byte source.

  flowTo(sink: ByteSink): void {
    this.#sink = sink
    this.#flush()
  }

  pause(): void {
    this.#paused = true
    if (!this.#over) this.#controller?.pause()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#flush()
  }

  cancel(): void {
    this.#sink = null
    this.#ending = null
    this.#dropHeld()
    if (this.#over) return
    this.#release()
    this.#controller?.abort(STOPPED)
  }

  /** Ends the exchange from our side and says so at once, whatever is held. */
  #stop(failure: UpstreamFailure): void {
    if (this.#over) return
    this.#dropHeld()
    this.#finish(failure)
    this.#controller?.abort(failure)
    this.#paused = false
    this.#tell()
  }

  #finish(ending: UpstreamFailure | 'end'): void {
    this.#release()
    if (this.#answered) this.#ending = ending
    else this.#reject(ending === 'end' ? new UpstreamFailure('malformed') : ending)
  }

  #release(): void {
    this.#over = true
    this.#lane.open -= 1
    this.#dialling.delete(this)
    this.#signal.removeEventListener('abort', this)
  }

  #hold(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#held ??= []
    this.#held.push(chunk)
    this.#held_bytes += chunk.length
    if (this.#held_bytes >= HELD_LIMIT_BYTES) controller.pause()
  }

  #dropHeld(): void {
    this.#held = null
    this.#held_bytes = 0
  }

  /** Gives the sink what was held, then the ending or the rest of the flow. The sink may pause, cancel or move on at any chunk. */
  #flush(): void {
    if (this.#flushing) return
    this.#flushing = true
    try {
      for (;;) {
        const chunk = this.#sink === null || this.#paused ? undefined : this.#held?.shift()
        if (chunk === undefined) break
        this.#sink?.data(chunk)
      }
    } finally {
      this.#flushing = false
    }
    if (this.#sink === null || this.#paused) return
    this.#dropHeld()
    this.#tell()
    this.#wake()
  }

  /** Tells the sink how it ended, once, when it may hear it. */
  #tell(): void {
    const ending = this.#ending
    const sink = this.#sink
    if (ending === null || sink === null || this.#paused || this.#held !== null) return
    this.#ending = null
    this.#sink = null
    if (ending === 'end') sink.end()
    else sink.failed(ending)
  }

  #wake(): void {
    if (this.#over || this.#controller === null || !this.#controller.paused) return
    if (parsing === 0) return this.#controller.resume()
    queueMicrotask(() => {
      if (!this.#over && !this.#paused) this.#controller?.resume()
    })
  }
}
