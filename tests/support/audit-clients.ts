import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { CHAT_MODEL, EMBEDDING_MODEL } from './fleet.ts'
import type { Random } from './random.ts'

/** What a client counts as its bill: the usage member of an answer. */
export interface SeenUsage {
  readonly prompt: number
  readonly cached: number
  readonly completion: number
}

/**
 * What one client saw of one request. `completed`: `[DONE]`, or a whole JSON answer. `partial`: a 200 that did not get there.
 * `refused`: an error with a status. `nothing`: the connection broke before an answer.
 */
export interface Sighting {
  /** The client's own number, sent as the tag `n`: a client that never got `x-request-id` is found by it. */
  readonly n: number
  readonly id: string | null
  readonly outcome: 'completed' | 'partial' | 'refused' | 'nothing'
  /** Code of the error that was told, by status or inside the stream. */
  readonly code: string | null
  readonly usage: SeenUsage | null
  /** Data events that arrived, the terminator and errors not among them. */
  readonly events: number
  /** Those of them with text or thinking; the sandbox puts one token into each. */
  readonly pieces: number
  /** The client left by itself. */
  readonly left: boolean
}

/** One request that a client makes. */
export interface Plan {
  readonly path: string
  readonly body: Readonly<Record<string, unknown>>
  readonly stream: boolean
  /** Leave after so many pieces (0: once the headers came), or null to stay. */
  readonly leave_after: number | null
}

const REQUEST_TIMEOUT_MS = 60_000
const FAULTS: readonly Readonly<Record<string, unknown>>[] = [
  { kind: 'cut_middle', at: 3 },
  { kind: 'cut_middle', at: 0 },
  { kind: 'cut_before_headers' },
  { kind: 'error_event', at: 4 },
  { kind: 'error_event', at: 5, done: true },
  { kind: 'end_middle', at: 6 },
  { kind: 'stall_middle', at: 2, stall_ms: 150 },
  { kind: 'stall_middle', at: 5, stall_ms: 30_000 },
  { kind: 'rate' },
  { kind: 'rate', times: 1 },
  { kind: 'refuse', status: 500, only_prefix: 'first' },
  { kind: 'cut_before_headers', times: 1 },
  { kind: 'error_in_200' },
  { kind: 'error_in_200', times: 1 },
  { kind: 'malformed_json', at: 3 },
]

/** A mix of everything that clients and upstreams do: paced and unpaced streams, whole answers, embeddings, leaving, faults. */
export function anyPlan(random: Random): Plan {
  if (random.next() < 0.1) return { ...EMBEDDINGS, body: { model: EMBEDDING_MODEL, input: words(random) } }
  const stream = random.next() < 0.7
  const tokens = random.whole(1, random.pick([8, 60, 150, 400]))
  const paced = random.next() < 0.5
  const directives = {
    tokens,
    reasoning_tokens: random.next() < 0.3 ? random.whole(1, 10) : 0,
    cached_tokens: random.next() < 0.3 ? random.whole(1, 6) : 0,
    ...(paced ? { token_delay_ms: random.whole(1, 8) } : {}),
    ...(random.next() < 0.2 ? { shape: random.pick(['finish_chunk', 'choice', 'continuous']) } : {}),
    ...(random.next() < 0.25 ? { fail: random.pick(FAULTS) } : {}),
  }
  const usage = random.next() < 0.7 ? { stream_options: { include_usage: true } } : {}
  return chatPlan({ stream, directives, prompt: words(random), more: stream ? usage : {}, leave_after: leaves(random) })
}

const leaves = (random: Random): number | null => (random.next() < 0.1 ? random.whole(0, 12) : null)

const EMBEDDINGS = { path: '/v1/embeddings', stream: false, leave_after: null } as const

export interface ChatPlan {
  readonly stream: boolean
  readonly directives: Readonly<Record<string, unknown>>
  readonly prompt?: string
  readonly more?: Readonly<Record<string, unknown>>
  readonly leave_after?: number | null
}

/** A chat request; `directives` are for the sandbox. */
export function chatPlan({ stream, directives, prompt = 'How is the river today?', more = {}, leave_after = null }: ChatPlan): Plan {
  const messages = [{ role: 'user', content: prompt }]
  const body = { model: CHAT_MODEL, messages, max_tokens: 400, ...(stream ? { stream } : {}), ...more, sandbox: directives }
  return { path: '/v1/chat/completions', stream, body, leave_after }
}

function words(random: Random): string {
  return Array.from({ length: random.whole(1, 12) }, () => random.pick(['river', 'weir', '都江堰', 'flow', 'gate', '水', 'level'])).join(
    ' ',
  )
}

export interface Target {
  readonly url: string
  readonly key: string
}

/** Clients that send one request after another until told to stop, and write down what they saw. */
export class Crowd {
  readonly sightings: Sighting[] = []
  readonly #random: Random
  #next = 1

  constructor(random: Random) {
    this.#random = random
  }

