import { RequestError } from './answer.ts'

type Members = Readonly<Record<string, unknown>>

/** Protocols of chat that the sandbox speaks beside OpenAI's. */
export const FORMS = ['anthropic', 'qwen_native', 'hunyuan_native', 'qianfan_v1', 'dify', 'bailian_app'] as const
export type Form = (typeof FORMS)[number]

const isMembers = (value: unknown): value is Members => typeof value === 'object' && value !== null && !Array.isArray(value)
const list = (value: unknown): Members[] => (Array.isArray(value) ? value.filter(isMembers) : [])

/**
 * A request of another protocol as the OpenAI request that means the same, so that it is answered and counted the same.
 *
 * @param model from the path, where the protocol has it there
 * @throws RequestError for what the protocol does not allow
 */
export function readForm(form: Form, body: unknown, model: string | null): Members {
  if (!isMembers(body)) throw new RequestError('The body must be a JSON object.', null)
  switch (form) {
    case 'anthropic':
      return readAnthropic(body)
    case 'qwen_native':
      return readQwen(body)
    case 'hunyuan_native':
      return readHunyuan(body)
    case 'qianfan_v1':
      return readQianfan(body, model)
    case 'dify':
      return readDify(body)
    case 'bailian_app':
      return readBailianApp(body, model)
  }
}

function readAnthropic(body: Members): Members {
  if (typeof body['max_tokens'] !== 'number') throw new RequestError('max_tokens: Field required', 'max_tokens')
  const messages = list(body['messages'])
  messages.forEach((message, index) => {
    if (index > 0 && message['role'] === messages[index - 1]?.['role']) throw new RequestError('roles must alternate', 'messages')
  })
  checkResults(messages)
  const system = typeof body['system'] === 'string' ? [{ role: 'system', content: body['system'] }] : []
  const tools = list(body['tools']).map(({ name, description, input_schema }) => ({
    type: 'function',
    function: { name, description, parameters: input_schema },
  }))
  return {
    ...body,
    messages: [...system, ...messages.flatMap(fromBlocks)],
    ...(tools.length === 0 ? {} : { tools }),
    ...(isMembers(body['tool_choice']) ? { tool_choice: CHOICES[String(body['tool_choice']['type'])] ?? 'auto' } : {}),
    ...(body['stop_sequences'] === undefined ? {} : { stop: body['stop_sequences'] }),
  }
}

const CHOICES: Readonly<Record<string, string>> = { any: 'required', none: 'none' }

/** Every result answers a call of the turn before. */
function checkResults(messages: readonly Members[]): void {
  for (const [index, message] of messages.entries()) {
    const called = list(messages[index - 1]?.['content']).filter(({ type }) => type === 'tool_use')
    for (const { type, tool_use_id } of list(message['content'])) {
      if (type !== 'tool_result' || called.some(({ id }) => id === tool_use_id)) continue
      throw new RequestError(`unexpected tool_use_id ${String(tool_use_id)}`, 'messages')
    }
  }
}

function fromBlocks({ role, content }: Members): Members[] {
  if (typeof content === 'string') return [{ role, content }]
  const blocks = list(content)
  const text = blocks
    .filter(({ type }) => type === 'text')
    .map((block) => String(block['text']))
    .join('')
  const calls = blocks
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, name, input }) => ({ id, type: 'function', function: { name, arguments: JSON.stringify(input) } }))
  const results = blocks
    .filter(({ type }) => type === 'tool_result')
    .map((block) => ({ role: 'tool', tool_call_id: block['tool_use_id'], content: block['content'] }))
  const said = calls.length > 0 ? [{ role, content: text, tool_calls: calls }] : text !== '' ? [{ role, content: text }] : []
  return [...results, ...said]
}

function readQwen(body: Members): Members {
  const input = isMembers(body['input']) ? body['input'] : {}
  const parameters = isMembers(body['parameters']) ? body['parameters'] : {}
  return { ...parameters, model: body['model'], messages: input['messages'] }
}

function readHunyuan(body: Members): Members {
  const messages = list(body['Messages']).map((message) => ({
    role: message['Role'],
    content: message['Content'],
    ...(message['ReasoningContent'] === undefined ? {} : { reasoning_content: message['ReasoningContent'] }),
    ...(message['ToolCallId'] === undefined ? {} : { tool_call_id: message['ToolCallId'] }),
    ...(message['ToolCalls'] === undefined ? {} : { tool_calls: list(message['ToolCalls']).map(fromPascalCall) }),
  }))
  const tools = list(body['Tools']).map(({ Function: made }) => {
    const { Name, Description, Parameters } = isMembers(made) ? made : {}
    if (typeof Parameters !== 'string') throw new RequestError('Parameters must be a JSON text', 'Tools')
    return { type: 'function', function: { name: Name, description: Description, parameters: JSON.parse(Parameters) as unknown } }
  })
  const forced = body['ToolChoice'] === 'custom' ? 'required' : body['ToolChoice']
  return {
    ...{
      model: body['Model'],
      messages,
      stream: body['Stream'],
      temperature: body['Temperature'],
      top_p: body['TopP'],
      stop: body['Stop'],
    },
    ...(tools.length === 0 ? {} : { tools, tool_choice: forced ?? 'auto' }),
  }
}

function fromPascalCall({ Id, Function: made }: Members): Members {
  const { Name, Arguments } = isMembers(made) ? made : {}
  return { id: Id, type: 'function', function: { name: Name, arguments: Arguments } }
}

function readQianfan(body: Members, model: string | null): Members {
  const messages = list(body['messages'])
  if (messages.length % 2 === 0) throw new RequestError('messages must be odd in number', 'messages')
  const system = typeof body['system'] === 'string' ? [{ role: 'system', content: body['system'] }] : []
  const tools = list(body['functions']).map((made) => ({ type: 'function', function: made }))
  return {
    ...body,
    model,
    messages: [...system, ...messages.map(fromFunctionTurn)],
    ...(tools.length === 0 ? {} : { tools }),
    ...(body['max_output_tokens'] === undefined ? {} : { max_tokens: body['max_output_tokens'] }),
  }
}

/** Dify takes one question, and nothing that would make it another application. */
function readDify(body: Members): Members {
  const { query, user, inputs, response_mode } = body
  if (typeof query !== 'string' || query === '') throw new RequestError('query is required', 'query')
  if (typeof user !== 'string' || user === '') throw new RequestError('user is required', 'user')
  if (!isMembers(inputs)) throw new RequestError('inputs is required', 'inputs')
  if (response_mode !== 'blocking' && response_mode !== 'streaming') throw new RequestError('response_mode is not valid', 'response_mode')
  return { model: 'dify-app', messages: [{ role: 'user', content: query }], stream: response_mode === 'streaming' }
}

function readBailianApp(body: Members, model: string | null): Members {
  const input = isMembers(body['input']) ? body['input'] : {}
  const parameters = isMembers(body['parameters']) ? body['parameters'] : {}
  const messages = input['messages'] ?? (typeof input['prompt'] === 'string' ? [{ role: 'user', content: input['prompt'] }] : undefined)
  return { ...parameters, model, messages }
}

function fromFunctionTurn(message: Members): Members {
  const { role, name, content, function_call } = message
  if (role === 'function') return { role: 'tool', tool_call_id: name, content }
  if (!isMembers(function_call)) return { role, content }
  return { role, content, tool_calls: [{ id: function_call['name'], type: 'function', function: function_call }] }
}
