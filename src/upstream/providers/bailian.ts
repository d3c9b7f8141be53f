import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'
import { qwen } from './qwen.ts'

/** Applications of Alibaba Cloud Model Studio (百炼应用). `upstream_model` is the application's id. */
export const bailian: ProviderFacts = {
  id: 'bailian',
  company: 'Alibaba 阿里云百炼应用',
  entities: qwen.entities,
  base_url: 'https://dashscope.aliyuncs.com/api/v1',
  key_variable: 'DASHSCOPE_API_KEY',
  auth: 'bearer',
  paths: { chat: '/apps/{model}/completion', embeddings: null, models: null },
  rerank: null,
  natives: [
    { dialect: 'bailian_app', base_url: 'https://dashscope.aliyuncs.com/api/v1', path: '/apps/{model}/completion', auth: 'bearer' },
  ],
  speaks: 'bailian_app',
  usage_place: 'finish_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [...qwen.errors, { code: 'app.notfound', kind: 'model_missing' }, { status: 404, kind: 'model_missing' }],
  rules: { ...PLAIN_RULES, max_choices: 1 },
  variants: [],
  embeddings_batches: [],
  parameters: [
    { name: 'biz_params', note: "values of the application's variables" },
    { name: 'messages', note: 'the whole conversation; images by their address only' },
    { name: 'max_tokens, tools', note: 'the application decides' },
  ],
  source: 'https://help.aliyun.com/zh/model-studio/call-application-through-api and dashscope-sdk-python dashscope/app/application.py',
  as_of: '2026-04-28',
}
