import { isFields } from '../openai-usage.ts'
import type { NativeProtocol } from './protocol.ts'
import { qwen } from './qwen.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * Applications of Alibaba Cloud Model Studio (百炼): frames as of DashScope's own API, with `output.text`, growing or in pieces, and a count
 * for each model that the application called.
 * Source: https://help.aliyun.com/zh/model-studio/call-application-through-api and dashscope-sdk-python as of 2026.
 */
export const bailianApp: NativeProtocol = {
  recognises: ({ output, usage }) =>
    isFields(output) &&
    typeof output['text'] === 'string' &&
    (typeof output['session_id'] === 'string' || (isFields(usage) && 'models' in usage)),
  reader() {
    const reader = qwen.reader()
    return { read: (value, event) => reader.read(summed(value), event) }
  },
  whole: (value) => qwen.whole(summed(value)),
}

/** The frame with one count of all models; without one where no model was counted. */
function summed({ usage, ...value }: Fields): Fields {
  const models = isFields(usage) && Array.isArray(usage['models']) ? usage['models'].filter(isFields) : []
  if (models.length === 0) return value
  const sum = (name: string): number => models.reduce((total, model) => total + (Number(model[name]) || 0), 0)
  return { ...value, usage: { input_tokens: sum('input_tokens'), output_tokens: sum('output_tokens') } }
}
