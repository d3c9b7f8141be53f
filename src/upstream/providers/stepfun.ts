import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** StepFun (阶跃星辰). */
export const stepfun: ProviderFacts = {
  id: 'stepfun',
  company: 'StepFun 阶跃星辰',
  entities: ['上海阶跃星辰智能科技有限公司'],
  base_url: 'https://api.stepfun.com/v1',
  key_variable: 'STEPFUN_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [{ dialect: 'anthropic', base_url: 'https://api.stepfun.com/v1', path: '/messages', auth: 'x_api_key' }],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'invalid_api_key', kind: 'auth' },
    { status: 402, kind: 'balance' },
    { status: 451, kind: 'content' },
  ],
  rules: { ...PLAIN_RULES, thinking: { switch: null, efforts: ['low', 'medium', 'high'], budget: null } },
  variants: [],
  embeddings_batches: [],
  parameters: [{ name: 'reasoning_format', note: 'deepseek-style: reasoning_content instead of reasoning' }],
  source: 'https://platform.stepfun.com',
  as_of: '2026-10-07',
}
