import { arrayElements, keyIs, objectMembers, removeMembers } from '../../base/json-spans.ts'
import type { Edit, ElementSpan, JsonLimits, MemberSpan } from '../../base/json-spans.ts'
import { isFields } from './openai-usage.ts'

/** Deepest JSON accepted from an upstream. */
export const ANSWER_LIMITS: JsonLimits = { max_depth: 512 }

const QUOTE = 0x22
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b

const ZERO = Buffer.from('0')
const NULL = Buffer.from('null')
const OPEN_ARRAY = Buffer.from('[')
const CLOSE_ARRAY = Buffer.from(']')
const FIRST_INDEX = Buffer.from('"index":0,')
const ONLY_INDEX = Buffer.from('"index":0')

/** What the client is to see instead of what the upstream says. */
export interface ChunkPlan {
  /** The model name as JSON. */
  readonly model: Buffer
  readonly usage_asked: boolean
}

/**
 * The edits that make a chunk what the client is to see: model name, usage that was not asked for, and the named repairs
 * (`finish_reason_empty`, `choice_index`, `tool_call_index`, `tool_calls_object`), which are added to `repairs`.
 *
 * @param data the chunk's JSON
 * @param chunk the same, parsed
 * @throws JsonSpanError
 */
export function chunkEdits(data: Buffer, chunk: Readonly<Record<string, unknown>>, plan: ChunkPlan, repairs: Set<string>): Edit[] {
  const members = objectMembers(data, 0, ANSWER_LIMITS)
  const edits: Edit[] = []
  const removed: number[] = []
  const deep = Array.isArray(chunk['choices']) && chunk['choices'].some((choice) => needsEdit(choice, plan))
  for (let index = 0; index < members.length; index++) {
    const member = members[index]
    if (member === undefined) continue
    if (keyIs(data, member, 'model')) {
      if (data[member.value_start] === QUOTE) edits.push(replaceValue(member, plan.model))
    } else if (!plan.usage_asked && keyIs(data, member, 'usage')) {
      removed.push(index)
    } else if (deep && data[member.value_start] === OPEN_BRACKET && keyIs(data, member, 'choices')) {
      for (const choice of arrayElements(data, member.value_start, ANSWER_LIMITS)) choiceEdits(data, choice, plan, repairs, edits)
    }
  }
  if (removed.length > 0) edits.push(...removeMembers(members, removed))
  return edits
}

/** Only the model name of a whole answer. */
export function modelEdits(body: Buffer, model: Buffer): Edit[] {
  return objectMembers(body, 0, ANSWER_LIMITS)
    .filter((member) => body[member.value_start] === QUOTE && keyIs(body, member, 'model'))
    .map((member) => replaceValue(member, model))
}

function needsEdit(choice: unknown, plan: ChunkPlan): boolean {
  if (!isFields(choice)) return false
  if (choice['index'] === -1 || choice['finish_reason'] === '') return true
  if (!plan.usage_asked && choice['usage'] !== undefined) return true
  const delta = choice['delta']
  if (!isFields(delta)) return false
  const calls = delta['tool_calls']
  if (Array.isArray(calls)) return calls.some((call) => isFields(call) && call['index'] === -1)
  return isFields(calls)
}

function choiceEdits(data: Buffer, choice: ElementSpan, plan: ChunkPlan, repairs: Set<string>, edits: Edit[]): void {
  if (data[choice.start] !== OPEN_BRACE) return
  const members = objectMembers(data, choice.start, ANSWER_LIMITS)
  const removed: number[] = []
  for (const [index, member] of members.entries()) {
    if (!plan.usage_asked && keyIs(data, member, 'usage')) removed.push(index)
    else if (keyIs(data, member, 'index')) zeroIndex(data, member, 'choice_index', repairs, edits)
    else if (keyIs(data, member, 'finish_reason')) nullFinish(data, member, repairs, edits)
    else if (keyIs(data, member, 'delta')) deltaEdits(data, member, repairs, edits)
  }
  edits.push(...removeMembers(members, removed))
}

function deltaEdits(data: Buffer, delta: MemberSpan, repairs: Set<string>, edits: Edit[]): void {
  if (data[delta.value_start] !== OPEN_BRACE) return
  for (const member of objectMembers(data, delta.value_start, ANSWER_LIMITS)) {
    if (!keyIs(data, member, 'tool_calls')) continue
    const first = data[member.value_start]
    if (first === OPEN_BRACE) wrapToolCall(data, member, repairs, edits)
    if (first !== OPEN_BRACKET) continue
    for (const call of arrayElements(data, member.value_start, ANSWER_LIMITS)) indexEdits(data, call.start, repairs, edits)
  }
}

/** Spark gives the one tool call itself where an array of them belongs. */
function wrapToolCall(data: Buffer, member: MemberSpan, repairs: Set<string>, edits: Edit[]): void {
  repairs.add('tool_calls_object')
  const inside = objectMembers(data, member.value_start, ANSWER_LIMITS)
  const start = member.value_start
  edits.push({ start, end: start, replacement: OPEN_ARRAY })
  if (inside.some((field) => keyIs(data, field, 'index'))) {
    indexEdits(data, start, repairs, edits)
  } else {
    edits.push({ start: start + 1, end: start + 1, replacement: inside.length === 0 ? ONLY_INDEX : FIRST_INDEX })
  }
  edits.push({ start: member.value_end, end: member.value_end, replacement: CLOSE_ARRAY })
}

function indexEdits(data: Buffer, start: number, repairs: Set<string>, edits: Edit[]): void {
  if (data[start] !== OPEN_BRACE || data[start + 1] === CLOSE_BRACE) return
  for (const member of objectMembers(data, start, ANSWER_LIMITS)) {
    if (keyIs(data, member, 'index')) zeroIndex(data, member, 'tool_call_index', repairs, edits)
  }
}

function zeroIndex(data: Buffer, member: MemberSpan, repair: string, repairs: Set<string>, edits: Edit[]): void {
  if (Number(data.toString('latin1', member.value_start, member.value_end)) !== -1) return
  repairs.add(repair)
  edits.push(replaceValue(member, ZERO))
}

function nullFinish(data: Buffer, member: MemberSpan, repairs: Set<string>, edits: Edit[]): void {
  if (data[member.value_start] !== QUOTE || member.value_end - member.value_start !== 2) return
  repairs.add('finish_reason_empty')
  edits.push(replaceValue(member, NULL))
}

function replaceValue(member: MemberSpan, replacement: Buffer): Edit {
  return { start: member.value_start, end: member.value_end, replacement }
}
