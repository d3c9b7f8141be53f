import { ObjectEdits } from '../../base/json-edits.ts'
import { rewriteMembers, spliceBytes } from '../../base/json-spans.ts'
import type { Edit } from '../../base/json-spans.ts'
import type { RequestRules } from '../providers/provider.ts'
import { decide, isPlainFor, touchesHistory } from './decide.ts'
import { historyEdits } from './history.ts'
import type { AdaptedBody, RequestView, TargetView } from './view.ts'

const LIMITS = { max_depth: 1024 }
const NOTHING: readonly string[] = []

/**
 * A chat request as an OpenAI-compatible target takes it: spliced, never re-serialised. A request that needs no more than the model's
 * name costs no more.
 *
 * @throws UpstreamFailure `unsupported` where the target cannot do what was asked; JsonSpanError never for a body that was read before
 */
export function adaptChat(body: Buffer, view: RequestView, rules: RequestRules, target: TargetView): AdaptedBody {
  if (isPlainFor(view, rules, target)) return { body: plainBody(body, view, target), adjusted: NOTHING }
  const { members, adjusted } = decide(view, rules, target)
  const object = new ObjectEdits(body, 0, LIMITS)
  for (const [name, value] of members) {
    if (value === null) object.remove(name)
    else object.set(name, value)
  }
  const edits: Edit[] = []
  if (touchesHistory(rules.history, view.history)) {
    const messages = object.find('messages')
    if (messages !== null) edits.push(...historyEdits(body, messages, rules.history))
  }
  object.finish(edits)
  return { body: spliceBytes(body, edits), adjusted }
}

/** Only the model's name, usage in a stream, and the cap of a hold. */
function plainBody(body: Buffer, view: RequestView, { upstream_model, capped_tokens }: TargetView): Buffer {
  const members: Record<string, Buffer> = { model: json(upstream_model) }
  if (view.stream && !view.usage_asked) members['stream_options'] = json({ ...view.stream_options, include_usage: true })
  if (capped_tokens !== null) for (const field of view.max_tokens_fields) members[field] = json(capped_tokens)
  return rewriteMembers(body, members)
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}
