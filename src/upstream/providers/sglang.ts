import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** SGLang, run by oneself. The base URL to configure ends in `/v1`, e.g. `http://host:30000/v1`. */
export const sglang: ProviderFacts = {
  id: 'sglang',
  company: 'self-hosted SGLang',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'optional_bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: null,
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { message: "longer than the model's context length", kind: 'context_length' },
    { message: 'the request queue is full', kind: 'overload' },
  ],
  rules: { ...PLAIN_RULES, output_cap: 'either', thinking: { switch: 'template_enable_thinking', efforts: [], budget: null } },
  variants: [{ models: /deepseek/i, rules: { thinking: { switch: 'template_thinking', efforts: ['high', 'max'], budget: null } } }],
  embeddings_batches: [],
  parameters: [
    { name: 'chat_template_kwargs', note: 'thinking, by model' },
    { name: 'reasoning_effort', note: 'only high and max reach DeepSeek V4' },
    { name: 'stream_options.include_usage', note: 'cached tokens are reported only with --enable-cache-report and above zero' },
  ],
  source: 'sgl-project/sglang serving_chat.py at commit 002897c',
  as_of: '2026-11-23',
}
