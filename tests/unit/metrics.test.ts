import { expect, test } from 'vitest'
import { type MetricsSnapshot, renderTogether } from '../../src/observe/aggregate.ts'
import { createMetrics, type FinishedRequest } from '../../src/observe/metrics.ts'
import { MAX_SERIES, SeriesCounter } from '../../src/observe/series.ts'
import { Registry } from 'prom-client'
import { closingEvent } from '../support/storage.ts'

const OK: FinishedRequest = { model: 'm', endpoint: 'm@x', status: 200, code: null, stream: true, duration_ms: 300 }

async function samples(metrics: { render(): Promise<string> }, name: RegExp): Promise<string[]> {
  return (await metrics.render()).split('\n').filter((line) => !line.startsWith('#') && name.test(line))
}

test('counts a request, its tokens and its times under the names that boards read', async () => {
  const metrics = createMetrics()
  metrics.setKnown(['m'], ['m@x'])
  metrics.request(OK)
  metrics.refused('rate_limit_exceeded')
  metrics.upstream('m@x', 'answered', 250)
  metrics.upstream('m@x', 'overload', 40)
  metrics.upstreamFailed('m@x', 'truncated')
  metrics.event(closingEvent('e', { model: 'm', ttfe_ms: 100, duration_ms: 590, overrun_nano: 7n }))
  const text = await metrics.render()
  for (const line of [
    'weir_requests_total{model="m",endpoint="m@x",status_class="2xx",code="ok",stream="true"} 1',
    'weir_request_duration_seconds_bucket{le="0.25",model="m",stream="true"} 0',
    'weir_request_duration_seconds_bucket{le="0.5",model="m",stream="true"} 1',
    'weir_request_duration_seconds_bucket{le="+Inf",model="m",stream="true"} 1',
    'weir_request_duration_seconds_count{model="m",stream="true"} 1',
    'weir_refusals_total{code="rate_limit_exceeded"} 1',
    'weir_upstream_duration_seconds_count{endpoint="m@x"} 2',
    'weir_upstream_errors_total{endpoint="m@x",kind="overload"} 1',
    'weir_upstream_errors_total{endpoint="m@x",kind="truncated"} 1',
    'weir_tokens_total{model="m",class="input"} 100',
    'weir_tokens_total{model="m",class="cached_input"} 20',
    'weir_tokens_total{model="m",class="reasoning"} 10',
    'weir_events_total{usage_source="reported",status="completed"} 1',
    'weir_overrun_nano_total 7',
    'weir_time_to_first_event_seconds_sum{model="m"} 0.1',
    'weir_time_per_output_token_seconds_sum{model="m"} 0.01',
  ]) {
    expect(text.split('\n')).toContain(line)
  }
})

test('several processes are one text: counts and times are added up, and each gauge is joined by its own rule', async () => {
  const processes = [2, 3].map((holds) => createMetrics({ openHolds: async () => holds, unposted: () => holds }))
  for (const metrics of processes) {
    metrics.setKnown(['m'], ['m@x'])
    metrics.request(OK)
    metrics.event(closingEvent('e', { model: 'm', ttfe_ms: 100, duration_ms: 590 }))
  }
  // As it travels between processes.
  const snapshots = JSON.parse(JSON.stringify(await Promise.all(processes.map((metrics) => metrics.snapshot())))) as MetricsSnapshot[]
  const lines = (await renderTogether(snapshots)).split('\n')
  for (const line of [
    'weir_processes 2',
    'weir_requests_total{model="m",endpoint="m@x",status_class="2xx",code="ok",stream="true"} 2',
    'weir_request_duration_seconds_bucket{le="0.25",model="m",stream="true"} 0',
    'weir_request_duration_seconds_bucket{le="0.5",model="m",stream="true"} 2',
    'weir_request_duration_seconds_count{model="m",stream="true"} 2',
    'weir_time_to_first_event_seconds_sum{model="m"} 0.2',
    'weir_tokens_total{model="m",class="input"} 200',
    'weir_open_holds 3',
    'weir_unposted_events 5',
  ]) {
    expect(lines).toContain(line)
  }
})

