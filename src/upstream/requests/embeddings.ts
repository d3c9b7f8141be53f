import { ObjectEdits } from '../../base/json-edits.ts'
import { arrayElements, JsonSpanError, rewriteMembers, spliceBytes } from '../../base/json-spans.ts'
import type { Edit } from '../../base/json-spans.ts'
import { parseJson } from '../dialects/frames.ts'
import { isFields, readInputUsage } from '../dialects/openai-usage.ts'
import { UpstreamFailure } from '../failure.ts'

const LIMITS = { max_depth: 1024, max_members: 1_000_000 }

/** Most requests that one batch is split into. */
const MAX_PARTS = 2048

/**
 * The bodies of an embeddings request with at most `batch` inputs each, in order. One where no splitting is needed.
 *
 * @param batch most inputs that the target takes, or null
 * @param inputs how many the request has: texts or lists of token ids
 */
export function splitInputs(body: Buffer, upstream_model: string, inputs: number, batch: number | null): readonly Buffer[] {
  const model = Buffer.from(JSON.stringify(upstream_model))
  if (batch === null || inputs <= batch) return [rewriteMembers(body, { model })]
  const input = new ObjectEdits(body, 0, LIMITS).find('input')
  if (input === null) return [rewriteMembers(body, { model })]
  const elements = arrayElements(body, input.value_start, LIMITS)
  const size = Math.max(batch, Math.ceil(elements.length / MAX_PARTS))
  const bodies: Buffer[] = []
  for (let from = 0; from < elements.length; from += size) {
    const [first, last] = [elements[from], elements[Math.min(from + size, elements.length) - 1]]
    if (first === undefined || last === undefined) break
    const part = Buffer.concat([Buffer.from('['), body.subarray(first.start, last.end), Buffer.from(']')])
    bodies.push(rewriteMembers(body, { model, input: part }))
  }
  return bodies
}

/**
 * The answers to {@link splitInputs}' bodies as the one answer to the whole: vectors in order, as the upstream wrote them, usage summed.
 *
 * @throws UpstreamFailure `malformed`
 */
export function joinAnswers(answers: readonly Buffer[]): Buffer {
  const [first] = answers
  if (first === undefined) throw new UpstreamFailure('malformed')
  if (answers.length === 1) return first
  try {
    return join(first, answers)
  } catch (error) {
    if (!(error instanceof JsonSpanError)) throw error
    throw new UpstreamFailure('malformed', { cause: error })
  }
}

function join(first: Buffer, answers: readonly Buffer[]): Buffer {
  const vectors: Buffer[] = []
  let tokens: number | null = 0
  for (const answer of answers) {
    const value = parseJson(answer)
    const data = new ObjectEdits(answer, 0, LIMITS).find('data')
    if (!isFields(value) || data === null) throw new UpstreamFailure('malformed')
    for (const { start, end } of arrayElements(answer, data.value_start, LIMITS))
      vectors.push(numbered(answer.subarray(start, end), vectors.length))
    const used = readInputUsage(value)
    tokens = used === null || tokens === null ? null : tokens + used.input
  }
  const whole = new ObjectEdits(first, 0, LIMITS)
  whole.set('data', Buffer.from(`[${vectors.map((vector) => vector.toString('utf8')).join(',')}]`))
  // What one part did not report is not known of the whole.
  if (tokens === null) whole.remove('usage')
  else whole.set('usage', JSON.stringify({ prompt_tokens: tokens, total_tokens: tokens }))
  const edits: Edit[] = []
  whole.finish(edits)
  return spliceBytes(first, edits)
}

/** A vector with its index in the whole. */
function numbered(vector: Buffer, index: number): Buffer {
  const object = new ObjectEdits(vector, 0, LIMITS)
  object.set('index', String(index))
  const edits: Edit[] = []
  object.finish(edits)
  return spliceBytes(vector, edits)
}
