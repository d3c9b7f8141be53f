import type { OutgoingHttpHeaders } from 'node:http'
import { errorBody, type Locale, messageOf, WeirError } from '../base/errors.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { HoldRefusal, LimitRule } from '../storage/ports.ts'
import type { Call } from './call.ts'
import { toWeirError } from './ending.ts'
import type { Plane } from './plane.ts'

/** Official SDKs ignore a `retry-after` above this and retry at once; then they are told not to. */
const SDK_RETRY_AFTER_MAX_MS = 60_000

/** Answers with an error: a status and body while nothing has been sent, an error event inside a stream that has begun. Never `[DONE]`. */
export async function refuse(call: Call, error: unknown, plane: Plane): Promise<WeirError> {
  const refusal = toWeirError(error)
  remember(call, refusal, plane)
  const body = JSON.stringify(errorBody(refusal, call.locale, call.id))
  if (call.reply.committed) {
    call.reply.end(`data: ${body}\n\n`)
    return refusal
  }
  const headers = { ...retryHeaders(refusal), 'content-type': 'application/json; charset=utf-8' }
  if (call.received) {
    call.reply.send(refusal.status, headers, body)
    return refusal
  }
  // The whole answer goes out first, then the rest of the body is read: a client in the middle of sending gets to see why.
  call.reply.head(refusal.status, { ...headers, connection: 'close', 'content-length': Buffer.byteLength(body) })
  call.reply.write(body, plane.clock.now_ms())
  await call.discardBody()
  call.reply.end()
  return refusal
}

/** The error of a refused hold or extension: names the limit, what is available, held and needed in its unit, and when it frees. */
export function refusalOf(refusal: HoldRefusal, now_ms: number): WeirError {
  const { reason, rule, frees_at_ms } = refusal
  const final = frees_at_ms === null
  const frees_in_ms = frees_at_ms === null ? 0 : Math.max(1, frees_at_ms - now_ms)
  const retry = final ? {} : { retry_after_ms: frees_in_ms }
  const figure = rule === null ? cnyFromNano : (amount: bigint): string => inUnitOf(rule, amount)
  const values = {
    limit: limitName(rule),
    limit_zh: limitNameZh(rule),
    available: figure(refusal.available),
    held: figure(refusal.held),
    needed: figure(refusal.needed),
    seconds: Math.ceil(frees_in_ms / 1000),
    reset: frees_at_ms === null ? '' : new Date(frees_at_ms).toISOString(),
  }
  switch (reason) {
    case 'rate':
      return new WeirError('rate_limit_exceeded', { values, final, ...retry })
    case 'concurrency':
      return new WeirError('concurrency_exceeded', { values, final, ...retry })
    case 'window':
      return new WeirError('quota_exhausted', { values, final, ...retry })
    case 'budget':
      return new WeirError('budget_exceeded', { values, final })
    case 'balance':
      return new WeirError('insufficient_balance', { values })
    case 'key_revoked':
    case 'tenant_suspended':
      return new WeirError(reason)
  }
}

function limitName(rule: LimitRule | null): string {
  if (rule === null) return 'the account'
  const { scope, kind, window, model, limit } = rule
  const size = kind === 'concurrency' ? '' : ` of ${inUnitOf(rule, limit)}`
  return `${scope} ${kind}${size}${window === null ? '' : ` per ${window.name}`}${model === null ? '' : ` for ${model}`}`
}

const KINDS_ZH: Readonly<Record<LimitRule['kind'], string>> = {
  requests_per_minute: '每分钟请求数',
  tokens_per_minute: '每分钟 token 数',
  concurrency: '并发数',
  requests_window: '请求数',
  tokens_window: 'token 数',
  amount_window: '金额',
  budget: '预算',
}
const SCOPES_ZH: Readonly<Record<LimitRule['scope'], string>> = { key: '密钥', project: '项目', tenant: '租户' }
const WINDOWS_ZH = { '5h': '每 5 小时', day: '每日', week: '每周', month: '每月' } as const

function limitNameZh(rule: LimitRule | null): string {
  if (rule === null) return '账户'
  const { scope, kind, window, model, limit } = rule
  const size = kind === 'concurrency' ? '' : `（上限 ${inUnitOf(rule, limit)}）`
  const of = model === null ? SCOPES_ZH[scope] : `${SCOPES_ZH[scope]}在 ${model} 上`
  return `${of}的${window === null ? '' : WINDOWS_ZH[window.name]}${KINDS_ZH[kind]}${size}`
}

function inUnitOf({ kind }: LimitRule, amount: bigint): string {
  return kind === 'budget' || kind === 'amount_window' ? `${cnyFromNano(amount)} CNY` : String(amount)
}

/** Headers that make the official SDKs do the right thing. */
export function retryHeaders(refusal: WeirError): OutgoingHttpHeaders {
  const { retry_after_ms } = refusal.details
  const headers: OutgoingHttpHeaders = {}
  if (!refusal.retryable || (retry_after_ms !== undefined && retry_after_ms > SDK_RETRY_AFTER_MAX_MS)) headers['x-should-retry'] = 'false'
  if (retry_after_ms === undefined) return headers
  headers['retry-after'] = String(Math.ceil(retry_after_ms / 1000))
  headers['retry-after-ms'] = String(Math.ceil(retry_after_ms))
  return headers
}

/** The language a caller without a key asks for. */
export function localeOf(accept_language: string | undefined): Locale {
  return accept_language?.trimStart().toLowerCase().startsWith('zh') === true ? 'zh' : 'en'
}

function remember(call: Call, refusal: WeirError, plane: Plane): void {
  plane.metrics.refused(refusal.code)
  const { tenant, model_asked } = call.notes
  if (tenant === null) return
  const message = messageOf(refusal.code, call.locale, refusal.details)
  plane.refusals.add({ id: call.id, tenant, at_ms: plane.clock.now_ms(), code: refusal.code, message, model_asked })
}
