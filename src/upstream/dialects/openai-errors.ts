import { UpstreamFailure } from '../failure.ts'
import { isFields } from './openai-usage.ts'

/**
 * Decides what an error inside a 200 means. Gets the whole JSON value of the event or body, e.g. `{"error": {…}}`,
 * `{"error_code": …}` or `{"code": …, "message": …}`; the facts of the provider are bound to it.
 */
export type ClassifyError = (error: unknown) => UpstreamFailure

/** Without facts about the provider every error is the server's. */
export function classifyAsServer(): UpstreamFailure {
  return new UpstreamFailure('server')
}

/**
 * Whether a JSON value is an error rather than an answer: an `error` member (OpenAI, DeepSeek), or without an answer beside it
 * `object: "error"` (older vLLM), `error_code` (Qianfan), or a `code` that is not zero with a `message` (DashScope, Spark).
 */
export function isError(value: unknown): boolean {
  if (!isFields(value)) return false
  if (value['error']) return true
  if (Array.isArray(value['choices']) || Array.isArray(value['data'])) return false
  if (value['object'] === 'error' || saysFailed(value['error_code'])) return true
  return saysFailed(value['code']) && typeof value['message'] === 'string'
}

function saysFailed(code: unknown): boolean {
  return (typeof code === 'number' && code !== 0) || (typeof code === 'string' && code !== '' && code !== '0')
}
