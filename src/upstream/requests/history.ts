import { ObjectEdits } from '../../base/json-edits.ts'
import { arrayElements } from '../../base/json-spans.ts'
import type { Edit, JsonLimits, MemberSpan } from '../../base/json-spans.ts'
import { readText } from '../dialects/answer-text.ts'
import { isFields } from '../dialects/openai-usage.ts'
import type { RequestRules } from '../providers/provider.ts'
import type { HistoryView } from './view.ts'

type Fields = Readonly<Record<string, unknown>>

const MAX_MESSAGES = 10_000
const LIMITS: JsonLimits = { max_depth: 1024, max_members: MAX_MESSAGES }
const REASONING_NAMES = ['reasoning_content', 'reasoning', 'reasoning_details'] as const

/** Where a target must have reasoning and the turn came from one that gave none. It may not be empty everywhere. */
const NO_REASONING = ' '

/** What earlier turns carry. Looks at assistant turns only, and no further than their own members. */
export function viewHistory(messages: unknown): HistoryView {
  let [reasoning, calls_without_reasoning] = [false, false]
  for (const message of Array.isArray(messages) ? messages : []) {
    if (!isFields(message) || message['role'] !== 'assistant') continue
    reasoning ||= REASONING_NAMES.some((name) => message[name] !== undefined)
    calls_without_reasoning ||= hasCalls(message) && !message['reasoning_content']
  }
  return { reasoning, calls_without_reasoning }
}

function hasCalls({ tool_calls }: Fields): boolean {
  return Array.isArray(tool_calls) && tool_calls.length > 0
}

/**
 * The edits that make earlier turns what a target takes, whoever answered them.
 *
 * @param body the request
 * @param messages its member of that name
 * @throws JsonSpanError
 */
export function historyEdits(body: Buffer, messages: MemberSpan, policy: RequestRules['history']): Edit[] {
  const edits: Edit[] = []
  for (const { start, end } of arrayElements(body, messages.value_start, LIMITS)) {
    const message: unknown = JSON.parse(body.toString('utf8', start, end))
    if (!isFields(message) || message['role'] !== 'assistant') continue
    const object = new ObjectEdits(body, start, LIMITS)
    adaptTurn(message, object, policy)
    object.finish(edits)
  }
  return edits
}

function adaptTurn(message: Fields, object: ObjectEdits, policy: RequestRules['history']): void {
  if (policy === 'remove') for (const name of REASONING_NAMES) object.remove(name)
  if (policy === 'tool_calls' && hasCalls(message) && !message['reasoning_content']) {
    object.set('reasoning_content', JSON.stringify(reasoningOf(message) || NO_REASONING))
  }
  if (policy === 'details' && message['reasoning_details'] === undefined && reasoningOf(message) !== '') {
    const detail = { type: 'reasoning.text', id: 'reasoning-text-1', format: 'MiniMax-response-v1', index: 0, text: reasoningOf(message) }
    object.append('reasoning_details', JSON.stringify([detail]))
  }
}

/** The reasoning of a turn under whichever name. */
export function reasoningOf(message: Fields): string {
  return readText(message).reasoning
}
