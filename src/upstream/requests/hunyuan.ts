import { isFields } from '../dialects/openai-usage.ts'
import { contentText, functionsOf, messagesOf, partsOf, pastCalls, renamed, reportDropped } from './messages.ts'
import type { NativeRequest } from './native.ts'

type Fields = Readonly<Record<string, unknown>>

/** A chat request as Tencent Cloud's own API takes it. It has no cap of output tokens, and refuses reasoning of earlier turns. */
export function hunyuanBody({ chat, upstream_model, stream, cap, report }: NativeRequest): Fields {
  const Tools = functionsOf(chat).map(({ name, description, parameters }) => ({
    Type: 'function',
    // Parameters are a text here.
    Function: { Name: name, Description: description ?? '', Parameters: JSON.stringify(parameters ?? { type: 'object', properties: {} }) },
  }))
  if (cap !== null) report('max_tokens', 'dropped')
  reportDropped(chat, ['n', 'logit_bias', 'logprobs', 'presence_penalty', 'frequency_penalty', 'response_format'], report)
  return {
    Model: upstream_model,
    Messages: messagesOf(chat).map(messageOf),
    Stream: stream,
    ...renamed(chat, { temperature: 'Temperature', top_p: 'TopP', seed: 'Seed' }),
    ...(chat['stop'] === undefined || chat['stop'] === null ? {} : { Stop: [chat['stop']].flat() }),
    ...(typeof chat['enable_thinking'] === 'boolean' ? { EnableThinking: chat['enable_thinking'] } : {}),
    ...(Tools.length === 0 ? {} : { Tools, ...choiceOf(chat['tool_choice'], Tools) }),
  }
}

function messageOf(message: Fields): Fields {
  const role = message['role'] === 'developer' ? 'system' : message['role']
  const parts = partsOf(message)
  const images = parts.some((part) => 'image_url' in part)
  const calls = pastCalls(message)
  return {
    Role: role,
    ...(images ? { Contents: parts.map(partOf) } : { Content: contentText(message) }),
    ...(role === 'tool' ? { ToolCallId: message['tool_call_id'] } : {}),
    ...(calls.length === 0
      ? {}
      : { ToolCalls: calls.map((call) => ({ Id: call.id, Type: 'function', Function: { Name: call.name, Arguments: call.arguments } })) }),
  }
}

function partOf(part: { readonly text: string } | { readonly image_url: string }): Fields {
  return 'text' in part ? { Type: 'text', Text: part.text } : { Type: 'image_url', ImageUrl: { Url: part.image_url } }
}

function choiceOf(choice: unknown, tools: readonly Fields[]): Fields {
  if (choice === 'none' || choice === 'auto') return { ToolChoice: choice }
  const named = isFields(choice) && isFields(choice['function']) ? choice['function']['name'] : undefined
  const wanted = tools.find((tool) => isFields(tool['Function']) && tool['Function']['Name'] === named)
  const tool = choice === 'required' ? tools[0] : wanted
  return tool === undefined ? {} : { ToolChoice: 'custom', CustomTool: tool }
}
