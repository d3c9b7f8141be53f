import { WeirError } from '../base/errors.ts'
import { ObjectEdits } from '../base/json-edits.ts'
import { spliceBytes, type Edit } from '../base/json-spans.ts'
import type { Profile } from '../config/model.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import { RequestBody, type ReadRequest } from './request.ts'

type Members = Readonly<Record<string, unknown>>

const LIMITS = { max_depth: 1024 }

/** Members by which self-hosted servers show the prompt that they made, or make another one without the operator's words. */
const SHOWING = [
  ...['echo', 'prompt_logprobs', 'return_token_ids', 'return_prompt_token_ids', 'return_hidden_states'],
  ...['return_logprob', 'logprob_start_len', 'chat_template', 'add_generation_prompt', 'continue_final_message'],
] as const

/** Members of `chat_template_kwargs` that say whether to think, and nothing of the prompt. */
const HARMLESS: ReadonlySet<string> = new Set(['enable_thinking', 'thinking'])

/**
 * A chat request with what a profile adds: the operator's system prompt before every message, its tools beside the caller's, its numbers
 * where the caller gives none. The body is spliced, so that everything the caller wrote stays as it is; estimate and quote see the whole.
 *
 * @throws WeirError `invalid_request` for members that would show the operator's words, or leave them out
 */
export function withProfile(request: ReadRequest, profile: Profile): ReadRequest {
  const { facts, parsed } = request
  const showing = showingMember(parsed)
  if (showing !== null) {
    const detail = `${showing} cannot be used with ${facts.model_asked}; leave it out.`
    throw new WeirError('invalid_request', { values: { detail }, param: showing })
  }
  const object = new ObjectEdits(facts.body.bytes, 0, LIMITS)
  const edits: Edit[] = []
  const tools = toolsBeside(parsed['tools'], profile.tools)
  insertBefore('messages', [systemOf(profile)], object, edits)
  if (tools.length > 0 && hasItems(parsed['tools'])) insertBefore('tools', tools, object, edits)
  else if (tools.length > 0) object.set('tools', JSON.stringify(tools))
  const numbers = numbersOf(profile, parsed)
  for (const [name, value] of Object.entries(numbers)) object.set(name, JSON.stringify(value))
  object.finish(edits)
  return {
    facts: {
      ...facts,
      given: { ...facts.given, ...numbers, ...(tools.length > 0 ? { tools: true } : {}) },
      body: new RequestBody(spliceBytes(facts.body.bytes, edits)),
    },
    parsed: profiledMembers(parsed, profile),
  }
}

/** The members of a request with what a profile adds to them, for who counts or looks at them. */
export function profiledMembers(parsed: Members, profile: Profile): Members {
  const own_messages: readonly unknown[] = Array.isArray(parsed['messages']) ? parsed['messages'] : []
  const own_tools: readonly unknown[] = Array.isArray(parsed['tools']) ? parsed['tools'] : []
  const tools = toolsBeside(own_tools, profile.tools)
  return {
    ...parsed,
    ...numbersOf(profile, parsed),
    messages: [systemOf(profile), ...own_messages],
    ...(tools.length > 0 ? { tools: [...tools, ...own_tools] } : {}),
  }
}

/** The member of a request that would show a profile's prompt, or leave it out; null where there is none. */
export function showingMember(parsed: Members): string | null {
  const given = SHOWING.find((name) => parsed[name] !== undefined && parsed[name] !== null && parsed[name] !== false)
  if (given !== undefined) return given
  // Self-hosted servers let its members stand for those above.
  const template = parsed['chat_template_kwargs']
  if (typeof template !== 'object' || template === null) return null
  return Object.keys(template).every((name) => HARMLESS.has(name)) ? null : 'chat_template_kwargs'
}

function systemOf({ system }: Profile): Members {
  return { role: 'system', content: system }
}

function hasItems(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0
}

/** Puts items before those that an array has; one at least. */
function insertBefore(name: string, items: readonly Members[], object: ObjectEdits, edits: Edit[]): void {
  const member = object.find(name)
  if (member === null) throw new WeirError('internal_error')
  const replacement = Buffer.from(`${items.map((item) => JSON.stringify(item)).join(',')},`)
  edits.push({ start: member.value_start + 1, end: member.value_start + 1, replacement })
}

/** A tool of the same name is the caller's. */
function toolsBeside(own: unknown, tools: Profile['tools']): Profile['tools'] {
  const named = new Set((Array.isArray(own) ? own : []).map(functionName))
  return tools.filter((tool) => !named.has(functionName(tool)))
}

function functionName(tool: unknown): unknown {
  const made = typeof tool === 'object' && tool !== null && 'function' in tool ? tool.function : null
  return typeof made === 'object' && made !== null && 'name' in made ? made.name : null
}

function numbersOf({ temperature, top_p }: Profile, parsed: Members): Readonly<Record<string, number>> {
  const numbers = Object.entries({ temperature, top_p }).filter(([name, value]) => value !== null && (parsed[name] ?? null) === null)
  return Object.fromEntries(numbers) as Record<string, number>
}

/** An upstream's failure without its own words: they may quote the request, and the operator's prompt is in it. */
export function withoutQuotes(error: unknown): unknown {
  if (!(error instanceof UpstreamFailure) || error.details.provider_message === undefined) return error
  const { provider_message: _, ...details } = error.details
  return new UpstreamFailure(error.kind, details)
}
