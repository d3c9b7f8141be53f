import type { Form } from './forms.ts'

/** What a path of the sandbox is for. */
export interface Route {
  /** What comes before: names a provider (`as/zhipu`), or is a test's own. */
  readonly prefix: string
  readonly endpoint: 'chat' | 'embeddings' | 'models' | 'rerank'
  /** Another protocol of chat, or null for OpenAI's. */
  readonly form: Form | null
  /** The model, where the protocol has it in the path. */
  readonly model: string | null
}

const OPENAI = /^(.*?)(?:\/v\d)?\/(chat\/completions|embeddings|models|reranks?|messages)\/?$/
const DASHSCOPE = /^(.*?)\/services\/aigc\/(?:text|multimodal)-generation\/generation$/
/** Applications: Dify's, those of Alibaba Cloud Model Studio, and chat assistants of RAGFlow, which speak OpenAI's protocol. */
const DIFY = /^(.*?)(?:\/v1)?\/chat-messages$/
const BAILIAN_APP = /^(.*?)\/apps\/([^/]+)\/completion$/
const RAGFLOW = /^(.*?)(?:\/api\/v1)?\/(?:chats|agents)_openai\/[^/]+\/chat\/completions$/
const QIANFAN = /^(.*\/as\/qianfan)\/chat\/([^/]+)$/

const ENDPOINTS: Readonly<Record<string, Route['endpoint']>> = {
  'chat/completions': 'chat',
  messages: 'chat',
  embeddings: 'embeddings',
  models: 'models',
  rerank: 'rerank',
  reranks: 'rerank',
}

/**
 * The route of a path, or null.
 *
 * @param action Tencent Cloud's `X-TC-Action`: its path says nothing
 */
export function routeOf(path: string, action: string): Route | null {
  if (action === 'ChatCompletions')
    return { prefix: path.replace(/\/$/, '').slice(1), endpoint: 'chat', form: 'hunyuan_native', model: null }
  const application = applicationOf(path)
  if (application !== null) return application
  const [, prefix, name] = OPENAI.exec(path) ?? []
  const endpoint = ENDPOINTS[name ?? '']
  if (prefix !== undefined && endpoint !== undefined) {
    return { prefix: prefix.slice(1), endpoint, form: name === 'messages' ? 'anthropic' : null, model: null }
  }
  const dashscope = DASHSCOPE.exec(path)?.[1]
  if (dashscope !== undefined) return { prefix: dashscope.slice(1), endpoint: 'chat', form: 'qwen_native', model: null }
  const [, baidu, model = ''] = QIANFAN.exec(path) ?? []
  return baidu === undefined ? null : { prefix: baidu.slice(1), endpoint: 'chat', form: 'qianfan_v1', model: decodeURIComponent(model) }
}

function applicationOf(path: string): Route | null {
  const dify = DIFY.exec(path)?.[1]
  if (dify !== undefined) return { prefix: dify.slice(1), endpoint: 'chat', form: 'dify', model: null }
  const [, bailian, app = ''] = BAILIAN_APP.exec(path) ?? []
  if (bailian !== undefined) return { prefix: bailian.slice(1), endpoint: 'chat', form: 'bailian_app', model: decodeURIComponent(app) }
  const ragflow = RAGFLOW.exec(path)?.[1]
  return ragflow === undefined ? null : { prefix: ragflow.slice(1), endpoint: 'chat', form: null, model: null }
}
