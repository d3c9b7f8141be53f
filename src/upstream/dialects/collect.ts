import { UpstreamFailure } from '../failure.ts'
import type { AnswerContext, StreamTranslator, TranslatedAnswer } from './dialect.ts'
import { parseJson } from './frames.ts'
import { isFields } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>
type Made = Record<string, unknown>

/**
 * One JSON answer out of a stream, for a client that did not ask for one: of a model that only streams, or a server that does as it
 * likes.
 *
 * @param translator fresh, and asked for usage
 * @throws UpstreamFailure as the stream fails, `truncated` if it does not finish
 */
export function collectAnswer(body: Buffer, translator: StreamTranslator, context: AnswerContext): TranslatedAnswer {
  const pushed = translator.push(body)
  const ended = pushed.failure === null && !pushed.done ? translator.end() : null
  const failure = pushed.failure ?? ended?.failure ?? null
  if (failure !== null) throw failure
  const reported = translator.observe().reported
  const events = Buffer.concat([pushed.out, ended?.out ?? Buffer.alloc(0), translator.closing()])
  const answer = joinChunks(events.toString('utf8'), context.model_asked)
  if (answer === null) throw new UpstreamFailure('malformed')
  const observation = translator.observe()
  return {
    out: Buffer.from(JSON.stringify(answer)),
    observation: { ...observation, reported, repairs: [...observation.repairs, 'stream_joined'] },
  }
}

/** Translated events are one line of data each, unless the upstream spread them: then their lines belong together. */
function joinChunks(events: string, model: string): Fields | null {
  const answer: Made = { object: 'chat.completion', model }
  const choices = new Map<number, Made>()
  for (const event of events.split(/\r\n\r\n|\n\n|\r\r/)) {
    const lines = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith('data:'))
    const chunk = parseJson(Buffer.from(lines.map((line) => line.slice(5)).join('\n')))
    if (!isFields(chunk)) continue
    for (const [name, value] of Object.entries(chunk)) {
      if (name !== 'choices' && name !== 'object' && name !== 'model' && value !== null) answer[name] = value
    }
    for (const choice of Array.isArray(chunk['choices']) ? chunk['choices'] : []) if (isFields(choice)) joinChoice(choices, choice)
  }
  if (choices.size === 0) return null
  const { usage, ...rest } = answer
  const joined = [...choices.values()].toSorted((a, b) => Number(a['index']) - Number(b['index']))
  return { ...rest, choices: joined, ...(usage === undefined ? {} : { usage }) }
}

function joinChoice(choices: Map<number, Made>, choice: Fields): void {
  const index = Number(choice['index'])
  const joined = choices.get(index) ?? { index, message: { role: 'assistant', content: null }, finish_reason: null }
  choices.set(index, joined)
  const message = joined['message'] as Made
  for (const [name, value] of Object.entries(choice)) {
    if (name !== 'index' && name !== 'delta' && value !== null && value !== undefined) joined[name] = value
  }
  if (!isFields(choice['delta'])) return
  for (const [name, value] of Object.entries(choice['delta'])) {
    if (name === 'tool_calls' && Array.isArray(value)) joinCalls(message, value)
    else if (name === 'role') message['role'] = value
    else message[name] = joinValues(message[name], value)
  }
}

function joinValues(before: unknown, value: unknown): unknown {
  if (value === null || value === undefined) return before ?? null
  if (typeof before === 'string' && typeof value === 'string') return before + value
  if (Array.isArray(before) && Array.isArray(value)) return [...before, ...value]
  return value
}

function joinCalls(message: Made, fragments: readonly unknown[]): void {
  const calls = (message['tool_calls'] ??= []) as Made[]
  for (const fragment of fragments) {
    if (!isFields(fragment)) continue
    const { index, function: made, ...rest } = fragment
    const call = (calls[Number(index)] ??= { function: {} })
    for (const [name, value] of Object.entries(rest)) call[name] ??= value
    const whole = call['function'] as Made
    if (isFields(made)) for (const [name, value] of Object.entries(made)) whole[name] = joinValues(whole[name], value)
  }
}
