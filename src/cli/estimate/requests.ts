/** What a line of a file of prompts asks for. Pure. */
import { domainNamed } from '../../routing/domains.ts'
import type { Need } from '../../routing/needs.ts'
import { needsOf } from '../../routing/needs.ts'
import { promptOf, type RoutedPrompt } from '../../routing/prompt.ts'
import type { ChatPrompt } from '../../money/estimate.ts'
import { intentOf, type ThinkingIntent } from '../../upstream/requests/thinking.ts'

/** One request as far as its price and its route depend on it. */
export interface EstimatedRequest {
  readonly chat: ChatPrompt
  readonly prompt: RoutedPrompt
  readonly needs: readonly Need[]
  /** Answers asked for. */
  readonly choices: number
  /** The caller's cap of one answer; null where it gives none. */
  readonly max_tokens: number | null
  readonly thinking: ThinkingIntent['mode']
  /** The caller's own word on its domain; null where it says none. */
  readonly hint: string | null
}

type Members = Readonly<Record<string, unknown>>
export type ReadLine = { readonly ok: true; readonly request: EstimatedRequest } | { readonly ok: false; readonly why: string }

const LARGEST_CHOICES = 128
const LARGEST_CAP = 10_000_000
const BYTE_ORDER_MARK = /^\ufeff/

/**
 * Reads one line: a chat body, a line of an OpenAI batch file, an object with `text` or `prompt`, a JSON string, or a text as it is. A line
 * that begins like JSON (`{`, `[` or `"`) must be JSON. Null for a line without anything in it.
 */
export function readLine(bytes: Buffer): ReadLine | null {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes).replace(BYTE_ORDER_MARK, '').trim()
  } catch (error) {
    if (error instanceof TypeError) return refused('is not UTF-8')
    throw error
  }
  if (text === '') return null
  if (!/^[{["]/.test(text)) return asking({ messages: [{ role: 'user', content: text }] })
  try {
    return valueAsked(JSON.parse(text))
  } catch (error) {
    if (error instanceof SyntaxError) return refused('is not JSON')
    throw error
  }
}

function refused(why: string): ReadLine {
  return { ok: false, why }
}

function valueAsked(value: unknown): ReadLine {
  if (typeof value === 'string') return textAsked(value, {})
  if (!isMembers(value)) return refused('is a list, where an object or a text was expected')
  const body = isMembers(value['body']) ? value['body'] : value
  const { messages, text, prompt } = body
  if (Array.isArray(messages))
    return messages.length === 0 ? refused('has no messages') : asking({ ...body, messages: messages as unknown[] })
  const given = [text, prompt].find((one) => typeof one === 'string')
  return typeof given === 'string' ? textAsked(given, body) : refused('has no messages, text or prompt')
}

function textAsked(text: string, body: Members): ReadLine {
  return text.trim() === '' ? refused('has an empty text') : asking({ ...body, messages: [{ role: 'user', content: text }] })
}

function asking(body: Members & { readonly messages: readonly unknown[] }): ReadLine {
  const { messages, tools, functions, response_format, metadata } = body
  const caps = [body['max_tokens'], body['max_completion_tokens']].flatMap((cap) => whole(cap, LARGEST_CAP) ?? [])
  const said = isMembers(metadata) ? metadata['domain'] : null
  const chat = { messages, tools, functions, response_format }
  const request: EstimatedRequest = {
    chat,
    prompt: promptOf(messages),
    needs: needsOf(chat),
    choices: whole(body['n'], LARGEST_CHOICES) ?? 1,
    max_tokens: caps.length === 0 ? null : Math.max(...caps),
    thinking: intentOf(body)?.mode ?? null,
    hint: typeof said === 'string' ? domainNamed(said) : null,
  }
  return { ok: true, request }
}

function whole(value: unknown, most: number): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= most ? value : null
}

function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