  /** Runs `clients` at once until `over` aborts; resolves when the last answer has come to its end, whichever that is. */
  async run(target: Target, clients: number, over: AbortSignal, plan: (random: Random) => Plan = anyPlan): Promise<void> {
    const agent = new Agent({ keepAlive: true })
    const one = async (): Promise<void> => {
      while (!over.aborted) {
        const seen = await this.send(target, plan(this.#random), agent)
        // A gateway that is away refuses at once, and so does an empty wallet; trying again without a pause would only heat the machine.
        if (seen.outcome === 'nothing' || seen.code === 'insufficient_balance') await sleep(20)
      }
    }
    try {
      await Promise.all(Array.from({ length: clients }, one))
    } finally {
      agent.destroy()
    }
  }

  /** Sends one request and waits for its end. `begun` is called when the first piece of the answer arrives. */
  async send(target: Target, plan: Plan, agent?: Agent, begun: () => void = () => undefined): Promise<Sighting> {
    const n = this.#next
    this.#next += 1
    const seen = await exchange(target, plan, n, agent, begun)
    this.sightings.push(seen)
    return seen
  }
}

function exchange(target: Target, plan: Plan, n: number, agent: Agent | undefined, begun: () => void): Promise<Sighting> {
  const body = JSON.stringify(plan.body)
  const headers = {
    authorization: `Bearer ${target.key}`,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'x-weir-tags': `n=${n}`,
  }
  return new Promise((resolve) => {
    const options = { method: 'POST', headers, timeout: REQUEST_TIMEOUT_MS, ...(agent === undefined ? {} : { agent }) }
    const sent: ClientRequest = request(`${target.url}${plan.path}`, options)
    const reader = new Reader(n, plan, () => sent.destroy(), begun)
    sent.on('response', (response) => reader.read(response, resolve))
    sent.on('timeout', () => sent.destroy(new Error('the client gave up waiting')))
    // Before a response; afterwards the response's own end has resolved.
    sent.on('error', () => resolve(reader.sighting()))
    sent.end(body)
  })
}

/** Reads one answer as a careful client does. */
class Reader {
  readonly #n: number
  readonly #plan: Plan
  readonly #leave: () => void
  readonly #begun: () => void
  #response: IncomingMessage | null = null
  #text = ''
  #events_at = 0
  #events = 0
  #pieces = 0
  #usage: SeenUsage | null = null
  #code: string | null = null
  #done = false
  #after_done = false
  #left = false

  constructor(n: number, plan: Plan, leave: () => void, begun: () => void) {
    this.#n = n
    this.#plan = plan
    this.#leave = leave
    this.#begun = begun
  }

  read(response: IncomingMessage, ended: (sighting: Sighting) => void): void {
    this.#response = response
    response.setEncoding('utf8')
    response.on('data', (text: string) => this.#take(text))
    // An answer that breaks off emits an error and then 'close', like every other.
    response.on('error', () => undefined)
    response.on('close', () => ended(this.sighting()))
    this.#leaveIfPlanned()
  }

  sighting(): Sighting {
    const response = this.#response
    const id = response?.headers['x-request-id']
    return {
      n: this.#n,
      id: typeof id === 'string' ? id : null,
      outcome: this.#outcome(),
      code: this.#code,
      usage: this.#usage,
      events: this.#events,
      pieces: this.#pieces,
      left: this.#left,
    }
  }

  #outcome(): Sighting['outcome'] {
    const response = this.#response
    if (response === null) return 'nothing'
    if (response.statusCode !== 200) {
      if (response.complete && !this.#left) this.#code = codeOf(parsed(this.#text))
      return 'refused'
    }
    if (this.#left) return 'partial'
    if (this.#isStream) return this.#done && !this.#after_done ? 'completed' : 'partial'
    if (!response.complete) return this.#text === '' ? 'nothing' : 'partial'
    this.#code = codeOf(parsed(this.#text))
    this.#usage = usageOf(parsed(this.#text))
    return 'completed'
  }

  get #isStream(): boolean {
    return String(this.#response?.headers['content-type']).startsWith('text/event-stream')
  }

  #take(text: string): void {
    this.#text += text
    if (!this.#isStream) return
    for (;;) {
      const end = this.#text.indexOf('\n\n', this.#events_at)
      if (end === -1) return
      const event = this.#text.slice(this.#events_at, end)
      this.#events_at = end + 2
      if (event.startsWith('data: ')) this.#event(event.slice('data: '.length))
      this.#leaveIfPlanned()
    }
  }

  #event(data: string): void {
    this.#after_done = this.#done
    if (data === '[DONE]') {
      this.#done = true
      return
    }
    const value = parsed(data)
    const code = codeOf(value)
    if (code === null) this.#events += 1
    this.#code ??= code
    this.#usage = usageOf(value) ?? this.#usage
    if (!hasText(value)) return
    this.#pieces += 1
    if (this.#pieces === 1) this.#begun()
  }

  #leaveIfPlanned(): void {
    const { leave_after } = this.#plan
    if (leave_after === null || this.#left || this.#done || this.#pieces < leave_after) return
    this.#left = true
    this.#leave()
  }
}

type Members = Readonly<Record<string, unknown>>

/** What is not JSON must not pass for an answer: it becomes an error of its own, which no gateway tells. */
function parsed(text: string): Members {
  try {
    return membersOf(JSON.parse(text))
  } catch (error) {
    return { error: { code: `unreadable: ${String(error)}` } }
  }
}

function membersOf(value: unknown): Members {
  return typeof value === 'object' && value !== null ? (value as Members) : {}
}

function codeOf(value: Members): string | null {
  const code = membersOf(value['error'])['code']
  return typeof code === 'string' ? code : null
}

function usageOf(value: Members): SeenUsage | null {
  if (typeof value['usage'] !== 'object' || value['usage'] === null) return null
  const usage = membersOf(value['usage'])
  const cached = membersOf(usage['prompt_tokens_details'])['cached_tokens'] ?? usage['cached_tokens']
  return { prompt: Number(usage['prompt_tokens']), cached: Number(cached ?? 0), completion: Number(usage['completion_tokens'] ?? 0) }
}

function hasText(value: Members): boolean {
  const choices = Array.isArray(value['choices']) ? (value['choices'] as unknown[]) : []
  return choices.some((choice) => {
    const delta = membersOf(membersOf(choice)['delta'])
    return ['content', 'reasoning_content', 'reasoning'].some((name) => typeof delta[name] === 'string' && delta[name] !== '')
  })
}
