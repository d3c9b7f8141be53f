import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client'
import type { ErrorCode } from '../base/errors.ts'
import type { ClosingEvent } from '../storage/ports.ts'
import type { CapacityLeft } from '../upstream/capacity.ts'
import type { FailureKind } from '../upstream/failure.ts'
import type { KeyPhase } from '../upstream/key-pool.ts'
import type { MetricsSnapshot } from './aggregate.ts'
import { SeriesCounter, SeriesHistogram, type SeriesConfig } from './series.ts'

/** One finished HTTP request of the data plane, refused ones included. */
export interface FinishedRequest {
  readonly model: string | null
  readonly endpoint: string | null
  readonly status: number
  /** Error code of the answer, or null when there was none. */
  readonly code: string | null
  readonly stream: boolean
  readonly duration_ms: number
}

/** What is asked at every scrape. A callback that throws leaves its gauge out of that scrape and counts in `weir_scrape_errors_total`. */
export interface MetricsSources {
  readonly openHolds?: () => Promise<number>
  readonly unposted?: () => number
  readonly journalOk?: () => boolean
  /** How often each kind of background work has failed. */
  readonly failures?: () => ReadonlyMap<string, number>
  /** Only where processes share limits and a ledger. */
  readonly cluster?: ClusterSources
  /** Requests that wait for room at an upstream. */
  readonly queuedRequests?: () => number
  /** Keys of pools, by id, and how this process sees them. */
  readonly providerKeys?: () => readonly { readonly key: string; readonly state: KeyPhase }[]
  /** What is left for this process of an endpoint's capacity; null where it has none. */
  readonly endpointRoom?: (endpoint: string) => CapacityLeft | null
  /** Phase of an endpoint's breaker. */
  readonly breakerState?: (endpoint: string) => 'closed' | 'open' | 'half_open'
}

/** What a process of a cluster knows of what it shares. */
export interface ClusterSources {
  /** Whether the shared limits answered when they were asked last. */
  readonly limitsUp: () => boolean
  readonly ledgerUp: () => boolean
  /** Buckets that admit nothing until they are filled from the ledger. */
  readonly closedBuckets: () => number
  /** Holds that this process has lent by itself while limits were away. */
  readonly lentHolds: () => number
  /** How long ago keys and tenants were confirmed; after 10 s they are not served with. Null where nothing is served. */
  readonly recordsAge_ms: (() => number) | null
  /** Usage events in limits that no ledger has acknowledged. Null where nothing is posted from there. */
  readonly streamEntries: (() => Promise<number>) | null
  /** Rows that limits have not been told of. Null where nobody tells them. */
  readonly outboxWaiting: (() => number) | null
  /** Nodes that are neither stopped nor heard of, and events that were only in their journals when they were. */
  readonly silentNodes: () => { readonly nodes: number; readonly unposted: number }
}

/** Everything that is measured. Narrow on purpose: callers name facts, never metrics or labels. */
export interface Metrics {
  request(finished: FinishedRequest): void
  refused(code: ErrorCode): void
  /** Tokens by class, usage source, time to first event, time per output token, overrun. */
  event(event: ClosingEvent): void
  /** One try at a target, up to its first data event or whole body. */
  upstream(endpoint: string, outcome: 'answered' | FailureKind, duration_ms: number): void
  /** What became of a request that no upstream had room for. `hopeless`: waiting could not help. */
  queued(outcome: QueueOutcome, waited_ms: number): void
  /** A failure after the first data event. */
  upstreamFailed(endpoint: string, kind: FailureKind): void
  /** A second or later try was due: it was granted, or the budget of retries was used up. */
  retry(granted: boolean): void
  /** Answers the function to call at the end; calling it twice counts once. */
  requestOpened(): () => void
  streamOpened(): () => void
  /** Models and endpoints of the configuration in force: the only values their labels take, anything else is `unknown`. */
  setKnown(models: readonly string[], endpoints: readonly string[]): void
  /** A configuration was taken into use, or was refused and the old one kept. `digest` is the one in force. */
  configuration(result: 'ok' | 'failed', digest: string): void
  /** Prometheus text format. */
  render(): Promise<string>
  /** The same for {@link renderTogether}. */
  snapshot(): Promise<MetricsSnapshot>
  readonly content_type: string
}

export type QueueOutcome = 'served' | 'timed_out' | 'left' | 'full' | 'hopeless'

