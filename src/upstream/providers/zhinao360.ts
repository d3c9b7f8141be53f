import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** 360 Zhinao (360智脑). Its errors are not documented in what was read: OpenAI's are assumed. */
export const zhinao360: ProviderFacts = {
  id: 'zhinao360',
  company: '360 智脑',
  entities: ['三六零科技集团有限公司'],
  base_url: 'https://api.360.cn/v1',
  key_variable: 'ZHINAO_API_KEY',
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
  parameters: [{ name: 'tools', note: 'web search is a tool' }],
  source: 'https://ai.360.com/docs',
  as_of: '2026-02-10',
}
