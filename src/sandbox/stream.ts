import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Directives, Fault } from './directives.ts'
import type { Exchange } from './exchange.ts'
import { playInStream } from './faults.ts'
import type { StreamItem } from './shapes.ts'

const CORK_CHARS = 16_384

/** What of a stream decides its pace. */
type Pacing = Pick<Directives, 'first_token_delay_ms' | 'token_delay_ms' | 'writes'>

/**
 * Writes a stream: at its pace, no faster than the reader, with a failure at its place. Ends the answer.
 * `each` gives every chunk a turn of the event loop, so a socket write of its own; `corked` joins what comes without a delay.
 */
export async function pumpStream(
  exchange: Exchange,
  items: Iterable<StreamItem>,
  directives: Directives,
  fault: Fault | null,
): Promise<void> {
  let due = fault?.kind === 'stall_before_first' ? { ...fault, at: 0 } : fault
  let written = 0
  const pen = new Pen(exchange, directives)
  for (const { item, last } of withLast(items)) {
    if (due !== null && (written >= due.at || item.kind === 'closing')) {
      await pen.flush()
      const ended = exchange.gone || (await playInStream(exchange, due, directives))
      if (ended) return
      due = null
    }
    const pause = pen.write(item, last)
    if (pause !== null) await pause
    if (exchange.gone) return
    written += item.weight
  }
  await pen.flush()
  if (exchange.gone || (due !== null && (await playInStream(exchange, due, directives)))) return
  exchange.end(true)
}

/** Each item with whether it is the last, reading one ahead. */
function* withLast(items: Iterable<StreamItem>): Generator<{ item: StreamItem; last: boolean }> {
  let held: StreamItem | null = null
  for (const item of items) {
    if (held !== null) yield { item: held, last: false }
    held = item
  }
  if (held !== null) yield { item: held, last: true }
}

/** Puts items on the connection at the pace that was asked for. */
class Pen {
  readonly #exchange: Exchange
  readonly #pacing: Pacing
  #joined = ''
  #tokens = 0
  #reasoning = 0
  #started = false

  constructor(exchange: Exchange, pacing: Pacing) {
    this.#exchange = exchange
    this.#pacing = pacing
  }

  /** Null when the next item may be written at once. */
  write(item: StreamItem, last: boolean): Promise<void> | null {
    const delay_ms = this.#delay(item)
    if (delay_ms > 0) return this.#writeLate(item, delay_ms)
    this.#started ||= item.kind !== 'comment'
    if (this.#pacing.writes === 'corked' && typeof item.bytes === 'string') return this.#join(item, item.bytes)
    if (!this.#exchange.write(item.bytes, item.tokens, item.reasoning)) return this.#exchange.drained()
    // The end of the body leaves with the last event: a client that stops reading at [DONE] must not look like one that left early.
    return last ? null : nextTurn()
  }

  async flush(): Promise<void> {
    if (this.#joined === '') return
    const [bytes, tokens, reasoning] = [this.#joined, this.#tokens, this.#reasoning]
    this.#joined = ''
    this.#tokens = 0
    this.#reasoning = 0
    if (!this.#exchange.write(bytes, tokens, reasoning)) await this.#exchange.drained()
  }

  #delay(item: StreamItem): number {
    if (item.kind === 'comment') return 0
    if (!this.#started) return this.#pacing.first_token_delay_ms
    return item.kind === 'token' ? this.#pacing.token_delay_ms : 0
  }

  async #writeLate(item: StreamItem, delay_ms: number): Promise<void> {
    await this.flush()
    if (!this.#started) this.#exchange.response.flushHeaders()
    this.#started = true
    await this.#exchange.wait(delay_ms)
    if (!this.#exchange.write(item.bytes, item.tokens, item.reasoning)) await this.#exchange.drained()
  }

  #join(item: StreamItem, bytes: string): Promise<void> | null {
    this.#joined += bytes
    this.#tokens += item.tokens
    this.#reasoning += item.reasoning
    return this.#joined.length >= CORK_CHARS ? this.flush() : null
  }
}