test('ten thousand mistyped model names add no series', async () => {
  const metrics = createMetrics()
  metrics.setKnown(['m'], ['m@x'])
  metrics.request({ ...OK, model: 'mistyped', endpoint: null, status: 404, code: 'model_not_found' })
  const before = (await samples(metrics, /^weir_/)).length
  for (let index = 0; index < 10_000; index++) {
    metrics.request({ ...OK, model: `mistyped-${index}`, endpoint: `nowhere-${index}`, status: 404, code: 'model_not_found' })
    metrics.upstream(`nowhere-${index}`, 'answered', 1)
    metrics.event(closingEvent(`e${index}`, { model: `mistyped-${index}` }))
  }
  expect(await samples(metrics, /mistyped|nowhere/)).toEqual([])
  expect(await samples(metrics, /^weir_requests_total/)).toEqual([
    'weir_requests_total{model="unknown",endpoint="unknown",status_class="4xx",code="model_not_found",stream="true"} 10001',
  ])
  // Only the histograms and counters that had not been used before are new, once each for `unknown`.
  expect((await samples(metrics, /^weir_/)).length - before).toBeLessThan(100)
})

test('series of a model that left the catalogue go with it', async () => {
  const metrics = createMetrics()
  metrics.setKnown(['m', 'n'], ['m@x'])
  metrics.request(OK)
  metrics.request({ ...OK, model: 'n' })
  metrics.setKnown(['n'], ['m@x'])
  expect(await samples(metrics, /^weir_requests_total/)).toHaveLength(1)
  expect(await samples(metrics, /model="m"/)).toEqual([])
})

test('a metric stops growing at its written limit and goes on counting', async () => {
  const registry = new Registry()
  const counter = new SeriesCounter({ name: 'many', help: 'h', labels: ['id'], registry })
  for (let index = 0; index < MAX_SERIES + 50; index++) counter.add(1, [`id-${index}`])
  const lines = (await registry.metrics()).split('\n').filter((line) => line.startsWith('many{'))
  expect(lines).toHaveLength(MAX_SERIES + 1)
  expect(lines).toContain('many{id="other"} 50')
})

test('open requests and streams go up and down, and an end that is told twice counts once', async () => {
  const metrics = createMetrics()
  const leave = metrics.requestOpened()
  const stop = metrics.streamOpened()
  metrics.streamOpened()
  expect(await samples(metrics, /^weir_open_(requests|streams) /)).toEqual(['weir_open_requests 1', 'weir_open_streams 2'])
  leave()
  leave()
  stop()
  expect(await samples(metrics, /^weir_open_(requests|streams) /)).toEqual(['weir_open_requests 0', 'weir_open_streams 1'])
})

test('gauges are asked at the scrape; one that fails is left out, counted, and does not spoil the rest', async () => {
  let fails = true
  const metrics = createMetrics({
    openHolds: () => (fails ? Promise.reject(new Error('away')) : Promise.resolve(3)),
    unposted: () => 5,
    journalOk: () => false,
    breakerState: (endpoint) => (endpoint === 'm@x' ? 'open' : 'closed'),
  })
  metrics.setKnown([], ['m@x', 'm@y'])
  expect(await samples(metrics, /^weir_(open_holds|unposted_events|journal_healthy) /)).toEqual([
    'weir_unposted_events 5',
    'weir_journal_healthy 0',
  ])
  fails = false
  expect(await samples(metrics, /^weir_(open_holds |scrape_errors)/)).toEqual([
    'weir_scrape_errors_total{gauge="open_holds"} 1',
    'weir_open_holds 3',
  ])
  expect(await samples(metrics, /^weir_breaker_state.* 1$/)).toEqual([
    'weir_breaker_state{endpoint="m@x",state="open"} 1',
    'weir_breaker_state{endpoint="m@y",state="closed"} 1',
  ])
})

test('names the configuration in force', async () => {
  const metrics = createMetrics()
  metrics.configuration('ok', 'aaa')
  metrics.configuration('failed', 'aaa')
  metrics.configuration('ok', 'bbb')
  expect(await samples(metrics, /^weir_config/)).toEqual([
    'weir_config_loads_total{result="ok"} 2',
    'weir_config_loads_total{result="failed"} 1',
    'weir_config_info{digest="bbb"} 1',
  ])
})

test('two processes in one share nothing, and every name carries the prefix', async () => {
  const one = createMetrics()
  one.setKnown(['m'], [])
  one.request(OK)
  const other = createMetrics()
  expect(await samples(other, /^weir_requests_total/)).toEqual([])
  expect((await other.render()).split('\n').filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('weir_'))).toEqual([])
  expect(await samples(other, /^weir_nodejs_eventloop_lag_p99_seconds /)).toHaveLength(1)
})
