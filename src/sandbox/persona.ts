import { DirectiveError, type Cause, type PartialDirectives } from './directives.ts'

type Members = Readonly<Record<string, unknown>>

/** An error as a provider tells it. */
export interface Refusal {
  readonly status: number
  readonly body: string
}

/** How one provider speaks, and what it does not put up with. */
export interface Persona {
  readonly id: string
  readonly directives: PartialDirectives
  readonly errors: Readonly<Record<Cause, Refusal>>
  /** What the provider has against a chat request, or null. */
  readonly objection: (chat: Members) => string | null
}

const error = (status: number, message: string, code: string | number | null, type: string | null): Refusal => ({
  status,
  body: JSON.stringify({ error: { message, type, param: null, code } }),
})
const flat = (status: number, members: Members): Refusal => ({ status, body: JSON.stringify(members) })

/** OpenAI's own. */
const OPENAI_ERRORS: Persona['errors'] = {
  auth: error(401, 'Incorrect API key provided.', 'invalid_api_key', 'invalid_request_error'),
  balance: error(402, 'Insufficient Balance', 'insufficient_balance', 'invalid_request_error'),
  quota: error(429, 'You exceeded your current quota.', 'insufficient_quota', 'insufficient_quota'),
  rate: error(429, 'Rate limit reached.', 'rate_limit_exceeded', 'rate_limit_error'),
  overload: error(503, 'The server is overloaded.', null, 'server_error'),
  content: error(400, 'The content was refused.', 'content_filter', 'invalid_request_error'),
  context: error(400, "This model's maximum context length is 8192 tokens.", 'context_length_exceeded', 'invalid_request_error'),
  invalid: error(400, 'A parameter is not valid.', 'invalid_parameter', 'invalid_request_error'),
  model: error(404, 'The model does not exist.', 'model_not_found', 'invalid_request_error'),
}

const base = (status_code: number): Refusal => flat(200, { base_resp: { status_code, status_msg: 'refused' } })
const spark = (code: number): Refusal => flat(200, { code, message: 'refused', sid: 'cha000sbx' })
const glm = (status: number, code: string): Refusal => ({ status, body: JSON.stringify({ error: { code, message: 'refused' } }) })
const tencent = (Code: string): Refusal => flat(200, { Response: { RequestId: 'sbx', Error: { Code, Message: 'refused' } } })
const ark = (status: number, code: string): Refusal => error(status, 'refused', code, 'BadRequest')
const grpc = (status: number, code: number): Refusal => flat(status, { error: { code, message: 'refused', details: [] } })
const fast = (status: number, detail: string): Refusal => flat(status, { detail })

