/**
 * The one table of errors that a caller can see. Codes never change; messages may.
 * `retry` decides the headers: `never` sends `x-should-retry: false`, which the official SDKs honour.
 */
interface ErrorRow {
  readonly status: number
  readonly type: string
  readonly retry: 'never' | 'later'
  readonly en: string
  readonly zh: string
  /** Instead of the above in the other case that the code has: see where it is thrown. */
  readonly instead?: { readonly en: string; readonly zh: string }
  /** Instead of the above when waiting does not help this time. */
  readonly final?: { readonly en: string; readonly zh: string }
}

const TABLE = {
  invalid_request: {
    status: 400,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The request is not valid: {detail}',
    zh: '请求无效：{detail}',
  },
  context_length_exceeded: {
    status: 400,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The prompt is about {estimate} tokens, more than the {limit} that {model} accepts. Shorten it or choose a model with a longer context.',
    zh: '提示词约 {estimate} 个 token，超过 {model} 可接受的 {limit}。请缩短内容或改用上下文更长的模型。',
  },
  content_filtered: {
    status: 400,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The model provider refused the content of this request. Change the content; another try with the same text will be refused again.',
    zh: '模型服务商拒绝了本次请求的内容。请修改内容，重复提交仍会被拒绝。',
  },
  invalid_api_key: {
    status: 401,
    type: 'authentication_error',
    retry: 'never',
    en: 'No valid API key was given. Send "Authorization: Bearer sk-weir-..." with a key of this gateway.',
    zh: '未提供有效的 API key。请使用本网关签发的 key，以 "Authorization: Bearer sk-weir-..." 方式发送。',
  },
  key_expired: {
    status: 401,
    type: 'authentication_error',
    retry: 'never',
    en: 'This API key has expired. Ask your administrator for a new one.',
    zh: '该 API key 已过期，请向管理员申请新的 key。',
  },
  key_revoked: {
    status: 401,
    type: 'authentication_error',
    retry: 'never',
    en: 'This API key has been revoked. Ask your administrator for a new one.',
    zh: '该 API key 已被吊销，请向管理员申请新的 key。',
  },
  insufficient_balance: {
    status: 402,
    type: 'billing_error',
    retry: 'never',
    en: 'The balance does not cover this request: available {available} CNY, held {held} CNY, needed {needed} CNY. Top up, or lower max_tokens.',
    zh: '余额不足以支付本次请求：可用 {available} 元，已冻结 {held} 元，需要 {needed} 元。请充值或调低 max_tokens。',
  },
  budget_exceeded: {
    status: 402,
    type: 'billing_error',
    retry: 'never',
    en: 'The budget {limit} is used up until {reset}: available {available}, held {held}, needed {needed}. Wait, or ask your administrator to raise it.',
    zh: '{limit_zh}已用完，将于 {reset} 恢复：可用 {available}，已冻结 {held}，需要 {needed}。请等待，或联系管理员调整预算。',
    final: {
      en: 'The budget {limit} does not cover this request: available {available}, held {held}, needed {needed}. Ask your administrator to raise it.',
      zh: '{limit_zh}不足以支付本次请求：可用 {available}，已冻结 {held}，需要 {needed}。请联系管理员调整预算。',
    },
  },
  quota_exhausted: {
    status: 429,
    type: 'rate_limit_error',
    retry: 'never',
    en: 'The plan limit {limit} is used up until {reset}: available {available}, held {held}, needed {needed}.',
    zh: '{limit_zh}已用完，将于 {reset} 恢复：可用 {available}，已冻结 {held}，需要 {needed}。',
    final: {
      en: 'This request needs {needed}, more than the plan limit {limit} ever gives (available {available}, held {held}). Send a smaller one.',
      zh: '本次请求需要 {needed}，超过{limit_zh}（可用 {available}，已冻结 {held}）。请减小请求。',
    },
  },
  model_not_allowed: {
    status: 403,
    type: 'permission_error',
    retry: 'never',
    en: 'This key may not use the model {model}. Ask your administrator to allow it, or call one listed by GET /v1/models.',
    zh: '该 key 无权使用模型 {model}。请联系管理员开通，或使用 GET /v1/models 中列出的模型。',
  },
  filing_required: {
    status: 403,
    type: 'permission_error',
    retry: 'never',
    en: 'The model {model} has no filing number (备案号) in the registry of this gateway, and this tenant serves the public. Choose a filed model (GET /v1/models lists those that you can call), or, if the service is not offered to the public, ask the operator to set the audience of the tenant to internal.',
    zh: '模型 {model} 在本网关的备案名录中没有备案号，而该租户面向公众提供服务。请选择已备案的模型（GET /v1/models 列出可用模型）；若服务不面向公众，请联系运营方将租户受众设为 internal。',
    instead: {
      en: 'No provider key is set for {model}, so only the sandbox could answer, and the sandbox serves no public. Set the key of a provider, or, for a trial, make the tenant internal: weir tenant change <id> --audience internal.',
      zh: '{model} 尚未配置服务商密钥，只有沙箱可以回答，而沙箱不面向公众。请配置服务商密钥；试用时可将租户设为 internal：weir tenant change <id> --audience internal。',
    },
  },
  zone_not_allowed: {
    status: 403,
    type: 'permission_error',
    retry: 'never',
    en: 'The model {model} is served only from zones that this key may not use.',
    zh: '模型 {model} 仅部署在该 key 不允许使用的区域。',
  },
  tenant_suspended: {
    status: 403,
    type: 'permission_error',
    retry: 'never',
    en: 'This account is suspended. Contact the operator.',
    zh: '该账户已停用，请联系运营方。',
  },
  model_not_found: {
    status: 404,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The model {model} does not exist here. GET /v1/models lists what this key can call.',
    zh: '模型 {model} 不存在。请通过 GET /v1/models 查看可用模型。',
    instead: {
      en: 'The model {model} has been retired. {successor}',
      zh: '模型 {model} 已下线。{successor_zh}',
    },
  },
  not_found: {
    status: 404,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'Nothing is served at {path}. The API starts at /v1.',
    zh: '{path} 不存在。API 路径以 /v1 开头。',
  },
  method_not_allowed: {
    status: 405,
    type: 'invalid_request_error',
    retry: 'never',
    en: '{path} does not accept {method}.',
    zh: '{path} 不支持 {method} 方法。',
  },
  conflict: {
    status: 409,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'This contradicts what is there already: {detail}',
    zh: '与已有记录冲突：{detail}',
  },
  request_timeout: {
    status: 408,
    type: 'invalid_request_error',
    retry: 'later',
    en: 'The request did not arrive in time.',
    zh: '请求未能在规定时间内传输完毕。',
  },
  request_too_large: {
    status: 413,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The request body is larger than {limit} bytes.',
    zh: '请求体超过 {limit} 字节。',
  },
  headers_too_large: {
    status: 431,
    type: 'invalid_request_error',
    retry: 'never',
    en: 'The request headers are too large.',
    zh: '请求头过大。',
  },
  rate_limit_exceeded: {
    status: 429,
    type: 'rate_limit_error',
    retry: 'later',
    en: 'Rate limit reached for {limit}: available {available}, needed {needed}. Try again in {seconds} s.',
    zh: '已达到{limit_zh}：可用 {available}，需要 {needed}。请在 {seconds} 秒后重试。',
    final: {
      en: 'This request needs {needed}, more than the rate limit {limit} ever has (available {available}). Send a smaller one.',
      zh: '本次请求需要 {needed}，超过{limit_zh}（可用 {available}）。请减小请求。',
    },
  },
  concurrency_exceeded: {
    status: 429,
    type: 'rate_limit_error',
    retry: 'later',
    en: 'Too many requests at once for {limit}: {held} are running, the limit is {available}. Try again when one has ended.',
    zh: '{limit_zh}过高：当前 {held} 个，上限 {available} 个。请稍后重试。',
  },
  client_closed_request: {
    status: 499,
    type: 'client_error',
    retry: 'never',
    en: 'The client closed the connection before the answer was complete.',
    zh: '客户端在回答完成前关闭了连接。',
  },
  internal_error: {
    status: 500,
    type: 'server_error',
    retry: 'later',
    en: 'The gateway failed. Quote the request id when you report it.',
    zh: '网关内部错误。反馈时请提供 request id。',
  },
  upstream_error: {
    status: 502,
    type: 'upstream_error',
    retry: 'later',
    en: 'No model provider gave a usable answer: {detail}',
    zh: '模型服务商未返回可用的结果：{detail}',
  },
  no_upstream_available: {
    status: 503,
    type: 'upstream_error',
    retry: 'later',
    en: 'No provider of {model} is available at the moment.',
    zh: '模型 {model} 当前没有可用的服务商。',
    instead: {
      en: 'Every endpoint of {model} has as many requests as it may have at a time. Try again in a moment.',
      zh: '模型 {model} 的所有接入点均已达到容量上限，请稍后重试。',
    },
  },
  admission_unavailable: {
    status: 503,
    type: 'server_error',
    retry: 'later',
    en: 'The gateway cannot check limits at the moment, so it admits nothing.',
    zh: '网关暂时无法校验额度，因此暂停受理请求。',
  },
  ledger_unavailable: {
    status: 503,
    type: 'server_error',
    retry: 'later',
    en: 'The ledger cannot be reached at the moment. Try again; what was sent with an id of its own is done once.',
    zh: '账本暂时无法访问，请稍后重试；带有自定义 id 的操作只会执行一次。',
  },
  overloaded: {
    status: 503,
    type: 'server_error',
    retry: 'later',
    en: 'The gateway is at its limit of open requests.',
    zh: '网关打开的请求数已达上限。',
  },
  shutting_down: { status: 503, type: 'server_error', retry: 'later', en: 'The gateway is shutting down.', zh: '网关正在停机。' },
  upstream_timeout: {
    status: 504,
    type: 'upstream_error',
    retry: 'later',
    en: 'The model provider did not answer in time: {detail}',
    zh: '模型服务商未能及时响应：{detail}',
  },
} as const satisfies Record<string, ErrorRow>

