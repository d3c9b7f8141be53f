import { ObjectEdits } from '../../base/json-edits.ts'
import { arrayElements, keyIs, objectMembers, removeMembers } from '../../base/json-spans.ts'
import type { Edit, JsonLimits, MemberSpan } from '../../base/json-spans.ts'
import type { ChoiceMeaning, PlacedCall } from './openai-choice.ts'
import { labelled } from './label.ts'
import { isFields, isStandardUsage, readUsage, usageJson } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** Deepest JSON accepted from an upstream. */
export const ANSWER_LIMITS: JsonLimits = { max_depth: 512 }

const QUOTE = 0x22
const OPEN_BRACE = 0x7b
const OPEN_BRACKET = 0x5b

const OPEN_ARRAY = Buffer.from('[')
const CLOSE_ARRAY = Buffer.from(']')
export const REASONING_COPY = Buffer.from(',"reasoning_content":')

/** What the client is to see instead of what the upstream says. */
export interface ChunkPlan {
  /** The model name as JSON. */
  readonly model: Buffer
  readonly usage_asked: boolean
  /** An answer that is not streamed: texts are in `message`. */
  readonly whole: boolean
}

/**
 * The edits that make a chunk (or a whole answer) what the client is to see: model name, usage that was not asked for, and the
 * named repairs (ARCHITECTURE, Bytes), which are added to `repairs`. What needs none is passed as it is.
 *
 * @param data the JSON
 * @param chunk the same, parsed
 * @param meanings its choices, in order; a choice that is no object has none
 * @throws JsonSpanError
 */
export function chunkEdits(data: Buffer, chunk: Fields, meanings: readonly ChoiceMeaning[], plan: ChunkPlan, repairs: Set<string>): Edit[] {
  const members = objectMembers(data, 0, ANSWER_LIMITS)
  const edits: Edit[] = []
  const removed: number[] = []
  const deep = meanings.some((meaning) => needsEdit(meaning, plan))
  for (let index = 0; index < members.length; index++) {
    const member = members[index]
    if (member === undefined) continue
    if (keyIs(data, member, 'model')) {
      if (data[member.value_start] === QUOTE) edits.push(replaceValue(member, plan.model))
    } else if (keyIs(data, member, 'usage')) {
      if (plan.usage_asked) usageEdits(chunk['usage'], member, repairs, edits)
      else removed.push(index)
    } else if (keyIs(data, member, 'choices')) {
      choicesEdits(data, member, meanings, deep, plan, repairs, edits)
    } else if (!plan.whole && chunk['object'] === 'chat.completion' && keyIs(data, member, 'object')) {
      edits.push(replaceValue(member, Buffer.from('"chat.completion.chunk"')))
    }
  }
  if (!plan.whole && chunk['choices'] === undefined) missingChoices(data, members, repairs, edits)
  if (removed.length > 0) edits.push(...removeMembers(members, removed))
  return edits
}

/** Only the model name of an answer without choices. */
export function modelEdits(body: Buffer, model: Buffer): Edit[] {
  return objectMembers(body, 0, ANSWER_LIMITS)
    .filter((member) => body[member.value_start] === QUOTE && keyIs(body, member, 'model'))
    .map((member) => replaceValue(member, model))
}

/** Numbers in quotes, or under names of another API, where the client asked for usage. */
function usageEdits(usage: unknown, member: MemberSpan, repairs: Set<string>, edits: Edit[]): void {
  if (!isFields(usage) || isStandardUsage(usage)) return
  const read = readUsage(usage)
  if (read === null) return
  repairs.add('usage_form')
  edits.push(replaceValue(member, Buffer.from(JSON.stringify({ ...usage, ...usageJson(read) }))))
}

/** Clients look into `choices` without asking whether it is there. */
function missingChoices(data: Buffer, members: readonly MemberSpan[], repairs: Set<string>, edits: Edit[]): void {
  repairs.add('choices_missing')
  const first = members[0]
  const at = first?.key_start ?? data.indexOf(OPEN_BRACE) + 1
  edits.push({ start: at, end: at, replacement: Buffer.from(`"choices":[]${first === undefined ? '' : ','}`) })
}

function choicesEdits(
  data: Buffer,
  member: MemberSpan,
  meanings: readonly ChoiceMeaning[],
  deep: boolean,
  plan: ChunkPlan,
  repairs: Set<string>,
  edits: Edit[],
): void {
  const first = data[member.value_start]
  if (first === OPEN_BRACE) {
    repairs.add('choices_object')
    edits.push({ start: member.value_start, end: member.value_start, replacement: OPEN_ARRAY })
    if (meanings[0] !== undefined) choiceEdits(data, member.value_start, meanings[0], plan, repairs, edits)
    edits.push({ start: member.value_end, end: member.value_end, replacement: CLOSE_ARRAY })
  } else if (first !== OPEN_BRACKET) {
    repairs.add('choices_missing')
    edits.push(replaceValue(member, Buffer.from('[]')))
  } else if (deep) {
    const elements = arrayElements(data, member.value_start, ANSWER_LIMITS)
    for (const meaning of meanings) {
      const element = elements[meaning.position]
      if (element !== undefined && needsEdit(meaning, plan)) choiceEdits(data, element.start, meaning, plan, repairs, edits)
    }
  }
}