/** Where a provider's own words are known; else OpenAI's. */
const ERRORS: Readonly<Record<string, Partial<Persona['errors']>>> = {
  deepseek: {
    content: error(400, 'Content Exists Risk', 'invalid_request_error', 'invalid_request_error'),
    model: error(400, 'Model Not Exist', 'invalid_request_error', 'invalid_request_error'),
    invalid: error(422, 'Invalid parameters', 'invalid_request_error', 'invalid_request_error'),
  },
  qwen: {
    balance: error(400, 'Access denied, please make sure your account is in good standing.', 'Arrearage', 'Arrearage'),
    content: error(400, 'Input data may contain inappropriate content.', 'data_inspection_failed', 'data_inspection_failed'),
    rate: error(429, 'Requests rate limit exceeded', 'Throttling.RateQuota', 'Throttling.RateQuota'),
    overload: error(400, '<503> InternalError.Algo: [Too many requests.]', 'ServiceUnavailable', 'ServiceUnavailable'),
    context: error(400, 'Range of input length should be [1, 129024]', 'invalid_parameter_error', 'invalid_request_error'),
  },
  doubao: {
    auth: ark(401, 'AuthenticationError'),
    balance: ark(403, 'AccountOverdueError'),
    content: ark(400, 'SensitiveContentDetected'),
    rate: ark(429, 'RateLimitExceeded.EndpointTPMExceeded'),
    overload: ark(429, 'ServerOverloaded'),
    model: ark(404, 'ModelNotOpen'),
  },
  hunyuan_native: {
    auth: tencent('AuthFailure.SignatureFailure'),
    balance: tencent('FailedOperation.ServiceStopArrears'),
    rate: tencent('LimitExceeded'),
    content: tencent('OperationDenied.TextIllegalDetected'),
    invalid: tencent('InvalidParameter'),
    model: tencent('InvalidParameterValue.Model'),
  },
  qianfan: {
    auth: error(401, 'refused', 'invalid_iam_token', 'access_denied'),
    content: error(403, 'refused', 'unsafe_request', 'unsafe_request'),
    context: error(400, 'refused', 'tokens_too_long', 'invalid_request_error'),
    model: error(400, 'refused', 'invalid_model', 'invalid_request_error'),
  },
  qianfan_v1: {
    auth: flat(200, { error_code: 110, error_msg: 'refused' }),
    quota: flat(200, { error_code: 17, error_msg: 'refused' }),
    rate: flat(200, { error_code: 18, error_msg: 'refused' }),
    context: flat(200, { error_code: 336103, error_msg: 'Prompt tokens too long' }),
  },
  zhipu: {
    auth: glm(401, '1002'),
    balance: glm(429, '1113'),
    quota: glm(429, '1308'),
    rate: glm(429, '1302'),
    overload: glm(429, '1305'),
    content: flat(400, { contentFilter: [{ level: 1, role: 'user' }], error: { code: '1301', message: 'refused' } }),
    context: glm(400, '1261'),
    invalid: glm(400, '1210'),
    model: glm(400, '1211'),
  },
  moonshot: {
    auth: error(401, 'Invalid Authentication', null, 'invalid_authentication_error'),
    balance: error(403, 'insufficient balance', null, 'permission_denied_error'),
    overload: error(429, 'The engine is currently overloaded, please try again later', null, 'rate_limit_error'),
    content: error(400, 'The request was rejected because it was considered high risk', null, 'content_filter'),
    context: error(400, 'Your request exceeded model token limit : 262144', null, 'invalid_request_error'),
  },
  minimax: {
    auth: base(1004),
    balance: base(1008),
    quota: base(2056),
    rate: base(1002),
    content: base(1026),
    invalid: base(2013),
    overload: base(1013),
  },
  spark: {
    auth: spark(11200),
    quota: spark(11201),
    rate: spark(11202),
    overload: spark(10110),
    content: spark(10013),
    context: spark(10907),
  },
  stepfun: { content: error(451, 'refused', null, 'content_moderation') },
  baichuan: { auth: error(401, 'refused', null, 'invalid_authentication'), balance: error(402, 'refused', null, 'insufficient_quota') },
  sensenova: { auth: grpc(401, 16), rate: grpc(429, 8), invalid: grpc(400, 3), model: grpc(404, 5) },
  siliconflow: {
    auth: { status: 401, body: '"Invalid token"' },
    balance: flat(403, { code: 30001, message: 'Sorry, your account balance is insufficient', data: null }),
    overload: flat(503, { code: 50505, message: 'System is really busy. Please try again later.', data: null }),
    invalid: flat(400, { code: 20015, message: 'refused', data: null }),
    model: flat(400, { code: 20012, message: 'Model does not exist. Please check it carefully.', data: null }),
  },
  mindie: {
    overload: flat(424, { error: 'refused', error_type: 'Generation Error' }),
    invalid: flat(422, { error: 'refused', error_type: 'Input Validation Error' }),
  },
  dify: {
    auth: flat(401, { code: 'unauthorized', message: 'Access token is invalid', status: 401 }),
    quota: flat(400, { code: 'provider_quota_exceeded', message: 'refused', status: 400 }),
    rate: flat(429, { code: 'too_many_requests', message: 'refused', status: 429 }),
    overload: flat(503, { code: 'service_unavailable', message: 'refused', status: 503 }),
    invalid: flat(400, { code: 'invalid_param', message: 'refused', status: 400 }),
    model: flat(400, { code: 'app_unavailable', message: 'App unavailable, please check your app configurations.', status: 400 }),
  },
  bailian_app: {
    auth: flat(401, { code: 'InvalidApiKey', message: 'Invalid API-key provided.', request_id: 'sbx' }),
    balance: flat(400, { code: 'Arrearage', message: 'refused', request_id: 'sbx' }),
    content: flat(400, { code: 'DataInspectionFailed', message: 'refused', request_id: 'sbx' }),
    rate: flat(429, { code: 'Throttling.RateQuota', message: 'refused', request_id: 'sbx' }),
    invalid: flat(400, { code: 'InvalidParameter', message: 'refused', request_id: 'sbx' }),
  },
  ragflow: {
    auth: flat(200, { code: 109, data: false, message: 'Authentication error: API key is invalid!' }),
    invalid: flat(200, { code: 102, message: 'refused' }),
    model: flat(200, { code: 102, message: "You don't own the chat none" }),
    overload: flat(200, { code: 100, data: null, message: 'refused' }),
  },
  xinference: {
    auth: fast(401, 'Not authenticated'),
    rate: fast(429, 'busy'),
    invalid: fast(400, 'refused'),
    model: fast(400, 'Model not found in the model list'),
  },
}

