import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import type { PartialDirectives } from '../../src/sandbox/directives.ts'
import { atEnd } from './cleanup.ts'
import { startGateway, type TestGateway } from './gateway.ts'

/** One way of being spoken to: a provider, a protocol, a model whose rules are its own. */
export interface Variant {
  /** The model that clients ask for. */
  readonly id: string
  readonly provider: string
  readonly dialect: string
  readonly upstream_model: string
}

const variant = (provider: string, upstream_model: string, dialect = 'openai'): Variant => ({
  id: dialect === 'openai' ? `${provider}/${upstream_model}` : `${provider}/${dialect}`,
  ...{ provider, dialect, upstream_model },
})

export const VARIANTS: readonly Variant[] = [
  variant('deepseek', 'deepseek-v4-pro'),
  variant('deepseek', 'deepseek-reasoner'),
  variant('qwen', 'qwen3.8-max'),
  variant('qwen', 'qwen-plus'),
  variant('qwen', 'qwq-plus'),
  variant('doubao', 'doubao-seed-2-1-pro-260628'),
  variant('hunyuan', 'hy4'),
  variant('qianfan', 'ernie-4.5-turbo-128k'),
  variant('zhipu', 'glm-5.3'),
  variant('zhipu', 'glm-4-plus'),
  variant('moonshot', 'kimi-k3'),
  variant('moonshot', 'kimi-k2.5'),
  variant('moonshot', 'moonshot-v1-8k'),
  variant('minimax', 'MiniMax-M2.7'),
  variant('spark', '4.0Ultra'),
  variant('stepfun', 'step-3.7-flash'),
  variant('baichuan', 'Baichuan4-Turbo'),
  variant('yi', 'yi-large-fc'),
  variant('sensenova', 'SenseNova-6.7-Flash-Lite'),
  variant('siliconflow', 'Qwen/Qwen3-32B'),
  variant('zhinao360', '360gpt2-pro'),
  variant('vllm', 'Qwen/Qwen3-32B'),
  variant('sglang', 'deepseek-v4'),
  variant('mindie', 'qwen3-32b'),
  variant('ollama', 'qwen3:32b'),
  variant('xinference', 'qwen3'),
  variant('qwen', 'qwen-plus', 'qwen_native'),
  variant('hunyuan', 'hunyuan-turbos-latest', 'hunyuan_native'),
  variant('qianfan', 'ernie-3.5-8k', 'qianfan_v1'),
  variant('zhipu', 'glm-5.2', 'anthropic'),
  variant('deepseek', 'deepseek-v4-pro', 'anthropic'),
]

/** Where the sandbox plays a variant. The paths behind it are the provider's own. */
export function addressOf({ provider, dialect }: Variant, sandbox_url: string): string {
  return `${sandbox_url}/as/${provider}${dialect === 'openai' ? '/v1' : ''}`
}

/** A gateway with a model for each variant, each at a sandbox that plays it. */
export async function startVariants(defaults: PartialDirectives = {}): Promise<{ gateway: TestGateway; sandbox: Sandbox }> {
  const sandbox = await startSandbox({ port: 0, defaults })
  atEnd(() => sandbox.close())
  const models = Object.fromEntries(
    VARIANTS.map((one) => {
      const { provider, dialect, upstream_model } = one
      const api_key = provider === 'ollama' ? {} : { api_key: 'test-id.test-secret' }
      const endpoint = { provider, dialect, upstream_model, base_url: addressOf(one, sandbox.url), zone: 'private', ...api_key }
      const model = {
        kind: 'chat',
        owned_by: 'test',
        tokenizer: 'sandbox',
        created: '2026-01-01',
        context_tokens: 100_000,
        endpoints: [endpoint],
      }
      return [one.id, model]
    }),
  )
  const gateway = await startGateway({ models, wallet_cny: '100000' })
  return { gateway, sandbox }
}
