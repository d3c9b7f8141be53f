import { UpstreamFailure } from '../failure.ts'
import type { NumberRange, RequestRules } from '../providers/provider.ts'
import { intentOf, spellThinking, THINKING_NAMES } from './thinking.ts'
import type { RequestView, TargetView } from './view.ts'

/** Members of a body to set (as JSON) or to leave out, and what the caller is told of it. */
export class Changes {
  /** Null leaves the member out. */
  readonly members = new Map<string, string | null>()
  readonly adjusted: string[] = []

  set(name: string, json: string): void {
    this.members.set(name, json)
  }

  remove(name: string): void {
    this.members.set(name, null)
  }

  report(name: string, value: string): void {
    this.adjusted.push(`${name}=${value}`)
  }
}

/** Numbers whose values are written with a decimal point. */
const REAL: ReadonlySet<string> = new Set(['temperature', 'top_p', 'presence_penalty', 'frequency_penalty', 'repetition_penalty'])

/**
 * Whether a request needs no change for a target but the model's name: then nothing else is looked at.
 */
export function isPlainFor(view: RequestView, rules: RequestRules, target: TargetView): boolean {
  const { given, history } = view
  if (view.max_tokens !== null && (renamesCap(view, rules) || view.max_tokens > limitOf(rules, target))) return false
  if (target.capped_tokens !== null && renamesCap(view, rules)) return false
  if (rules.max_choices !== null && view.n > rules.max_choices) return false
  if (rules.streams_only && !view.stream) return false
  for (const name in rules.ranges) if (given[name] !== undefined) return false
  for (const name in rules.defaults) if (given[name] === undefined) return false
  if (rules.refused.some((name) => given[name] !== undefined)) return false
  if (rules.thinking !== null && THINKING_NAMES.some((name) => given[name] !== undefined)) return false
  return !touchesHistory(rules.history, history)
}

/** What becomes of a request's members at a target. @throws UpstreamFailure `unsupported` */
export function decide(view: RequestView, rules: RequestRules, target: TargetView): Changes {
  const changes = new Changes()
  changes.set('model', JSON.stringify(target.upstream_model))
  if (rules.max_choices !== null && view.n > rules.max_choices) {
    const provider_message = `n is ${view.n}, and this model gives ${rules.max_choices} at most`
    throw new UpstreamFailure('unsupported', { provider_message, unsent: true })
  }
  decideCap(view, rules, target, changes)
  if (rules.streams_only && !view.stream) changes.set('stream', 'true')
  if ((view.stream || rules.streams_only) && !view.usage_asked) {
    changes.set('stream_options', JSON.stringify({ ...view.stream_options, include_usage: true }))
  }
  const thinks = intentOf(view.given)?.mode !== 'off'
  for (const [name, range] of Object.entries(rules.ranges)) clamp(name, view.given[name], range, thinks, changes)
  for (const name of rules.refused) {
    if (view.given[name] === undefined) continue
    changes.remove(name)
    changes.report(name, 'dropped')
  }
  for (const [name, value] of Object.entries(rules.defaults)) {
    if (view.given[name] === undefined) changes.set(name, JSON.stringify(value))
  }
  if (rules.thinking !== null) spellThinking(view.given, rules.thinking, changes)
  return changes
}

/** Whether the policy changes a history like this one. */
export function touchesHistory(policy: RequestRules['history'], history: RequestView['history']): boolean {
  if (policy === 'as_is') return false
  return policy === 'tool_calls' ? history.calls_without_reasoning : history.reasoning
}

function limitOf(rules: RequestRules, target: TargetView): number {
  return Math.min(rules.max_output_tokens ?? Infinity, target.max_output_tokens ?? Infinity)
}

function renamesCap({ max_tokens_fields }: RequestView, { output_cap }: RequestRules): boolean {
  return output_cap !== 'either' && (max_tokens_fields.length > 1 || max_tokens_fields[0] !== output_cap)
}

/** The cap under the name that the target knows: one that it ignores would be no cap. */
function decideCap(view: RequestView, rules: RequestRules, target: TargetView, changes: Changes): void {
  const { max_tokens, max_tokens_fields } = view
  const limit = limitOf(rules, target)
  const within = max_tokens !== null && max_tokens > limit ? limit : max_tokens
  const cap = target.capped_tokens === null ? within : Math.min(target.capped_tokens, limit)
  if (cap === null) return
  if (within !== max_tokens) changes.report(max_tokens_fields[0] ?? 'max_tokens', String(limit))
  const names = rules.output_cap === 'either' ? max_tokens_fields : [rules.output_cap]
  for (const name of max_tokens_fields) if (!names.includes(name) && view.given[name] !== undefined) changes.remove(name)
  for (const name of names) if (view.given[name] !== cap) changes.set(name, String(cap))
}

function clamp(name: string, value: unknown, range: NumberRange, thinks: boolean, changes: Changes): void {
  if (typeof value !== 'number') return
  const only = thinks ? undefined : range.without_thinking
  const clamped = only ?? Math.min(Math.max(value, range.min), range.max)
  if (clamped === value) return
  const text = REAL.has(name) && Number.isInteger(clamped) ? clamped.toFixed(1) : String(clamped)
  changes.set(name, text)
  changes.report(name, text)
}