const UNKNOWN = 'unknown'
/** Seconds. Answers of models take from tens of milliseconds to many minutes. */
const DURATION_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]
const FIRST_EVENT_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120]
const QUEUE_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const PER_TOKEN_BUCKETS = [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1]
const TOKEN_CLASSES = ['input', 'cached_input', 'cache_write', 'output', 'reasoning'] as const

/**
 * Makes the metrics of one process, in a registry of their own. Names begin with `weir_`, those of the process included:
 * `weir_process_*`, and `weir_nodejs_eventloop_lag_{p50,p99,max}_seconds` since the last scrape (their sampling interval of 10 ms included).
 */
export function createMetrics(sources: MetricsSources = {}): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, prefix: 'weir_' })
  const known = new KnownLabels()
  const hot = requestPath(registry)
  // Without a label there is a series from the start, so that its first increase is seen.
  hot.overrun.add(0, [])
  const openNow = { requests: 0, streams: 0 }
  registerGauges(registry, sources, known, openNow)
  const configured = configurationMetrics(registry)
  return {
    ...recorders(hot, known),
    requestOpened: () => counted(openNow, 'requests'),
    streamOpened: () => counted(openNow, 'streams'),
    setKnown(models, endpoints) {
      known.replace(models, endpoints)
      for (const metric of Object.values(hot)) metric.prune((labels) => known.admits(labels))
    },
    configuration: configured,
    render: () => registry.metrics(),
    snapshot: () => registry.getMetricsAsJSON(),
    content_type: registry.contentType,
  }
}

/** The values that the labels `model` and `endpoint` may take. */
class KnownLabels {
  #models: ReadonlySet<string> = new Set()
  #endpoints: ReadonlySet<string> = new Set()

  replace(models: readonly string[], endpoints: readonly string[]): void {
    this.#models = new Set(models)
    this.#endpoints = new Set(endpoints)
  }

  get endpoints(): Iterable<string> {
    return this.#endpoints
  }

  model(name: string | null): string {
    return name !== null && this.#models.has(name) ? name : UNKNOWN
  }

  endpoint(id: string | null): string {
    return id !== null && this.#endpoints.has(id) ? id : UNKNOWN
  }

