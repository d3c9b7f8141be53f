import type { DialectName } from '../dialects/names.ts'
import type { RequestRules } from '../providers/provider.ts'
import { anthropicBody } from './anthropic.ts'
import { bailianAppBody, difyBody, ragflowBody } from './applications.ts'
import { decide } from './decide.ts'
import { hunyuanBody } from './hunyuan.ts'
import { qianfanBody } from './qianfan.ts'
import { qwenBody } from './qwen.ts'
import type { AdaptedBody, RequestView, TargetView } from './view.ts'

type Fields = Readonly<Record<string, unknown>>

/** What a translator of requests gets: the body with the target's rules carried out, and what is known besides. */
export interface NativeRequest {
  readonly chat: Fields
  readonly upstream_model: string
  readonly stream: boolean
  /** The cap of output tokens in force, or null. */
  readonly cap: number | null
  /** The model's limit, for protocols that must have a cap. */
  readonly max_output_tokens: number | null
  /** Told to the caller: a wish that the protocol has no word for. */
  readonly report: (name: string, value: string) => void
}

const BODIES: Readonly<Record<Exclude<DialectName, 'openai'>, (request: NativeRequest) => Fields>> = {
  anthropic: anthropicBody,
  qwen_native: qwenBody,
  hunyuan_native: hunyuanBody,
  qianfan_v1: qianfanBody,
  dify: difyBody,
  bailian_app: bailianAppBody,
  ragflow: ragflowBody,
}

/** Headers that a protocol wants beside the credentials. */
export function nativeHeaders(dialect: DialectName, stream: boolean): Readonly<Record<string, string>> {
  switch (dialect) {
    case 'anthropic':
      return { 'anthropic-version': '2023-06-01' }
    case 'qwen_native':
    case 'bailian_app':
      return stream ? { 'x-dashscope-sse': 'enable' } : {}
    case 'hunyuan_native':
      return { 'x-tc-action': 'ChatCompletions', 'x-tc-version': '2023-09-01' }
    case 'openai':
    case 'qianfan_v1':
    case 'dify':
    case 'ragflow':
      return {}
  }
}

/**
 * A chat request in the words of another protocol, translated by meaning.
 *
 * @throws UpstreamFailure `unsupported`
 */
export function nativeChat(
  dialect: Exclude<DialectName, 'openai'>,
  body: Buffer,
  view: RequestView,
  rules: RequestRules,
  target: TargetView,
): AdaptedBody {
  const changes = decide(view, { ...rules, output_cap: 'max_tokens' }, target)
  const parsed = JSON.parse(body.toString('utf8')) as Record<string, unknown>
  for (const [name, json] of changes.members) {
    if (json === null) delete parsed[name]
    else parsed[name] = JSON.parse(json)
  }
  const given_cap = parsed['max_tokens'] ?? parsed['max_completion_tokens']
  const made = BODIES[dialect]({
    chat: parsed,
    upstream_model: target.upstream_model,
    stream: view.stream || rules.streams_only,
    cap: typeof given_cap === 'number' ? given_cap : null,
    max_output_tokens: target.max_output_tokens,
    report: (name, value) => changes.report(name, value),
  })
  return { body: Buffer.from(JSON.stringify(made)), adjusted: changes.adjusted }
}
