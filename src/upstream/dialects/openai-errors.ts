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
 * Whether a JSON value is an error rather than an answer: an `error` member that says something (OpenAI, DeepSeek, MindIE's text),
 * MiniMax's `base_resp` and Spark's `header` with a code, Tencent's `Response.Error` and `ErrorMsg`, Dify's `event: error`; or without an answer beside it
 * `object: "error"` (older vLLM), `error_code` (Qianfan), FastAPI's `detail`, Volcengine's `ResponseMetadata.Error`, a `code`
 * that is not zero with a `message` (DashScope, Spark, SiliconFlow), or a bare text.
 */
export function isError(value: unknown): boolean {
  if (typeof value === 'string') return value.trim() !== ''
  if (!isFields(value)) return false
  if (saysError(value['error']) || codeIn(value['base_resp'], 'status_code') || codeIn(value['header'], 'code')) return true
  if (isFields(value['ErrorMsg']) || innerError(value['Response']) || value['event'] === 'error') return true
  if (Array.isArray(value['choices']) || Array.isArray(value['data']) || Array.isArray(value['results'])) return false
  if (value['object'] === 'error' || saysFailed(value['error_code']) || innerError(value['ResponseMetadata'])) return true
  if (value['detail'] !== undefined && Object.keys(value).length === 1) return true
  return saysFailed(value['code']) && typeof value['message'] === 'string'
}

/** Some servers send an `error` of nothing with every answer. */
function saysError(error: unknown): boolean {
  return isFields(error) ? Object.values(error).some(saysError) : Boolean(error) && error !== '0'
}

function codeIn(owner: unknown, name: string): boolean {
  return isFields(owner) && saysFailed(owner[name])
}

function innerError(owner: unknown): boolean {
  return isFields(owner) && (isFields(owner['Error']) || isFields(owner['ErrorMsg']))
}

const FINE = /^(0|200|ok|success|succeeded)?$/i

function saysFailed(code: unknown): boolean {
  return (typeof code === 'number' || typeof code === 'string') && !FINE.test(String(code))
}
