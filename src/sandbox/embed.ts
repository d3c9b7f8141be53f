import { createHash } from 'node:crypto'
import { RequestError } from './answer.ts'

/** An embeddings request as far as the sandbox reads it. */
export interface EmbeddingsRequest {
  readonly model: string
  /** Texts, or lists of token ids as their JSON. */
  readonly inputs: readonly string[]
  readonly dimensions: number
  readonly base64: boolean
}

const DIMENSIONS = 256
const MAX_DIMENSIONS = 8_192
const MAX_INPUTS = 2_048

/** @throws RequestError naming the member that is wrong */
export function parseEmbeddingsRequest(body: unknown): EmbeddingsRequest {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new RequestError('The body must be a JSON object.', null)
  const { model, input, dimensions = DIMENSIONS, encoding_format = 'float' } = body as Readonly<Record<string, unknown>>
  if (typeof model !== 'string' || model === '') throw new RequestError('model must be a non-empty string.', 'model')
  if (!Number.isSafeInteger(dimensions) || Number(dimensions) < 1 || Number(dimensions) > MAX_DIMENSIONS) {
    throw new RequestError(`dimensions must be a whole number from 1 to ${MAX_DIMENSIONS}.`, 'dimensions')
  }
  if (encoding_format !== 'float' && encoding_format !== 'base64') {
    throw new RequestError('encoding_format must be float or base64.', 'encoding_format')
  }
  return { model, inputs: inputsOf(input), dimensions: Number(dimensions), base64: encoding_format === 'base64' }
}

function inputsOf(input: unknown): readonly string[] {
  const ids = (list: readonly unknown[]): boolean => list.length > 0 && list.every((id) => Number.isSafeInteger(id))
  if (typeof input === 'string' && input !== '') return [input]
  if (!Array.isArray(input) || input.length === 0) throw new RequestError('input must be a text, texts or token ids.', 'input')
  if (ids(input)) return [JSON.stringify(input)]
  if (input.length > MAX_INPUTS) throw new RequestError(`input must have at most ${MAX_INPUTS} entries.`, 'input')
  return input.map((one: unknown) => {
    if (typeof one === 'string') return one
    if (Array.isArray(one) && ids(one)) return JSON.stringify(one)
    throw new RequestError('Every entry of input must be a text or a list of token ids.', 'input')
  })
}

/** A unit vector in 32-bit floats, the same for the same text: the bytes of SHA-256 in counter mode, centred and normalised. */
export function embed(text: string, dimensions: number): Float32Array {
  const vector = new Float32Array(dimensions)
  const seed = createHash('sha256').update(text).digest()
  for (let at = 0, block = 0; at < dimensions; block += 1) {
    const bytes = createHash('sha256').update(seed).update(String(block)).digest()
    for (let offset = 0; offset < bytes.length && at < dimensions; offset += 2, at += 1) vector[at] = bytes.readInt16LE(offset) + 0.5
  }
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0))
  return vector.map((value) => value / length)
}

/** The answer's body. Its prompt tokens are passed in, or null to leave usage out. */
export function embeddingsBody(request: EmbeddingsRequest, prompt_tokens: number | null): string {
  const data = request.inputs.map((text, index) => {
    const vector = embed(text, request.dimensions)
    const embedding = request.base64 ? littleEndian(vector).toString('base64') : [...vector]
    return { object: 'embedding', index, embedding }
  })
  const usage = prompt_tokens === null ? {} : { usage: { prompt_tokens, total_tokens: prompt_tokens } }
  return JSON.stringify({ object: 'list', data, model: request.model, ...usage })
}

function littleEndian(vector: Float32Array): Buffer {
  const bytes = Buffer.alloc(vector.length * 4)
  for (const [index, value] of vector.entries()) bytes.writeFloatLE(value, index * 4)
  return bytes
}