/** A number outside of what a provider takes; both ends are allowed unless `open`. */
const outside = (chat: Members, name: string, least: number, most: number, open = false): boolean => {
  const value = chat[name]
  return typeof value === 'number' && (value < least || value > most || (open && (value === least || value === most)))
}
const modelOf = (chat: Members): string => String(chat['model'])
const isMembers = (value: unknown): value is Members => typeof value === 'object' && value !== null && !Array.isArray(value)
const turns = (chat: Members): Members[] =>
  (Array.isArray(chat['messages']) ? chat['messages'] : []).filter((turn) => isMembers(turn) && turn['role'] === 'assistant')
const lacksReasoning = (chat: Members): boolean =>
  turns(chat).some((turn) => Array.isArray(turn['tool_calls']) && !turn['reasoning_content'])
const hasReasoning = (chat: Members): boolean =>
  turns(chat).some((turn) => ['reasoning_content', 'reasoning', 'reasoning_details'].some((name) => turn[name] !== undefined))
const disables = (chat: Members): boolean => isMembers(chat['thinking']) && chat['thinking']['type'] === 'disabled'

const KNOWN_TO_FLASH_LITE =
  /^(model|messages|stream|stream_options|max_tokens|temperature|top_p|tools|tool_choice|stop|seed|n|user|sandbox)$/

