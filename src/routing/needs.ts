/** What a chat asks of the model that serves it. Pure. */

/** Members of a parsed chat body that say what it needs; anything may be in them. */
export interface AskedChat {
  readonly messages?: unknown
  readonly tools?: unknown
  readonly functions?: unknown
  readonly response_format?: unknown
}

export type Need = 'tools' | 'json' | 'vision' | 'audio' | 'video' | 'file'

/** Messages and parts looked at: more than these are taken to be like them. */
const MOST_MESSAGES = 1000
const MOST_PARTS = 200

const PART_NEEDS: ReadonlyMap<string, Need> = new Map([
  ['image_url', 'vision'],
  ['input_image', 'vision'],
  ['image', 'vision'],
  ['input_audio', 'audio'],
  ['audio_url', 'audio'],
  ['video_url', 'video'],
  ['video', 'video'],
  ['file', 'file'],
  ['input_file', 'file'],
])

/** What it needs beyond text, in a fixed order. */
export function needsOf({ messages, tools, functions, response_format }: AskedChat): readonly Need[] {
  const needs = new Set<Need>()
  if ((Array.isArray(tools) && tools.length > 0) || (Array.isArray(functions) && functions.length > 0)) needs.add('tools')
  if (typeof response_format === 'object' && response_format !== null && 'type' in response_format && response_format.type !== 'text')
    needs.add('json')
  if (Array.isArray(messages)) for (const message of messages.slice(0, MOST_MESSAGES)) addNeeds(message, needs)
  return ORDER.filter((need) => needs.has(need))
}

const ORDER: readonly Need[] = ['tools', 'json', 'vision', 'audio', 'video', 'file']

function addNeeds(message: unknown, needs: Set<Need>): void {
  if (typeof message !== 'object' || message === null || !('content' in message) || !Array.isArray(message.content)) return
  for (const part of message.content.slice(0, MOST_PARTS) as readonly unknown[]) {
    if (typeof part !== 'object' || part === null || !('type' in part) || typeof part.type !== 'string') continue
    const need = PART_NEEDS.get(part.type)
    if (need !== undefined) needs.add(need)
  }
}

/**
 * The first need that a model does not meet, or null. A model of which no capability is known is taken to serve text alone.
 *
 * @param capabilities as the catalogue has them
 */
export function unmetNeed(needs: readonly Need[], capabilities: readonly string[]): Need | null {
  return needs.find((need) => !capabilities.includes(need)) ?? null
}
