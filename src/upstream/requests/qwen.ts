import type { NativeRequest } from './native.ts'

type Fields = Readonly<Record<string, unknown>>

/** Members of DashScope's `parameters` that have OpenAI's names. */
const PARAMETERS = [
  ...['temperature', 'top_p', 'top_k', 'seed', 'stop', 'n', 'presence_penalty', 'repetition_penalty', 'response_format', 'logprobs'],
  ...[
    'top_logprobs',
    'tools',
    'tool_choice',
    'parallel_tool_calls',
    'enable_thinking',
    'thinking_budget',
    'enable_search',
    'search_options',
  ],
] as const

/** A chat request as DashScope's own API takes it. */
export function qwenBody({ chat, upstream_model, stream, cap }: NativeRequest): Fields {
  const given = PARAMETERS.filter((name) => chat[name] !== undefined && chat[name] !== null)
  return {
    model: upstream_model,
    input: { messages: chat['messages'] },
    parameters: {
      result_format: 'message',
      ...(stream ? { incremental_output: true } : {}),
      ...Object.fromEntries(given.map((name) => [name, chat[name]])),
      ...(cap === null ? {} : { max_tokens: cap }),
    },
  }
}
