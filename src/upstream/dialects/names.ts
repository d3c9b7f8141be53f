/** The wire protocols that upstreams are spoken to in; the first is everyone's unless an endpoint says another. */
export const DIALECTS = ['openai', 'anthropic', 'qwen_native', 'hunyuan_native', 'qianfan_v1', 'dify', 'bailian_app', 'ragflow'] as const
export type DialectName = (typeof DIALECTS)[number]