/** What the providers are documented to refuse. */
const OBJECTIONS: Readonly<Record<string, Persona['objection']>> = {
  deepseek(chat) {
    const older = /reasoner|r1/i.test(modelOf(chat))
    if (older) return hasReasoning(chat) ? 'reasoning_content must not be in the input messages' : null
    return lacksReasoning(chat) ? 'The reasoning_content in the thinking mode must be passed back to the API.' : null
  },
  qwen(chat) {
    if (outside(chat, 'top_p', 0, 1, true)) return 'Range of top_p should be (0.0, 1.0)'
    if (outside(chat, 'temperature', 0, 1.999999999)) return "'temperature' must be in [0, 2)"
    return /^(qwq|qvq)/.test(modelOf(chat)) && chat['stream'] !== true ? 'This model only support stream mode' : null
  },
  zhipu(chat) {
    if (/^glm-5\.3$/.test(modelOf(chat)) && disables(chat)) return 'thinking cannot be disabled'
    const older = /^glm-(3|4-|4v|z1)|charglm/.test(modelOf(chat))
    return older && (outside(chat, 'temperature', 0.01, 0.99) || outside(chat, 'top_p', 0.01, 0.99)) ? 'out of range' : null
  },
  moonshot(chat) {
    const model = modelOf(chat)
    if (/^kimi-(k2\.[6-9]|k[3-9])/.test(model) && outside(chat, 'temperature', 1, 1))
      return 'invalid temperature: only 1 is allowed for this model'
    if (/^kimi-k[3-9]/.test(model) && disables(chat)) return 'thinking cannot be disabled'
    const thinks = /^kimi-(k2-thinking|k2\.[5-9]|k[3-9])/.test(model) && !disables(chat)
    return thinks && lacksReasoning(chat) ? 'thinking is enabled but reasoning_content is missing in assistant tool call message' : null
  },
  minimax(chat) {
    if (typeof chat['n'] === 'number' && chat['n'] > 1) return 'n must be 1'
    return outside(chat, 'temperature', 0.0001, 1) ? 'temperature must be in (0, 1]' : null
  },
  spark: (chat) => (outside(chat, 'temperature', 0.0001, 1) || outside(chat, 'top_k', 1, 6) ? 'out of range' : null),
  baichuan: (chat) => (outside(chat, 'temperature', 0, 1) ? 'temperature must be in [0, 1]' : null),
  sensenova(chat) {
    if (outside(chat, 'top_p', 0, 1, true)) return 'top_p must be in (0, 1)'
    if (!/Flash-Lite/.test(modelOf(chat))) return null
    return Object.keys(chat).every((name) => KNOWN_TO_FLASH_LITE.test(name)) && !hasReasoning(chat)
      ? null
      : 'Errors in message queue response'
  },
  siliconflow(chat) {
    if (typeof chat['max_tokens'] === 'number' && chat['max_tokens'] > 16_384) return 'max_tokens is too large'
    return chat['enable_thinking'] !== undefined && /Instruct|Coder|DeepSeek-R1/.test(modelOf(chat))
      ? 'enable_thinking is not supported'
      : null
  },
  ragflow(chat) {
    const messages = Array.isArray(chat['messages']) ? chat['messages'].filter(isMembers) : []
    if (messages.some(({ content }) => typeof content !== 'string')) return 'expected string or buffer'
    return messages.at(-1)?.['role'] === 'user' ? null : 'The last content of this conversation is not from user.'
  },
  hunyuan_native: (chat) => (hasReasoning(chat) ? 'ReasoningContent is not accepted' : null),
  qianfan_v1: (chat) => (outside(chat, 'temperature', 0.0001, 1) ? 'temperature must be in (0, 1]' : null),
}

/** Stream layouts by provider, where the name is another one. */
const LAYOUT_OF: Readonly<Record<string, PartialDirectives>> = {
  deepseek: { layout: 'deepseek' },
  qwen: { layout: 'qwen' },
  doubao: { layout: 'doubao' },
  qianfan: { layout: 'qianfan' },
  zhipu: { layout: 'zhipu' },
  moonshot: { layout: 'moonshot' },
  minimax: { layout: 'minimax' },
  spark: { layout: 'spark' },
  stepfun: { layout: 'stepfun' },
  baichuan: { layout: 'baichuan' },
  siliconflow: { layout: 'siliconflow' },
  vllm: { layout: 'vllm' },
  sglang: { layout: 'sglang' },
  mindie: { layout: 'mindie' },
  ollama: { layout: 'ollama' },
  hunyuan: {},
  yi: {},
  sensenova: {},
  zhinao360: {},
  xinference: {},
  dify: {},
  bailian: {},
  ragflow: { layout: 'ragflow' },
  sandbox: {},
}

/** Providers that can be played. */
export const PLAYED: readonly string[] = Object.keys(LAYOUT_OF)

/**
 * The provider that a request is for, by the path prefix `as/<provider>` or the directive `play`; null for none in particular.
 *
 * @param form the protocol in which it is spoken to, where that is not OpenAI's
 * @throws DirectiveError for a provider that is not known
 */
export function personaOf(prefix: string, played: string | null, form: string | null): Persona | null {
  const id = played ?? /(?:^|\/)as\/([\w-]+)$/.exec(prefix)?.[1] ?? null
  if (id === null) return null
  const directives = LAYOUT_OF[id]
  if (directives === undefined) throw new DirectiveError(`no provider "${id}" to play: one of ${PLAYED.join(', ')}`)
  const own = form !== null && ERRORS[form] !== undefined ? form : id
  return {
    id,
    directives,
    errors: { ...OPENAI_ERRORS, ...ERRORS[own] },
    objection: OBJECTIONS[form ?? id] ?? (() => null),
  }
}
