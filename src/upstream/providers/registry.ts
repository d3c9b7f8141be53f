import { baichuan } from './baichuan.ts'
import { bailian } from './bailian.ts'
import { deepseek } from './deepseek.ts'
import { dify } from './dify.ts'
import { doubao } from './doubao.ts'
import { hunyuan } from './hunyuan.ts'
import { mindie } from './mindie.ts'
import { minimax } from './minimax.ts'
import { moonshot } from './moonshot.ts'
import { ollama } from './ollama.ts'
import type { ProviderFacts } from './provider.ts'
import { qianfan } from './qianfan.ts'
import { qwen } from './qwen.ts'
import { ragflow } from './ragflow.ts'
import { sandbox } from './sandbox.ts'
import { sensenova } from './sensenova.ts'
import { sglang } from './sglang.ts'
import { siliconflow } from './siliconflow.ts'
import { spark } from './spark.ts'
import { stepfun } from './stepfun.ts'
import { vllm } from './vllm.ts'
import { xinference } from './xinference.ts'
import { yi } from './yi.ts'
import { zhinao360 } from './zhinao360.ts'
import { zhipu } from './zhipu.ts'

/** Every provider that Weir knows, by id. */
export const PROVIDERS: ReadonlyMap<string, ProviderFacts> = new Map(
  [
    ...[deepseek, qwen, doubao, hunyuan, qianfan, zhipu, moonshot, minimax, spark],
    ...[stepfun, baichuan, yi, sensenova, siliconflow, zhinao360, vllm, sglang, mindie, ollama, xinference, sandbox],
    ...[bailian, dify, ragflow],
  ].map((facts) => [facts.id, facts]),
)