  admits({ model, endpoint }: Readonly<Record<string, string>>): boolean {
    const model_ok = model === undefined || model === UNKNOWN || this.#models.has(model)
    return model_ok && (endpoint === undefined || endpoint === UNKNOWN || this.#endpoints.has(endpoint))
  }
}

type RequestPath = ReturnType<typeof requestPath>

function requestPath(registry: Registry) {
  const config = (name: string, help: string, ...labels: string[]): SeriesConfig => ({ name: `weir_${name}`, help, labels, registry })
  return {
    requests: new SeriesCounter(
      config('requests_total', 'Finished requests; code is ok or the error code', 'model', 'endpoint', 'status_class', 'code', 'stream'),
    ),
    duration: new SeriesHistogram(
      config('request_duration_seconds', 'Whole requests, from headers received to the end', 'model', 'stream'),
      DURATION_BUCKETS,
    ),
    refusals: new SeriesCounter(config('refusals_total', 'Requests answered with an error, by its code', 'code')),
    tokens: new SeriesCounter(config('tokens_total', 'Metered tokens; reasoning is part of output and reported apart', 'model', 'class')),
    events: new SeriesCounter(config('events_total', 'Closed usage events', 'usage_source', 'status')),
    overrun: new SeriesCounter(config('overrun_nano_total', 'Charged beyond the hold, in nano-yuan')),
    ttfe: new SeriesHistogram(
      config('time_to_first_event_seconds', 'From headers received to the first data event or whole body', 'model'),
      FIRST_EVENT_BUCKETS,
    ),
    per_token: new SeriesHistogram(
      config('time_per_output_token_seconds', 'Streams: time after the first event, per output token after the first', 'model'),
      PER_TOKEN_BUCKETS,
    ),
    upstream: new SeriesHistogram(
      config('upstream_duration_seconds', 'One try at an endpoint, up to its first data event or its failure', 'endpoint'),
      DURATION_BUCKETS,
    ),
    retries: new SeriesCounter(
      config('retries_total', 'Second and later tries of requests, and those that the budget of retries denied', 'outcome'),
    ),
    queued: new SeriesHistogram(
      config('queue_wait_seconds', 'Waits for room at an upstream, by what became of the request', 'outcome'),
      QUEUE_BUCKETS,
    ),
    upstream_errors: new SeriesCounter(
      config('upstream_errors_total', 'Failed tries and broken answers, by kind of failure', 'endpoint', 'kind'),
    ),
  }
}

type Recorders = Pick<Metrics, 'request' | 'refused' | 'event' | 'upstream' | 'queued' | 'upstreamFailed' | 'retry'>

function recorders(hot: RequestPath, known: KnownLabels): Recorders {
  return {
    request({ model, endpoint, status, code, stream, duration_ms }) {
      const name = known.model(model)
      const streamed = stream ? 'true' : 'false'
      hot.requests.add(1, [name, known.endpoint(endpoint), statusClass(status), code ?? 'ok', streamed])
      hot.duration.count(duration_ms / 1000, [name, streamed])
    },
    refused: (code) => hot.refusals.add(1, [code]),
    event: (event) => recordEvent(event, hot, known),
    upstream(endpoint, outcome, duration_ms) {
      const id = known.endpoint(endpoint)
      hot.upstream.count(duration_ms / 1000, [id])
      if (outcome !== 'answered') hot.upstream_errors.add(1, [id, outcome])
    },
    retry: (granted) => hot.retries.add(1, [granted ? 'granted' : 'denied']),
    queued: (outcome, waited_ms) => hot.queued.count(waited_ms / 1000, [outcome]),
    upstreamFailed: (endpoint, kind) => hot.upstream_errors.add(1, [known.endpoint(endpoint), kind]),
  }
}

function recordEvent(event: ClosingEvent, hot: RequestPath, known: KnownLabels): void {
  const model = known.model(event.model)
  const { tokens, ttfe_ms, duration_ms } = event
  for (const name of TOKEN_CLASSES) {
    if (tokens[name] > 0) hot.tokens.add(tokens[name], [model, name])
  }
  hot.events.add(1, [event.usage_source, event.status])
  // A metric, not the ledger: a double is exact up to 9 million CNY of overrun.
  if (event.overrun_nano > 0n) hot.overrun.add(Number(event.overrun_nano), [])
  if (ttfe_ms === null) return
  hot.ttfe.count(ttfe_ms / 1000, [model])
  if (event.stream && tokens.output > 1) hot.per_token.count(Math.max(0, duration_ms - ttfe_ms) / 1000 / (tokens.output - 1), [model])
}

function statusClass(status: number): string {
  return status >= 100 && status <= 599 ? `${Math.floor(status / 100)}xx` : UNKNOWN
}

type Aggregator = 'sum' | 'min' | 'max'

interface OpenNow {
  requests: number
  streams: number
}

function counted(open: OpenNow, what: keyof OpenNow): () => void {
  open[what]++
  let ended = false
  return () => {
    if (ended) return
    ended = true
    open[what]--
  }
}

type ReadGauge = (() => number | Promise<number>) | null | undefined
type AddGauge = (name: string, help: string, read: ReadGauge, aggregator?: Aggregator) => void

function gaugesOf(registry: Registry): AddGauge {
  const errors = new Counter({
    name: 'weir_scrape_errors_total',
    help: 'Gauges that could not be read at a scrape',
    labelNames: ['gauge'],
    registers: [registry],
  })
  return (name, help, read, aggregator = 'sum') => {
    if (read === undefined || read === null) return
    const metric = new Gauge({
      name: `weir_${name}`,
      help,
      registers: [registry],
      aggregator,
      async collect() {
        try {
          metric.set(await read())
        } catch {
          metric.remove()
          errors.inc({ gauge: name })
        }
      },
    })
  }
}

function registerGauges(registry: Registry, sources: MetricsSources, known: KnownLabels, open: OpenNow): void {
  const gauge = gaugesOf(registry)
  gauge('processes', 'Processes that these figures are of', () => 1)
  gauge('open_requests', 'Requests being served', () => open.requests)
  gauge('open_streams', 'Streamed answers being relayed', () => open.streams)
  // Where processes share holds, each of them knows of all.
  gauge('open_holds', 'Holds that are neither settled nor released', sources.openHolds, 'max')
  gauge('unposted_events', 'Events in the journal that the ledger does not have yet', sources.unposted)
  const { journalOk } = sources
  gauge('journal_healthy', '1 while the journal commits', journalOk === undefined ? undefined : () => Number(journalOk()), 'min')
  if (sources.cluster !== undefined) clusterGauges(gauge, sources.cluster)
  failureCounter(registry, sources)
  breakerGauge(registry, sources, known)
  gauge('queued_requests', 'Requests that wait for room at an upstream', sources.queuedRequests)
  roomGauge(registry, sources, known)
  keyGauge(registry, sources)
}

function clusterGauges(gauge: AddGauge, sources: ClusterSources): void {
  const { limitsUp, ledgerUp, closedBuckets, lentHolds, recordsAge_ms, streamEntries, outboxWaiting, silentNodes } = sources
  gauge('limits_up', '1 while the shared limits answer', () => Number(limitsUp()), 'min')
  gauge('ledger_up', '1 while the shared ledger answers', () => Number(ledgerUp()), 'min')
  gauge('closed_buckets', 'Buckets of tenants that admit nothing until they are filled from the ledger', closedBuckets, 'max')
  gauge('lent_holds', 'Open holds that were lent while limits were away', lentHolds)
  const age = recordsAge_ms === null ? null : () => recordsAge_ms() / 1000
  gauge('records_age_seconds', 'Since keys and tenants were confirmed; above 10 a gateway is not ready', age, 'max')
  gauge('usage_stream_entries', 'Usage events in limits that the ledger has not acknowledged', streamEntries, 'max')
  gauge('outbox_waiting', 'Changes of balances that limits were not told of, as far as the last look went', outboxWaiting, 'max')
  gauge('silent_nodes', 'Nodes that are neither stopped nor heard of for 10 s', () => silentNodes().nodes, 'max')
  gauge('silent_unposted_events', 'Events that only journals of silent nodes had', () => silentNodes().unposted, 'max')
}

function failureCounter(registry: Registry, { failures }: MetricsSources): void {
  if (failures === undefined) return
  const metric = new Counter({
    name: 'weir_background_failures_total',
    help: 'Runs of background work that failed and are tried again',
    labelNames: ['work'],
    registers: [registry],
    collect() {
      metric.reset()
      for (const [work, count] of failures()) metric.inc({ work }, count)
    },
  })
}

const PHASES = ['closed', 'open', 'half_open'] as const

function breakerGauge(registry: Registry, { breakerState }: MetricsSources, known: KnownLabels): void {
  if (breakerState === undefined) return
  const metric = new Gauge({
    name: 'weir_breaker_state',
    help: '1 for the phase that an endpoint is in; of several processes, how many see it in that phase',
    labelNames: ['endpoint', 'state'],
    registers: [registry],
    collect() {
      metric.reset()
      for (const endpoint of known.endpoints) {
        const current = breakerState(endpoint)
        for (const state of PHASES) metric.set({ endpoint, state }, Number(state === current))
      }
    },
  })
}

const ROOM = ['concurrency', 'requests_per_minute', 'tokens_per_minute'] as const

function roomGauge(registry: Registry, { endpointRoom }: MetricsSources, known: KnownLabels): void {
  if (endpointRoom === undefined) return
  const metric = new Gauge({
    name: 'weir_endpoint_room',
    help: 'What is left of an endpoint for new requests now, by the limit of its capacity; of several processes, their sum',
    labelNames: ['endpoint', 'limit'],
    registers: [registry],
    collect() {
      metric.reset()
      for (const endpoint of known.endpoints) {
        const left = endpointRoom(endpoint)
        for (const limit of ROOM) if (left !== null && left[limit] !== null) metric.set({ endpoint, limit }, left[limit])
      }
    },
  })
}

const KEY_PHASES: readonly KeyPhase[] = ['ready', 'cooling', 'probing']

function keyGauge(registry: Registry, { providerKeys }: MetricsSources): void {
  if (providerKeys === undefined) return
  const metric = new Gauge({
    name: 'weir_provider_key_state',
    help: "1 for the state of a provider's key, where there are several; of several processes, how many see it so",
    labelNames: ['key', 'state'],
    registers: [registry],
    collect() {
      metric.reset()
      for (const { key, state: current } of providerKeys()) {
        for (const state of KEY_PHASES) metric.set({ key, state }, Number(state === current))
      }
    },
  })
}

function configurationMetrics(registry: Registry): Metrics['configuration'] {
  const loads = new Counter({
    name: 'weir_config_loads_total',
    help: 'Configurations taken into use, or refused',
    labelNames: ['result'],
    registers: [registry],
  })
  const info = new Gauge({
    name: 'weir_config_info',
    help: '1 for the configuration in force',
    labelNames: ['digest'],
    aggregator: 'max',
    registers: [registry],
  })
  for (const result of ['ok', 'failed']) loads.inc({ result }, 0)
  return (result, digest) => {
    loads.inc({ result })
    info.reset()
    info.set({ digest }, 1)
  }
}
