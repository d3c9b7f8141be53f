import { PATIENT, PLAIN_RULES } from './provider.ts'
import type { ProviderFacts } from './provider.ts'

/** Tencent's Hunyuan (混元): TokenHub's OpenAI form, and Tencent Cloud's own API. */
export const hunyuan: ProviderFacts = {
  id: 'hunyuan',
  company: 'Tencent 腾讯混元 / TokenHub',
  entities: ['深圳市腾讯计算机系统有限公司', '腾讯云计算（北京）有限责任公司'],
  base_url: 'https://tokenhub.tencentmaas.com/v1',
  key_variable: 'HUNYUAN_API_KEY',
  auth: 'bearer',
  paths: { chat: '/chat/completions', embeddings: null, models: null },
  rerank: null,
  natives: [
    { dialect: 'hunyuan_native', base_url: 'https://hunyuan.tencentcloudapi.com', path: '/', auth: 'tc3' },
    { dialect: 'anthropic', base_url: 'https://api.hunyuan.cloud.tencent.com/anthropic', path: '/v1/messages', auth: 'x_api_key' },
  ],
  usage_place: 'own_chunk',
  done_is_finish: false,
  timeouts: PATIENT,
  errors: [
    // TokenHub: the model or service is not enabled for the account, which no money changes.
    { status: 402, kind: 'model_missing' },
    { code: 'LimitExceeded', kind: 'rate' },
    { code: 'RequestLimitExceeded', kind: 'rate' },
    { code: 'FailedOperation.ResourcePackExhausted', kind: 'balance' },
    { code: 'FailedOperation.ServiceStopArrears', kind: 'balance' },
    { code: 'FailedOperation.ServiceNotActivated', kind: 'auth' },
    { code: 'FailedOperation.EngineServerLimitExceeded', kind: 'overload' },
    { code: 'AuthFailure', kind: 'auth' },
    { code: 'AuthFailure.SecretIdNotFound', kind: 'auth' },
    { code: 'AuthFailure.SignatureFailure', kind: 'auth' },
    { code: 'AuthFailure.SignatureExpire', kind: 'auth' },
    { code: 'InvalidParameter', kind: 'invalid' },
    { code: 'InvalidParameterValue', kind: 'invalid' },
    { code: 'InvalidParameterValue.Model', kind: 'model_missing' },
    { code: 'OperationDenied.TextIllegalDetected', kind: 'content' },
    { code: 'OperationDenied.ImageIllegalDetected', kind: 'content' },
  ],
  rules: { ...PLAIN_RULES, ranges: { temperature: { min: 0, max: 2 }, top_p: { min: 0, max: 1 }, seed: { min: 1, max: 10_000 } } },
  variants: [{ models: /^deepseek-r1/i, rules: { history: 'remove' } }],
  embeddings_batches: [],
  parameters: [
    { name: 'stop', note: 'native: the text given back includes the stop text' },
    { name: 'messages', note: 'native: at most 40, system only first; too long a prompt is cut from the front without an error' },
    { name: 'reasoning_content', note: 'native: refused in earlier turns' },
  ],
  source: 'tencentcloud-sdk-nodejs hunyuan models; TokenHub documentation at cloud.tencent.com',
  as_of: '2026-11-19',
}
