import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** vLLM, run by oneself. The base URL to configure ends in `/v1`, e.g. `http://host:8000/v1`. */
export const vllm: ProviderFacts = {
  id: 'vllm',
  company: 'self-hosted vLLM',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'optional_bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: '/models' },
  rerank: { base_url: null, path: '/rerank' },
  natives: [{ dialect: 'anthropic', base_url: null, path: '/messages', auth: 'optional_bearer' }],
  usage_place: 'own_chunk',
  done_is_finish: false,
  // No keep-alive comments: a queued request is silent until its first token.
  timeouts: PATIENT,
  errors: [
    { message: 'longer than the maximum model length', kind: 'context_length' },
    { message: 'too long to fit into the model', kind: 'context_length' },
    { status: 404, kind: 'model_missing' },
  ],
  rules: { ...PLAIN_RULES, output_cap: 'either', thinking: { switch: 'template_enable_thinking', efforts: [], budget: null } },
  variants: [{ models: /deepseek/i, rules: { thinking: { switch: 'template_thinking', efforts: [], budget: null } } }],
  embeddings_batches: [],
  parameters: [
    { name: 'chat_template_kwargs', note: 'enable_thinking or thinking, by model' },
    { name: 'stream_options.continuous_usage_stats', note: 'adds cumulative usage to every chunk' },
    { name: 'tool_choice', note: 'a named tool may finish with "stop"' },
  ],
  source: 'vllm-project/vllm serving.py at commit 006c49d',
  as_of: '2026-11-23',
}