function needsEdit(meaning: ChoiceMeaning, plan: ChunkPlan): boolean {
  const { choice, index, finish, container, calls } = meaning
  if (choice['index'] !== index || choice['finish_reason'] === '' || choice['finish_reason'] === 'null') return true
  if (finish !== null && finish.native !== null) return true
  if (!plan.usage_asked && !plan.whole && choice['usage'] !== undefined) return true
  if (container !== (plan.whole ? 'message' : 'delta')) return true
  return (
    meaning.role !== 'keep' ||
    meaning.content_changed ||
    meaning.label !== null ||
    needsReasoning(meaning) ||
    (calls !== null && needsCalls(meaning, plan))
  )
}

function needsReasoning({ reasoning_field, reasoning_changed }: ChoiceMeaning): boolean {
  return reasoning_changed || (reasoning_field !== null && reasoning_field !== 'reasoning_content')
}

function needsCalls({ body, calls }: ChoiceMeaning, plan: ChunkPlan): boolean {
  const given = body['tool_calls']
  if (!Array.isArray(given) || calls === null || given.length !== calls.length) return true
  return calls.some((call, position) => needsCall(given[position] as Fields, call, plan))
}

function needsCall(call: Fields, { piece, place }: PlacedCall, plan: ChunkPlan): boolean {
  const made = call['function']
  if (!plan.whole && call['index'] !== place.index) return true
  if (!isFields(made)) return needsFunction(call)
  if (place.first)
    return piece.id !== place.id || typeof call['type'] !== 'string' || call['type'] === '' || typeof made['arguments'] !== 'string'
  return place.id_again || place.name_again || isFields(made['arguments'])
}

/** Official SDKs want a `function` in every fragment, also where it says nothing or what belongs into it is beside it. */
function needsFunction(call: Fields): boolean {
  return !isFields(call['custom'])
}

function choiceEdits(data: Buffer, start: number, meaning: ChoiceMeaning, plan: ChunkPlan, repairs: Set<string>, edits: Edit[]): void {
  const { choice, container, index, finish } = meaning
  const object = new ObjectEdits(data, start, ANSWER_LIMITS)
  if (!plan.usage_asked && !plan.whole) object.remove('usage')
  if (choice['index'] !== index) {
    object.set('index', String(index))
    repairs.add('choice_index')
  }
  if (choice['finish_reason'] === '' || choice['finish_reason'] === 'null') {
    object.set('finish_reason', 'null')
    repairs.add('finish_reason_empty')
  }
  if (finish !== null && finish.native !== null) {
    object.set('finish_reason', JSON.stringify(finish.reason))
    if (choice['native_finish_reason'] === undefined) object.append('native_finish_reason', JSON.stringify(finish.native))
    repairs.add('finish_reason')
  }
  const wanted = plan.whole ? 'message' : 'delta'
  if (container === null || container === 'text') {
    const content = labelled(meaning.content, meaning.label)
    object.set(wanted, JSON.stringify(container === null && meaning.label === null ? {} : { content }))
    if (meaning.label !== null) repairs.add('aigc_label')
    repairs.add(container === null ? 'delta_missing' : 'message_or_delta')
    if (container === 'text') object.remove('text')
  } else {
    if (container !== wanted) {
      object.remove(wanted)
      object.rename(container, wanted)
      repairs.add('message_or_delta')
    }
    const body = object.find(container)
    if (body !== null) bodyEdits(data, body, meaning, plan, repairs, edits)
  }
  object.finish(edits)
}

function bodyEdits(data: Buffer, member: MemberSpan, meaning: ChoiceMeaning, plan: ChunkPlan, repairs: Set<string>, edits: Edit[]): void {
  const object = new ObjectEdits(data, member.value_start, ANSWER_LIMITS)
  if (meaning.role === 'remove') object.remove('role')
  else if (meaning.role === 'assistant' || meaning.role === 'add') object.set('role', '"assistant"')
  if (meaning.role !== 'keep') repairs.add('role')
  contentEdits(data, object, meaning, repairs, edits)
  if (needsReasoning(meaning)) reasoningEdits(object, meaning, repairs)
  if (meaning.calls !== null && needsCalls(meaning, plan)) callsEdits(data, object, meaning, plan, repairs, edits)
  object.finish(edits)
}

