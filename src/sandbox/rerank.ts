import { RequestError } from './answer.ts'

type Members = Readonly<Record<string, unknown>>

/** A request that ranks documents, as far as the sandbox reads it. */
export interface RerankRequest {
  readonly model: string
  readonly query: string
  readonly documents: readonly string[]
  readonly top_n: number
  readonly return_documents: boolean
}

/** @throws RequestError naming the member that is wrong */
export function parseRerankRequest(body: unknown): RerankRequest {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new RequestError('The body must be a JSON object.', null)
  const { model, query, documents, top_n, return_documents } = body as Members
  if (typeof model !== 'string' || model === '') throw new RequestError('model must be a non-empty string.', 'model')
  if (typeof query !== 'string' || query === '') throw new RequestError('query must be a text.', 'query')
  if (!Array.isArray(documents) || documents.length === 0) throw new RequestError('documents must be a non-empty list.', 'documents')
  const most = typeof top_n === 'number' ? Math.min(top_n, documents.length) : documents.length
  return { model, query, documents: documents.map(textOf), top_n: most, return_documents: return_documents === true }
}

function textOf(document: unknown): string {
  if (typeof document === 'string') return document
  if (typeof document === 'object' && document !== null && 'text' in document) return String(document.text)
  throw new RequestError('Every document must be a text or have one.', 'documents')
}

/** The share of the query's characters that a document has: the same for the same text, and easy to foresee. */
export function relevance(query: string, document: string): number {
  const wanted = new Set(query.toLowerCase())
  const found = [...wanted].filter((character) => document.toLowerCase().includes(character))
  return Math.round((found.length / wanted.size) * 10_000) / 10_000
}

/** The answer's body, best first. Its tokens are passed in, or null to leave usage out. */
export function rerankBody(request: RerankRequest, id: string, tokens: number | null): string {
  const results = request.documents
    .map((text, index) => ({
      ...(request.return_documents ? { document: { text } } : {}),
      index,
      relevance_score: relevance(request.query, text),
    }))
    .toSorted((a, b) => b.relevance_score - a.relevance_score)
    .slice(0, request.top_n)
  const usage = tokens === null ? {} : { usage: { total_tokens: tokens }, meta: { tokens: { input_tokens: tokens, output_tokens: 0 } } }
  return JSON.stringify({ id, model: request.model, results, ...usage })
}
