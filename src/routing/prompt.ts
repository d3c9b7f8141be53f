/** What routing reads of a chat: its system prompt and its user's turns, within limits, whatever the messages hold. Pure. */
import type { DomainInput } from './features.ts'

/** Messages looked at from the end, and from the beginning. */
const LATEST_MESSAGES = 40
const FIRST_MESSAGES = 20
/** UTF-16 code units kept of each text: as many as anything here reads. */
const MOST_TEXT = 2000
const USER_TURNS = 3

export interface RoutedPrompt extends DomainInput {
  /** The first turn of the conversation: with the system prompt it stays the same from turn to turn. */
  readonly opening: string | null
}

/** @param messages as `JSON.parse` has them; anything may be in them */
export function promptOf(messages: unknown): RoutedPrompt {
  const list: readonly unknown[] = Array.isArray(messages) ? messages : []
  const start = list.slice(0, FIRST_MESSAGES)
  const system = start.find((message) => roleOf(message) === 'system' || roleOf(message) === 'developer')
  const opening = start.find((message) => roleOf(message) === 'user')
  const turns = list
    .slice(-LATEST_MESSAGES)
    .filter((message) => roleOf(message) === 'user')
    .slice(-USER_TURNS)
    .map(textOf)
  return { system: system === undefined ? null : textOf(system), turns, opening: opening === undefined ? null : textOf(opening) }
}

function roleOf(message: unknown): string | null {
  if (typeof message !== 'object' || message === null || !('role' in message)) return null
  return typeof message.role === 'string' ? message.role : null
}

/** The text of a message: what is longer than the limit keeps its beginning and its end. */
function textOf(message: unknown): string {
  const content: unknown = typeof message === 'object' && message !== null && 'content' in message ? message.content : null
  if (typeof content === 'string') return shortened(content)
  if (!Array.isArray(content)) return ''
  return shortened(content.slice(0, LATEST_MESSAGES).map(partText).join('\n'))
}

function partText(part: unknown): string {
  const text: unknown = typeof part === 'object' && part !== null && 'text' in part ? part.text : null
  return typeof text === 'string' ? shortened(text) : ''
}

function shortened(text: string): string {
  if (text.length <= MOST_TEXT) return text
  return `${text.slice(0, MOST_TEXT / 2)} ${text.slice(-MOST_TEXT / 2)}`
}
