import { anthropic } from './anthropic.ts'
import { hunyuan } from './hunyuan.ts'
import { bailianApp } from './bailian-app.ts'
import { dify } from './dify.ts'
import type { NativeProtocol } from './protocol.ts'
import { qianfan } from './qianfan.ts'
import { qwen } from './qwen.ts'
import { unknown } from './unknown.ts'

type Fields = Readonly<Record<string, unknown>>

/** From the most to the least particular. */
const PROTOCOLS: readonly NativeProtocol[] = [anthropic, hunyuan, dify, bailianApp, qwen, qianfan, unknown]

/** The protocol of a value that is no OpenAI chunk and no error, or null where nothing in it is an answer's text. */
export function protocolOf(value: Fields): NativeProtocol | null {
  return PROTOCOLS.find((protocol) => protocol.recognises(value)) ?? null
}
