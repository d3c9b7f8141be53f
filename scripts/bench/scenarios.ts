/** What is measured, and how: rounds in turn, so that whatever disturbs the machine disturbs both. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { LoadOrder } from './client.ts'
import { chatBody } from './http.ts'
import { cpuMicroseconds, residentBytes } from './procfs.ts'
import type { Client, Subject } from './subjects.ts'

/** Posting to the ledger waits for a quiet 200 ms: it belongs to the requests before it. */
const SETTLE_MS = 500
const WARM_UP_MS = 1500

/** One way of loading a proxy. */
export interface Scenario {
  readonly title: string
  readonly answer: 'whole' | 'burst' | 'paced'
  readonly stream: boolean
  readonly connections: number
  readonly budget: number
  readonly rounds: number
  readonly duration_ms: number
  readonly warm_up_ms: number
}

/** CPU per request of one subject: one figure per round, in microseconds. */
export interface Measured {
  readonly subject: string
  readonly per_request_us: readonly number[]
  readonly answers: number
  /** Answers per second of load, over all rounds. */
  readonly per_second: number
}

/** What a subject may be asked. */
export interface Asking {
  readonly keys: readonly string[]
  readonly models: readonly string[]
}

/** Runs a scenario: warm-up, then every subject in turn, round after round. `asking` gives each subject its keys and models. */
export async function measure(
  scenario: Scenario,
  subjects: readonly Subject[],
  client: Client,
  asking: (subject: Subject) => Asking,
): Promise<readonly Measured[]> {
  const orders = new Map(subjects.map((subject) => [subject, orderFor(scenario, subject, asking(subject))]))
  const rows = subjects.map((subject) => ({ subject: subject.name, per_request_us: [] as number[], answers: 0, per_second: 0 }))
  for (const order of orders.values()) await client.run({ ...order, duration_ms: scenario.warm_up_ms })
  for (let round = 0; round < scenario.rounds; round++) {
    for (const [index, subject] of subjects.entries()) {
      const [order, row] = [orders.get(subject), rows[index]]
      if (order === undefined || row === undefined) continue
      await sleep(SETTLE_MS)
      const before = cpuMicroseconds(subject.pids)
      const { answers } = await client.run(order)
      await sleep(SETTLE_MS)
      row.per_request_us.push((cpuMicroseconds(subject.pids) - before) / answers)
      row.answers += answers
      row.per_second = (row.answers * 1000) / ((round + 1) * scenario.duration_ms)
    }
  }
  return rows
}

function orderFor(scenario: Scenario, subject: Subject, { keys, models }: Asking): LoadOrder {
  const { connections, duration_ms } = scenario
  const bodies = models.map((model) => chatBody(model, scenario.stream))
  return { port: subject.port, path: subject.pathOf(scenario.answer), keys, bodies, connections, duration_ms }
}

/** Resident memory per open stream that has had one event and is silent, in bytes. */
export async function memoryPerStream(subject: Subject, client: Client, key: string, streams: number): Promise<number> {
  const order = { port: subject.port, path: subject.pathOf('idle'), keys: [key], bodies: [chatBody('bench-idle', true)] }
  const whole = { ...order, path: subject.pathOf('whole'), bodies: [chatBody('bench-whole', false)] }
  await client.run({ ...whole, connections: 32, duration_ms: WARM_UP_MS })
  await sleep(2 * SETTLE_MS)
  const before = residentBytes(subject.pids)
  await client.run({ ...order, connections: streams, duration_ms: 0 })
  await sleep(4 * SETTLE_MS)
  const after = residentBytes(subject.pids)
  // The next order closes the streams.
  await client.run({ ...whole, connections: 1, duration_ms: 1 })
  return (after - before) / streams
}
