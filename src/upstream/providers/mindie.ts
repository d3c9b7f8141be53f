import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Huawei's MindIE on Ascend, run by oneself. The base URL to configure ends in `/v1`, e.g. `https://host:1025/v1`, often with mutual TLS. */
export const mindie: ProviderFacts = {
  id: 'mindie',
  company: 'Huawei MindIE (Ascend 昇腾)',
  entities: [],
  base_url: null,
  key_variable: null,
  auth: 'optional_bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: '/models' },
  rerank: null,
  natives: [],
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { status: 424, kind: 'server' },
    { code: 'Generation Error', kind: 'server' },
    { status: 422, kind: 'invalid' },
    { code: 'Input Validation Error', kind: 'invalid' },
  ],
  rules: { ...PLAIN_RULES, thinking: { switch: 'template_enable_thinking', efforts: [], budget: null } },
  variants: [],
  embeddings_batches: [],
  parameters: [{ name: 'stream_options', note: 'not implemented: usage is always in the last chunk' }],
  source: 'Ascend/MindIE-LLM single_req_vllm_openai_infer_interface.cpp',
  as_of: '2026-11-23',
}
