import { JsonSpanError, spliceBytes } from '../../base/json-spans.ts'
import type { Edit } from '../../base/json-spans.ts'
import { UpstreamFailure } from '../failure.ts'
import { collectAnswer } from './collect.ts'
import type { AnswerContext, Dialect, TranslatedAnswer } from './dialect.ts'
import { parseJson } from './frames.ts'
import { protocolOf } from './native/recognise.ts'
import type { NativeProtocol } from './native/protocol.ts'
import { brokenOffAt, countMeaning, meaningOf } from './openai-choice.ts'
import type { ChoiceMeaning } from './openai-choice.ts'
import { classifyAsServer, isError } from './openai-errors.ts'
import type { ClassifyError } from './openai-errors.ts'
import { choicesOf, OpenaiObserver } from './openai-observer.ts'
import { chunkEdits, modelEdits } from './openai-repairs.ts'
import { OpenaiStream, saysErrorText } from './openai-stream.ts'
import type { StreamFacts } from './openai-stream.ts'
import { isFields, readInputUsage } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

const BOM = Buffer.from([0xef, 0xbb, 0xbf])

/**
 * The OpenAI chat protocol as China's providers and self-hosted servers speak it (ARCHITECTURE, Bytes): answers pass byte by
 * byte, but for the model name, usage nobody asked for, the terminator, and named repairs. An answer that turns out to be of
 * another protocol is translated by meaning. `classify` says what an error inside a 200 means for the provider at hand.
 */
export function createOpenaiDialect(classify: ClassifyError = classifyAsServer, done_is_finish = false): Dialect {
  return createDialect('openai', { classify, done_is_finish, protocol: null, text_quirks: null })
}

/** A dialect whose answers become OpenAI's: passed (no protocol) or translated. */
export function createDialect(name: string, facts: StreamFacts): Dialect {
  return {
    name,
    streamed: (context) => new OpenaiStream(context, facts),
    whole: (body, context) => translateWhole(body, context, facts),
  }
}

/** The dialect without facts about a provider: every error inside a 200 is of kind `server`. */
export const openaiDialect: Dialect = createOpenaiDialect()

function translateWhole(body: Buffer, context: AnswerContext, facts: StreamFacts): TranslatedAnswer {
  if (looksLikeEvents(body)) return collectAnswer(body, new OpenaiStream({ ...context, usage_asked: true }, facts), context)
  const has_bom = body.subarray(0, BOM.length).equals(BOM)
  const json = has_bom ? body.subarray(BOM.length) : body
  const value = parseJson(json)
  if (isError(value)) throw facts.classify(value)
  if (!isFields(value)) throw new UpstreamFailure('malformed')
  const translated = otherProtocol(value, facts.protocol)
  if (translated !== null) return answerOf(Buffer.from(JSON.stringify(translated)), translated, context, ['protocol'], facts)
  return answerOf(json, value, context, has_bom ? ['bom'] : [], facts)
}

/** A server that was not asked for a stream and sends one, or one that only streams. */
function looksLikeEvents(body: Buffer): boolean {
  return /^\uFEFF?\s*(data|event|id|retry)?:/.test(body.toString('utf8', 0, 64))
}

function otherProtocol(value: Fields, configured: NativeProtocol | null): Fields | null {
  if (Array.isArray(value['choices']) || Array.isArray(value['data']) || Array.isArray(value['results'])) return null
  const protocol = configured?.recognises(value) === true ? configured : protocolOf(value)
  return protocol?.whole(value) ?? null
}

function answerOf(
  json: Buffer,
  value: Fields,
  context: AnswerContext,
  known_repairs: readonly string[],
  facts: StreamFacts,
): TranslatedAnswer {
  const observer = new OpenaiObserver(context)
  for (const repair of known_repairs) observer.repairs.add(repair)
  const choices = value['choices'] === undefined || value['choices'] === null ? null : choicesOf(value)
  // Without a choice there is no answer, and another target may have one.
  if (choices?.length === 0) throw new UpstreamFailure('malformed')
  if (choices === null) return withoutChoices(json, value, context, observer)
  if (!observer.see(value)) throw new UpstreamFailure('malformed')
  const meanings = choices.flatMap((choice, position): ChoiceMeaning[] => {
    const state = isFields(choice) ? observer.stateOf(choice, position) : null
    return isFields(choice) && state !== null ? [meaningOf(choice, position, state, true)] : []
  })
  for (const { content } of meanings) if (saysErrorText(content, facts)) throw facts.classify({ error: { message: content.trim() } })
  for (const { choice } of meanings) {
    const broken = brokenOffAt(choice)
    if (broken !== null) throw new UpstreamFailure(broken, { provider_code: String(choice['finish_reason']) })
  }
  const plan = { model: Buffer.from(JSON.stringify(context.model_asked)), usage_asked: true, whole: true }
  const edits = editsOf(() => chunkEdits(json, value, meanings, plan, observer.repairs))
  for (const meaning of meanings) countMeaning(meaning)
  return { out: spliceBytes(json, edits), observation: observer.observation() }
}

/** Embeddings and rerankings are whole when their JSON is. */
function withoutChoices(json: Buffer, value: Fields, context: AnswerContext, observer: OpenaiObserver): TranslatedAnswer {
  const edits = editsOf(() => modelEdits(json, Buffer.from(JSON.stringify(context.model_asked))))
  if (!Array.isArray(value['data']) && !Array.isArray(value['results'])) throw new UpstreamFailure('malformed')
  return { out: spliceBytes(json, edits), observation: { ...observer.observation(), reported: readInputUsage(value), finished: true } }
}

function editsOf(make: () => Edit[]): Edit[] {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof JsonSpanError)) throw error
    throw new UpstreamFailure('malformed', { cause: error })
  }
}