function contentEdits(
  data: Buffer,
  object: ObjectEdits,
  { content, content_changed, label }: ChoiceMeaning,
  repairs: Set<string>,
  edits: Edit[],
): void {
  if (content_changed) repairs.add(content === '' ? 'repeated_text' : 'content_text')
  if (label !== null) repairs.add('aigc_label')
  const given = object.find('content')
  if (content_changed || (label !== null && (given === null || data[given.value_start] !== QUOTE))) {
    object.set('content', JSON.stringify(labelled(content, label)))
  } else if (label !== null && given !== null) {
    const at = label.place === 'start' ? given.value_start + 1 : given.value_end - 1
    edits.push({ start: at, end: at, replacement: Buffer.from(JSON.stringify(label.text).slice(1, -1)) })
  }
}

/** The reasoning under the one name that all clients know, beside the upstream's own. */
function reasoningEdits(
  object: ObjectEdits,
  { reasoning, reasoning_field, reasoning_changed, body }: ChoiceMeaning,
  repairs: Set<string>,
): void {
  if (reasoning_changed) {
    if (reasoning_field !== null && reasoning_field !== 'content') object.set(reasoning_field, '""')
    repairs.add('repeated_text')
    return
  }
  repairs.add('reasoning_content')
  const raw = reasoning_field !== null && typeof body[reasoning_field] === 'string' ? object.raw(reasoning_field) : null
  object.set('reasoning_content', raw ?? JSON.stringify(reasoning))
}

function callsEdits(data: Buffer, object: ObjectEdits, meaning: ChoiceMeaning, plan: ChunkPlan, repairs: Set<string>, edits: Edit[]): void {
  const member = object.find('tool_calls')
  const { calls } = meaning
  if (member === null || calls === null) return
  const single = data[member.value_start] === OPEN_BRACE
  const given = single ? [member.value_start] : arrayStarts(data, member)
  if (given === null || given.length !== calls.length) {
    object.remove('tool_calls')
    if (calls.length === 0) repairs.add('repeated_text')
    return
  }
  if (single) {
    repairs.add('tool_calls_object')
    edits.push({ start: member.value_start, end: member.value_start, replacement: OPEN_ARRAY })
  }
  const said = [meaning.body['tool_calls']].flat().filter(isFields)
  for (const [position, call] of calls.entries()) callEdits(data, given[position] ?? 0, said[position] ?? {}, call, plan, repairs, edits)
  if (single) edits.push({ start: member.value_end, end: member.value_end, replacement: CLOSE_ARRAY })
}

function arrayStarts(data: Buffer, member: MemberSpan): number[] | null {
  if (data[member.value_start] !== OPEN_BRACKET) return null
  return arrayElements(data, member.value_start, ANSWER_LIMITS)
    .map(({ start }) => start)
    .filter((start) => data[start] === OPEN_BRACE)
}

function callEdits(
  data: Buffer,
  start: number,
  call: Fields,
  { piece, place }: PlacedCall,
  plan: ChunkPlan,
  repairs: Set<string>,
  edits: Edit[],
): void {
  const object = new ObjectEdits(data, start, ANSWER_LIMITS)
  if (!plan.whole && call['index'] !== place.index) {
    object.set('index', String(place.index))
    repairs.add('tool_call_index')
  }
  if (place.first ? piece.id !== place.id : place.id_again) {
    if (place.first) object.set('id', JSON.stringify(place.id))
    else object.remove('id')
    repairs.add('tool_call_id')
  }
  if (place.first && (typeof call['type'] !== 'string' || call['type'] === '')) {
    object.set('type', '"function"')
    repairs.add('tool_call_type')
  }
  const made = call['function']
  const member = object.find('function')
  if (isFields(made) && member !== null) functionEdits(data, member, made, { piece, place }, repairs, edits)
  else if (needsFunction(call)) {
    object.set('function', JSON.stringify({ ...(piece.name === '' ? {} : { name: piece.name }), arguments: piece.arguments ?? '' }))
    repairs.add('tool_call_function')
  }
  object.finish(edits)
}

function functionEdits(
  data: Buffer,
  member: MemberSpan,
  made: Fields,
  { piece, place }: PlacedCall,
  repairs: Set<string>,
  edits: Edit[],
): void {
  const object = new ObjectEdits(data, member.value_start, ANSWER_LIMITS)
  if (place.name_again) {
    object.remove('name')
    repairs.add('tool_call_name')
  }
  const given = made['arguments']
  const none = given === undefined || given === null
  if (none ? place.first : typeof given !== 'string') {
    object.set('arguments', JSON.stringify(piece.arguments ?? ''))
    repairs.add('tool_call_arguments')
  }
  object.finish(edits)
}

function replaceValue(member: MemberSpan, replacement: Buffer): Edit {
  return { start: member.value_start, end: member.value_end, replacement }
}
