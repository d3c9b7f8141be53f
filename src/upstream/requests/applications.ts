import { isFields } from '../dialects/openai-usage.ts'
import { UpstreamFailure } from '../failure.ts'
import { contentText, messagesOf, partsOf, renamed, reportDropped, splitSystem } from './messages.ts'
import type { NativeRequest } from './native.ts'

/**
 * Requests to applications, which have a prompt, tools and knowledge of their own. A conversation is what is in the request: nothing is
 * kept at the application from one to the next.
 */
type Fields = Readonly<Record<string, unknown>>

/** What an application decides by itself. */
const NOT_ASKED = [
  ...['tools', 'tool_choice', 'functions', 'response_format', 'temperature', 'top_p', 'max_tokens', 'max_completion_tokens', 'stop'],
  ...['seed', 'presence_penalty', 'frequency_penalty', 'logit_bias', 'logprobs', 'reasoning_effort', 'enable_thinking', 'thinking'],
] as const

/** Dify counts its requests by user and refuses those without one. */
const NOBODY = 'weir'

/** A chat request as Dify's `POST /chat-messages` takes it: one question, with what was said before in front of it. */
export function difyBody({ chat, stream, report }: NativeRequest): Fields {
  reportDropped(chat, NOT_ASKED, report)
  const files = imagesOf(messagesOf(chat)).map((url) => ({ type: 'image', transfer_method: 'remote_url', url }))
  return {
    inputs: isFields(chat['inputs']) ? chat['inputs'] : {},
    query: questionOf(messagesOf(chat)),
    response_mode: stream ? 'streaming' : 'blocking',
    user: typeof chat['user'] === 'string' && chat['user'] !== '' ? chat['user'] : NOBODY,
    conversation_id: '',
    auto_generate_name: false,
    ...(files.length === 0 ? {} : { files }),
  }
}

/** A chat request as an application of Alibaba Cloud Model Studio takes it; which one is in the path. */
export function bailianAppBody({ chat, stream, report }: NativeRequest): Fields {
  const passed = ['temperature', 'top_p', 'top_k', 'seed', 'has_thoughts', 'enable_thinking', 'thinking_budget']
  reportDropped(
    chat,
    NOT_ASKED.filter((name) => !passed.includes(name)),
    report,
  )
  const images = imagesOf(messagesOf(chat))
  return {
    input: {
      messages: turnsOf(messagesOf(chat)),
      ...renamed(chat, { biz_params: 'biz_params' }),
      ...(images.length === 0 ? {} : { image_list: images }),
    },
    parameters: {
      ...renamed(chat, Object.fromEntries(passed.map((name) => [name, name]))),
      ...(stream ? { incremental_output: true } : {}),
    },
    debug: {},
  }
}

/**
 * A chat request as RAGFlow takes it: in OpenAI's form, with contents that are texts, and the system's words in front of the first
 * question, since its server leaves system messages out.
 */
export function ragflowBody({ chat, upstream_model, stream, report }: NativeRequest): Fields {
  reportDropped(chat, NOT_ASKED, report)
  if (imagesOf(messagesOf(chat)).length > 0) throw notTaken('images')
  const { system, others } = splitSystem(messagesOf(chat))
  const turns = turnsOf(others)
  const first = turns.findIndex(({ role }) => role === 'user')
  const messages = turns.map((turn, index) =>
    index === first && system !== '' ? { ...turn, content: `${system}\n\n${String(turn['content'])}` } : turn,
  )
  return { model: upstream_model, messages, stream, ...renamed(chat, { extra_body: 'extra_body' }) }
}

function notTaken(what: string): UpstreamFailure {
  return new UpstreamFailure('unsupported', { provider_message: `this application takes no ${what}`, unsent: true })
}

/** Turns with their roles and texts; results of tools are the user's words, because nothing was called here. */
function turnsOf(messages: readonly Fields[]): readonly Fields[] {
  return messages
    .map((message) => ({ role: ROLES[String(message['role'])] ?? 'user', content: contentText(message) }))
    .filter(({ content }) => content !== '')
}

const ROLES: Readonly<Record<string, string>> = { system: 'system', developer: 'system', assistant: 'assistant' }
const SPEAKERS: Readonly<Record<string, string>> = { assistant: 'Assistant', system: 'System' }

/** The last question, after everything that was said before it. One question alone stays as it is. */
function questionOf(messages: readonly Fields[]): string {
  const turns = turnsOf(messages)
  const last = turns.at(-1)
  if (last === undefined) throw notTaken('request without a text')
  const { system, others } = splitSystem(turns.slice(0, -1))
  const said = others.map(({ role, content }) => `${SPEAKERS[String(role)] ?? 'User'}: ${String(content)}`)
  const question = said.length === 0 ? String(last['content']) : `User: ${String(last['content'])}`
  return [...(system === '' ? [] : [system]), ...said, question].join('\n\n')
}

/** Addresses of images. @throws UpstreamFailure `unsupported` for images that would have to be uploaded first */
function imagesOf(messages: readonly Fields[]): readonly string[] {
  const images = messages.flatMap(partsOf).flatMap((part) => ('image_url' in part ? [part.image_url] : []))
  if (images.some((url) => !/^https?:\/\//i.test(url))) throw notTaken('images but by their address')
  return images
}
