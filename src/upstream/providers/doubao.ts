import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** ByteDance's Volcengine Ark (火山方舟). Models are dated ids or endpoint ids `ep-…`. */
export const doubao: ProviderFacts = {
  id: 'doubao',
  company: 'ByteDance 火山引擎方舟 Ark',
  entities: ['北京抖音信息服务有限公司'],
  base_url: 'https://ark.cn-beijing.volces.com/api/v3',
  key_variable: 'ARK_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: '/embeddings', models: null },
  rerank: null,
  natives: [],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    { code: 'SensitiveContentDetected', kind: 'content' },
    { code: 'SensitiveContentDetected.SevereViolation', kind: 'content' },
    { code: 'SensitiveContentDetected.Violence', kind: 'content' },
    { code: 'InputTextSensitiveContentDetected', kind: 'content' },
    { code: 'OutputTextSensitiveContentDetected', kind: 'content' },
    { code: 'AccountOverdueError', kind: 'balance' },
    { code: 'AuthenticationError', kind: 'auth' },
    { code: 'AccessDenied', kind: 'auth' },
    { code: 'InvalidEndpointOrModel.NotFound', kind: 'model_missing' },
    { code: 'InvalidEndpointOrModel.ModelIDAccessDisabled', kind: 'model_missing' },
    { code: 'ModelNotOpen', kind: 'model_missing' },
    { code: 'RateLimitExceeded.EndpointRPMExceeded', kind: 'rate' },
    { code: 'RateLimitExceeded.EndpointTPMExceeded', kind: 'rate' },
    { code: 'ServerOverloaded', kind: 'overload' },
    { code: 'QuotaExceeded', kind: 'quota' },
  ],
  rules: {
    ...PLAIN_RULES,
    // Its two caps differ: one counts the thinking, the other does not.
    output_cap: 'either',
    thinking: { switch: 'thinking_type', auto: true, efforts: ['minimal', 'low', 'medium', 'high'], budget: null },
  },
  variants: [{ models: /^deepseek-(r1|reasoner)/i, rules: { thinking: null, history: 'remove' } }],
  embeddings_batches: [],
  parameters: [
    { name: 'model', note: 'a dated id (doubao-seed-2-1-pro-260628) or an endpoint id ep-…' },
    { name: 'thinking', note: '{"type":"enabled"|"disabled"|"auto"}' },
    { name: 'stream_options.chunk_include_usage', note: 'adds cumulative usage to every chunk' },
    { name: 'input', note: 'embeddings of images answer with `data` as an object' },
  ],
  source: 'https://www.volcengine.com/docs/82379/1299023 and volcengine-python-sdk',
  as_of: '2026-11-16',
}
