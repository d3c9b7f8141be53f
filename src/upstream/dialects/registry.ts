import { classifyErrorObject } from '../classify.ts'
import type { ProviderFacts } from '../providers/provider.ts'
import type { Dialect } from './dialect.ts'
import type { DialectName } from './names.ts'
import { anthropic } from './native/anthropic.ts'
import { bailianApp } from './native/bailian-app.ts'
import { dify } from './native/dify.ts'
import { hunyuan } from './native/hunyuan.ts'
import type { NativeProtocol } from './native/protocol.ts'
import { qianfan } from './native/qianfan.ts'
import { qwen } from './native/qwen.ts'
import { createDialect } from './openai.ts'

const PROTOCOLS: Readonly<Record<DialectName, NativeProtocol | null>> = {
  openai: null,
  anthropic,
  qwen_native: qwen,
  hunyuan_native: hunyuan,
  qianfan_v1: qianfan,
  dify,
  bailian_app: bailianApp,
  // Answers are OpenAI's; requests are not quite.
  ragflow: null,
}

const MADE = new WeakMap<ProviderFacts, Map<DialectName, Dialect>>()

/** The dialect with the provider's facts bound to it; made once for both. */
export function dialectFor(name: DialectName, facts: ProviderFacts): Dialect {
  const of_provider = MADE.get(facts) ?? new Map<DialectName, Dialect>()
  MADE.set(facts, of_provider)
  const known = of_provider.get(name)
  if (known !== undefined) return known
  const classify = (error: unknown) => classifyErrorObject(error, 200, facts)
  const dialect = createDialect(name, {
    classify,
    done_is_finish: facts.done_is_finish,
    protocol: PROTOCOLS[name],
    text_quirks: facts.text_quirks ?? null,
  })
  of_provider.set(name, dialect)
  return dialect
}
