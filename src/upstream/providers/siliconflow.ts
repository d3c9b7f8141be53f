import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** SiliconFlow (硅基流动), a host of open-weight models. */
export const siliconflow: ProviderFacts = {
  id: 'siliconflow',
  company: 'SiliconFlow 硅基流动',
  entities: [],
  base_url: 'https://api.siliconflow.cn/v1',
  key_variable: 'SILICONFLOW_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: { base_url: null, path: '/rerank' },
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 20012, kind: 'model_missing' },
    { message: 'model does not exist', kind: 'model_missing' },
    { message: 'system is really busy', kind: 'overload' },
    { status: 403, message: 'balance', kind: 'balance' },
    { status: 403, message: 'verif', kind: 'auth' },
    { status: 403, message: '实名', kind: 'auth' },
    { code: 30001, kind: 'balance' },
  ],
  // enable_thinking is refused by models that cannot, so it is sent to those that can alone.
  rules: { ...PLAIN_RULES, max_output_tokens: 16_384, thinking: { switch: null, efforts: [], budget: null } },
  variants: [
    {
      models: /(Qwen3-(?!.*(Instruct|Thinking|Coder|Embedding|Reranker))|Hunyuan-A13B|GLM-4\.[56]|DeepSeek-V3\.[12])/i,
      rules: { thinking: { switch: 'enable_thinking', efforts: [], budget: { min: 128, max: 32_768 } } },
    },
    { models: /DeepSeek-R1/i, rules: { history: 'remove' } },
  ],
  embeddings_batches: [],
  parameters: [
    { name: 'model', note: 'Pro/… is the paid tier of the same model' },
    { name: 'thinking_budget', note: 'from 128 to 32768' },
    { name: 'input_audio', note: 'as audio_url with a data URL' },
  ],
  source: 'https://docs.siliconflow.cn/cn/faqs/error-code.md',
  as_of: '2026-02-10',
}
