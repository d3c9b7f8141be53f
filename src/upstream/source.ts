import type { UpstreamFailure } from './failure.ts'

/** Receives the bytes of one upstream answer. After `end` or `failed` nothing more is called. */
export interface ByteSink {
  data(chunk: Buffer): void
  end(): void
  failed(failure: UpstreamFailure): void
}

/** The body of one upstream answer: pushed, and paused when the reader cannot keep up. */
export interface ByteSource {
  /** Starts the flow, or moves it to another sink; nothing arrives before the first call. */
  flowTo(sink: ByteSink): void
  pause(): void
  resume(): void
  /** Stops the upstream. The sink hears nothing more. */
  cancel(): void
}

/** Timeouts of one endpoint, all in ms, all named. */
export interface UpstreamTimeouts {
  readonly connect_timeout_ms: number
  /** From the request sent to the response headers. */
  readonly headers_timeout_ms: number
  /** From the request sent to the first data event (or the whole JSON body) of an answer. */
  readonly first_event_timeout_ms: number
  /** Between two pieces of a body. */
  readonly silence_timeout_ms: number
}

/** One HTTP exchange with an upstream. */
export interface UpstreamRequest {
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  readonly timeouts: UpstreamTimeouts
  readonly transport: TransportOptions
  /** Cancels the exchange: client gone, or deadline. */
  readonly signal: AbortSignal
}

/** How to reach an origin. Equal options share a pool. */
export interface TransportOptions {
  readonly ca_file: string | null
  readonly cert_file: string | null
  readonly key_file: string | null
  /** Proxy URL for this endpoint; null means by HTTPS_PROXY / HTTP_PROXY and NO_PROXY as read by the configuration. */
  readonly proxy: string | null
}

export interface UpstreamResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: ByteSource
}

/** Sends requests to upstreams. The only home of the HTTP client. */
export interface Transport {
  /** @throws UpstreamFailure kinds dial_failed, connect_timeout, tls_failed, saturated, reset, headers_timeout, client_gone, deadline */
  send(request: UpstreamRequest): Promise<UpstreamResponse>
  close(): Promise<void>
}