/** A stable error code, as in the body's `error.code`. */
export type ErrorCode = keyof typeof TABLE
/** Language of messages; the code is the same in both. */
export type Locale = 'zh' | 'en'

export interface ErrorDetails {
  /** Values for the placeholders of the message. Never user content, never a secret. */
  readonly values?: Readonly<Record<string, string | number>>
  /** Which request field is wrong, as OpenAI's `param`. */
  readonly param?: string
  /** When a retry may succeed, in milliseconds from now. */
  readonly retry_after_ms?: number
  /** The code's other case: a model that has gone, one that only a sandbox plays, endpoints that are full. */
  readonly instead?: boolean
  /** Waiting does not help this time, whatever the code usually says. */
  readonly final?: boolean
  readonly cause?: unknown
}

/** Every refusal and failure that a caller sees. Thrown by the stages, rendered by `gateway/refuse.ts` alone. */
export class WeirError extends Error {
  override name = 'WeirError'
  readonly code: ErrorCode
  readonly details: ErrorDetails

  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(messageOf(code, 'en', details), { cause: details.cause })
    this.code = code
    this.details = details
  }

  get status(): number {
    return TABLE[this.code].status
  }

  get retryable(): boolean {
    return TABLE[this.code].retry === 'later' && this.details.final !== true
  }
}

/** The message of a code in a language, placeholders filled. */
export function messageOf(code: ErrorCode, locale: Locale, details: ErrorDetails = {}): string {
  const values = details.values ?? {}
  const row: ErrorRow = TABLE[code]
  const text = (details.final === true ? row.final : details.instead === true ? row.instead : undefined) ?? row
  return text[locale].replaceAll(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? '?'))
}

/** The OpenAI-shaped body of an error, the same for JSON answers and for error events inside streams. */
export function errorBody(error: WeirError, locale: Locale, request_id: string): { error: Record<string, string | null> } {
  return {
    error: {
      message: messageOf(error.code, locale, error.details),
      type: TABLE[error.code].type,
      param: error.details.param ?? null,
      code: error.code,
      request_id,
    },
  }
}

/** All codes with their HTTP status, for the documentation and its test. */
export function errorTable(): ReadonlyArray<{ code: ErrorCode; status: number; retry: 'never' | 'later' }> {
  return Object.entries(TABLE).map(([code, row]) => ({ code: code as ErrorCode, status: row.status, retry: row.retry }))
}
