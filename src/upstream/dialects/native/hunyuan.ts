import { isFields } from '../openai-usage.ts'
import type { NativeProtocol, NativeStep } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * Tencent Cloud's own API: members in PascalCase, cumulative usage with every chunk, counts of cached tokens as text, no `[DONE]`;
 * an answer that is not streamed is inside `Response`. Source: tencentcloud-sdk-nodejs, hunyuan models, as of 2026.
 */
export const hunyuan: NativeProtocol = {
  recognises: (value) => Array.isArray(inside(value)['Choices']),
  reader: () => ({ read: (value) => step(inside(value)) }),
  whole(value) {
    const answer = inside(value)
    const choices = choicesOf(answer).map((choice, position) => ({
      index: choice['Index'] ?? position,
      message: textsOf(choice['Message'] ?? choice['Delta']),
      finish_reason: choice['FinishReason'] ?? null,
    }))
    return { ...identityOf(answer), object: 'chat.completion', model: '', choices, usage: usageOf(answer) ?? undefined }
  },
}

function step(answer: Fields): NativeStep {
  const choices = choicesOf(answer).map((choice, position) => ({
    index: choice['Index'] ?? position,
    delta: textsOf(choice['Delta'] ?? choice['Message']),
    finish_reason: choice['FinishReason'] ?? null,
  }))
  return { chunks: choices.length === 0 ? [] : [{ ...identityOf(answer), choices }], usage: usageOf(answer), done: false }
}

function inside(value: Fields): Fields {
  return isFields(value['Response']) ? value['Response'] : value
}

function choicesOf({ Choices }: Fields): readonly Fields[] {
  return Array.isArray(Choices) ? Choices.filter(isFields) : []
}

function textsOf(text: unknown): Fields {
  if (!isFields(text)) return {}
  const calls = text['ToolCalls']
  return {
    ...(typeof text['Role'] === 'string' ? { role: text['Role'] } : {}),
    ...(typeof text['Content'] === 'string' ? { content: text['Content'] } : {}),
    ...(typeof text['ReasoningContent'] === 'string' && text['ReasoningContent'] !== ''
      ? { reasoning_content: text['ReasoningContent'] }
      : {}),
    ...(Array.isArray(calls) && calls.length > 0 ? { tool_calls: calls.filter(isFields).map(callOf) } : {}),
  }
}

function callOf({ Index, Id, Type, Function: made }: Fields): Fields {
  const named = isFields(made) ? made : {}
  return {
    ...(Index === undefined ? {} : { index: Index }),
    id: Id,
    type: Type,
    function: { ...(named['Name'] === undefined ? {} : { name: named['Name'] }), arguments: named['Arguments'] ?? '' },
  }
}

function identityOf({ Id, Created }: Fields): Fields {
  return { ...(typeof Id === 'string' ? { id: Id } : {}), ...(typeof Created === 'number' ? { created: Created } : {}) }
}

function usageOf({ Usage }: Fields): Fields | null {
  if (!isFields(Usage)) return null
  const details = isFields(Usage['PromptTokensDetails']) ? Usage['PromptTokensDetails'] : {}
  const thought = isFields(Usage['CompletionTokensDetails']) ? Usage['CompletionTokensDetails'] : {}
  return {
    prompt_tokens: Usage['PromptTokens'],
    completion_tokens: Usage['CompletionTokens'],
    total_tokens: Usage['TotalTokens'],
    prompt_tokens_details: { cached_tokens: details['CachedTokens'] },
    completion_tokens_details: { reasoning_tokens: thought['ReasoningTokens'] },
  }
}
