import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Locale } from '../base/errors.ts'
import type { TenantRouting } from '../routing/tenant.ts'
import type { ClosingEvent } from '../storage/ports.ts'
import type { KeyRecord, ProjectRecord, TenantRecord } from '../storage/records.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import { discardBody, readBody } from './body.ts'
import type { Reply } from './reply.ts'
import type { RequestFacts } from './request.ts'

/** Who is calling: proven by the key. */
export interface Caller {
  readonly key: KeyRecord
  readonly project: ProjectRecord
  readonly tenant: TenantRecord
  /** What the tenant says of its own traffic; null where it says nothing. */
  readonly routing: TenantRouting | null
}

/** Which operation was called. */
export type Protocol = 'chat_completions' | 'embeddings' | 'rerank'

/** What is remembered of a call for its one log line, its metrics, and the answer to "why was it refused". Never content. */
export interface CallNotes {
  tenant: string | null
  project: string | null
  key: string | null
  model_asked: string | null
  model: string | null
  stream: boolean
  event: ClosingEvent | null
  /** Ids that the request had before, for models that have failed. */
  earlier_ids: readonly string[]
  /** How long it has waited for room at an upstream. */
  queued_ms: number
}

/** One request from ingress to its end. */
export class Call {
  readonly protocol: Protocol
  readonly reply: Reply
  /** By the monotonic clock. */
  readonly started_ms: number
  readonly notes: CallNotes = {
    ...{ tenant: null, project: null, key: null, model_asked: null, model: null },
    ...{ stream: false, event: null, earlier_ids: [], queued_ms: 0 },
  }
  locale: Locale = 'en'
  #id: string
  readonly #incoming: IncomingMessage
  readonly #controller = new AbortController()

  constructor(id: string, protocol: Protocol, incoming: IncomingMessage, reply: Reply, started_ms: number) {
    this.#id = id
    this.protocol = protocol
    this.reply = reply
    this.started_ms = started_ms
    this.#incoming = incoming
  }

  /** UUIDv7, made at ingress; everything after is idempotent by it. */
  get id(): string {
    return this.#id
  }

  /** Goes on under the id of another hold, before anything was sent: the client is told this one alone. */
  renew(id: string): void {
    this.notes.earlier_ids = [...this.notes.earlier_ids, this.#id]
    this.#id = id
    this.reply.addHeaders({ 'x-request-id': id })
  }

  get headers(): IncomingHttpHeaders {
    return this.#incoming.headers
  }

  /** Aborts upstream work. Its reason is an {@link UpstreamFailure}. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Why upstream work was stopped, or null while it goes on. */
  get stopped_by(): UpstreamFailure['kind'] | null {
    const reason: unknown = this.signal.reason
    return reason instanceof UpstreamFailure ? reason.kind : null
  }

  /** Stops upstream work of this call; the first reason wins. */
  stop(kind: 'client_gone' | 'deadline' | 'shutting_down'): void {
    if (!this.signal.aborted) this.#controller.abort(new UpstreamFailure(kind))
  }

  /** @throws WeirError `request_too_large`, `request_timeout`, `client_closed_request` */
  readBody(max_bytes: number): Promise<Buffer> {
    return readBody(this.#incoming, max_bytes)
  }

  /** Reads and drops what is left of the body, within limits, so that a refusal can be read by a client still sending. */
  discardBody(): Promise<void> {
    return discardBody(this.#incoming)
  }

  /** False while the client is still sending its body. */
  get received(): boolean {
    return this.#incoming.complete
  }

  identify(caller: Caller): void {
    this.locale = caller.tenant.locale
    this.notes.tenant = caller.tenant.id
    this.notes.project = caller.project.id
    this.notes.key = caller.key.id
  }

  asksFor(facts: RequestFacts): void {
    this.notes.model_asked = facts.model_asked
    this.notes.stream = facts.stream
  }
}
