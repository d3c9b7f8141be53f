import type { AnswerContext, Dialect, Observation } from '../../src/upstream/dialects/dialect.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'

/** How a relay would see one stream: everything it may send before the terminator, and how it ended. */
export interface StreamOutcome {
  readonly out: string
  readonly data_events: number
  readonly failure: FailureKind | null
  readonly done: boolean
  readonly observed: Observation
}

export function answerContext(changes: Partial<AnswerContext> = {}): AnswerContext {
  return {
    model_asked: 'weir-chat',
    usage_asked: false,
    prompt_tokens: 12,
    tokenizer: 'sandbox',
    max_event_bytes: 1 << 20,
    created_s: 1_795_000_000,
    request_id: '0197-test',
    label: null,
    ...changes,
  }
}

/** Runs a stream through a dialect in these chunks: up to its end, its `done` or its failure; the closing chunk on success. */
export function translate(dialect: Dialect, context: AnswerContext, chunks: readonly Buffer[]): StreamOutcome {
  const translator = dialect.streamed(context)
  const out: Buffer[] = []
  let data_events = 0
  for (const chunk of [...chunks, null]) {
    const step = chunk === null ? translator.end() : translator.push(chunk)
    out.push(step.out)
    data_events += step.data_events
    if (step.failure === null && !step.done && chunk !== null) continue
    if (step.failure === null) out.push(translator.closing())
    return {
      out: Buffer.concat(out).toString(),
      data_events,
      failure: step.failure?.kind ?? null,
      done: step.done,
      observed: translator.observe(),
    }
  }
  throw new Error('unreachable: the last round always returns')
}

/** The bytes in two chunks for every position, then one byte at a time. */
export function* everySplit(bytes: Buffer): Generator<Buffer[]> {
  for (let at = 1; at < bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)]
  yield Array.from(bytes, (byte) => Buffer.of(byte))
}
