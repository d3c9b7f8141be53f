import { deepseek } from './deepseek.ts'
import { ollama } from './ollama.ts'
import type { ProviderFacts } from './provider.ts'
import { qwen } from './qwen.ts'
import { sandbox } from './sandbox.ts'
import { sglang } from './sglang.ts'
import { vllm } from './vllm.ts'

/** Every provider that Weir knows, by id. */
export const PROVIDERS: ReadonlyMap<string, ProviderFacts> = new Map(
  [deepseek, qwen, vllm, sglang, ollama, sandbox].map((facts) => [facts.id, facts]),
)
