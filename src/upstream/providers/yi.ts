import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** 01.AI's Yi (零一万物). Its errors are not documented in what was read: OpenAI's are assumed. */
export const yi: ProviderFacts = {
  id: 'yi',
  company: '01.AI 零一万物',
  entities: ['北京零一万物科技有限公司'],
  base_url: 'https://api.lingyiwanwu.com/v1',
  key_variable: 'YI_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: '/models' },
  rerank: null,
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [],
  rules: PLAIN_RULES,
  variants: [],
  embeddings_batches: [],
  parameters: [],
  source: 'https://platform.lingyiwanwu.com',
  as_of: '2026-02-10',
}
