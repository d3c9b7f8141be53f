import { textIn } from '../dialects/answer-text.ts'
import { isFields } from '../dialects/openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** The messages of a chat request; what is no object is left out. */
export function messagesOf(chat: Fields): readonly Fields[] {
  return Array.isArray(chat['messages']) ? chat['messages'].filter(isFields) : []
}

/** A message's text, also of content in parts. */
export function contentText(message: Fields): string {
  return textIn(message['content'])
}

/** System and developer messages as one text, and the others. */
export function splitSystem(messages: readonly Fields[]): { readonly system: string; readonly others: readonly Fields[] } {
  const isSystem = ({ role }: Fields): boolean => role === 'system' || role === 'developer'
  const system = messages.filter(isSystem).map(contentText).join('\n\n')
  return { system, others: messages.filter((message) => !isSystem(message)) }
}

/** A tool call of an earlier turn. */
export interface PastCall {
  readonly id: string
  readonly name: string
  readonly arguments: string
}

export function pastCalls(message: Fields): readonly PastCall[] {
  if (!Array.isArray(message['tool_calls'])) return []
  return message['tool_calls'].filter(isFields).map((call) => {
    const made = isFields(call['function']) ? call['function'] : {}
    const given = made['arguments']
    return {
      id: textOf(call['id']),
      name: textOf(made['name']),
      arguments: typeof given === 'string' ? given : JSON.stringify(given ?? {}),
    }
  })
}

/** A text or a number as text; anything else is none. */
export function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}

/** Functions that may be called. */
export function functionsOf(chat: Fields): readonly Fields[] {
  if (!Array.isArray(chat['tools'])) return []
  return chat['tools'].filter(isFields).flatMap((tool) => (isFields(tool['function']) ? [tool['function']] : []))
}

/** The parts of a message's content: text, and images by their URL. */
export function partsOf(message: Fields): readonly ({ readonly text: string } | { readonly image_url: string })[] {
  const content = message['content']
  if (!Array.isArray(content)) return [{ text: contentText(message) }]
  return content.filter(isFields).map((part) => {
    const image = isFields(part['image_url']) ? part['image_url']['url'] : part['image_url']
    return typeof image === 'string' ? { image_url: image } : { text: textIn(part) }
  })
}

/** Members that are given, under other names. */
export function renamed(chat: Fields, names: Readonly<Record<string, string>>): Fields {
  const found = Object.entries(names).filter(([name]) => chat[name] !== undefined && chat[name] !== null)
  return Object.fromEntries(found.map(([name, other]) => [other, chat[name]]))
}

/** Says of members that were given and have no word in the protocol that they were left out. */
export function reportDropped(chat: Fields, names: readonly string[], report: (name: string, value: string) => void): void {
  for (const name of names) if (chat[name] !== undefined && chat[name] !== null) report(name, 'dropped')
}
