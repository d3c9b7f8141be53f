import type { LayoutName } from './directives.ts'

/** What an answer says of itself. */
export interface Stamp {
  readonly id: string
  readonly model: string
  readonly created_s: number
}

/** Figures that an answer reports. They may be asked to lie; the tally never reads them. */
export interface ReportedUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly cached_tokens: number
  readonly reasoning_tokens: number
}

/** How a provider writes its chunks. */
export interface Layout {
  /** Members before `choices`, between `choices` and `usage`, and after: with their commas. */
  readonly before: (stamp: Stamp) => string
  readonly between: (stamp: Stamp) => string
  readonly after: (stamp: Stamp) => string
  readonly choice: (parts: ChoiceParts) => string
  /** `own`: a chunk with the role alone comes first. */
  readonly role: 'own' | 'first' | 'every'
  /** With thinking on, every delta names both texts, one of them null. */
  readonly names_both: boolean
  readonly last_delta: string
  readonly last_members: string
  /** False where an answer ends without a finish reason. */
  readonly says_finish: boolean
  /** A tool call is one object in one chunk, without id and index. */
  readonly single_call: boolean
  /** `usage: null` on every chunk: always, when usage was asked for, never. */
  readonly null_usage: 'always' | 'asked' | 'never'
  readonly usage: (usage: ReportedUsage, last: boolean) => string
}

interface ChoiceParts {
  readonly index: number
  readonly delta: string
  /** JSON of the finish reason, or null to leave the member out. */
  readonly finish: string | null
  /** Further members, each with a comma before it. */
  readonly more: string
}

export const text = JSON.stringify
const finishMember = (finish: string | null): string => (finish === null ? '' : `,"finish_reason":${finish}`)
const plainChoice = ({ index, delta, finish, more }: ChoiceParts): string =>
  `{"index":${index},"delta":{${delta}}${finishMember(finish)}${more}}`
const loggedChoice = ({ index, delta, finish, more }: ChoiceParts): string =>
  `{"index":${index},"delta":{${delta}},"logprobs":null${finishMember(finish)}${more}}`
const qwenChoice = ({ index, delta, finish, more }: ChoiceParts): string =>
  finish === null
    ? `{"delta":{${delta}},"index":${index}${more}}`
    : `{"delta":{${delta}}${finishMember(finish)},"index":${index},"logprobs":null${more}}`

const OBJECT = '"object":"chat.completion.chunk"'
const idFirst = ({ id, created_s, model }: Stamp): string => `"id":${text(id)},${OBJECT},"created":${created_s},"model":${text(model)},`
const nothing = (): string => ''
const total = (usage: ReportedUsage): number => usage.prompt_tokens + usage.completion_tokens
const counts = (usage: ReportedUsage): string =>
  `"prompt_tokens":${usage.prompt_tokens},"completion_tokens":${usage.completion_tokens},"total_tokens":${total(usage)}`
const cachedDetail = (usage: ReportedUsage): string => `,"prompt_tokens_details":{"cached_tokens":${usage.cached_tokens}}`
const reasoningDetail = (usage: ReportedUsage): string => `,"completion_tokens_details":{"reasoning_tokens":${usage.reasoning_tokens}}`
const cachedIfAny = (usage: ReportedUsage): string => (usage.cached_tokens > 0 ? cachedDetail(usage) : '')

const PLAIN: Layout = {
  before: idFirst,
  between: nothing,
  after: nothing,
  choice: plainChoice,
  role: 'own',
  names_both: false,
  last_delta: '"content":""',
  last_members: '',
  says_finish: true,
  single_call: false,
  null_usage: 'never',
  usage: (usage) => `{${counts(usage)}${cachedIfAny(usage)}}`,
}

/** Key order and members as in the recorded streams of each provider. */
export const LAYOUTS: Readonly<Record<LayoutName, Layout>> = {
  openai: {
    ...PLAIN,
    before: (stamp) => `${idFirst(stamp)}"system_fingerprint":"fp_sandbox",`,
    choice: loggedChoice,
    last_delta: '',
    null_usage: 'asked',
    usage: (usage) => `{${counts(usage)}${cachedDetail(usage)}${reasoningDetail(usage)}}`,
  },
  deepseek: {
    ...PLAIN,
    before: (stamp) => `${idFirst(stamp)}"system_fingerprint":"fp_sandbox",`,
    choice: loggedChoice,
    names_both: true,
    null_usage: 'always',
    usage: (usage) =>
      `{${counts(usage)}${cachedDetail(usage)}${reasoningDetail(usage)},"prompt_cache_hit_tokens":${usage.cached_tokens},` +
      `"prompt_cache_miss_tokens":${usage.prompt_tokens - usage.cached_tokens}}`,
  },
  qwen: {
    ...PLAIN,
    before: nothing,
    between: () => `,${OBJECT}`,
    after: ({ created_s, model, id }) => `,"created":${created_s},"system_fingerprint":null,"model":${text(model)},"id":${text(id)}`,
    choice: qwenChoice,
    names_both: true,
    null_usage: 'asked',
    usage: (usage) => `{${counts(usage)}${usage.reasoning_tokens > 0 ? reasoningDetail(usage) : ''}${cachedDetail(usage)}}`,
  },
  moonshot: {
    ...PLAIN,
    last_delta: '',
    usage: (usage) => `{${counts(usage)},"cached_tokens":${usage.cached_tokens}}`,
  },
  minimax: {
    ...PLAIN,
    before: ({ id, created_s, model }) => `"id":${text(id)},"created":${created_s},"model":${text(model)},`,
    between: () => `,${OBJECT}`,
    role: 'first',
    usage: (usage) =>
      `{"total_tokens":${total(usage)},"prompt_tokens":${usage.prompt_tokens},` +
      `"completion_tokens":${usage.completion_tokens}${cachedIfAny(usage)}}`,
  },
  stepfun: { ...PLAIN, role: 'first' },
  doubao: {
    ...PLAIN,
    before: ({ id, created_s, model }) =>
      `${OBJECT},"created":${created_s},"id":${text(id)},"model":${text(model)},"service_tier":"default",`,
    role: 'every',
    null_usage: 'asked',
    usage: (usage) => `{${counts(usage)}${cachedDetail(usage)}${reasoningDetail(usage)}}`,
  },
  zhipu: {
    ...PLAIN,
    before: ({ id, created_s, model }) => `"id":${text(id)},"created":${created_s},"model":${text(model)},`,
    role: 'every',
  },
  spark: {
    ...PLAIN,
    before: ({ id, created_s }) => `"code":0,"message":"Success","sid":${text(id)},"id":${text(id)},"created":${created_s},`,
    choice: ({ index, delta, more }) => `{"delta":{${delta}},"index":${index}${more}}`,
    role: 'every',
    says_finish: false,
    single_call: true,
  },
  qianfan: { ...PLAIN, choice: (parts) => plainChoice({ ...parts, more: `,"flag":0${parts.more}` }), role: 'first' },
  siliconflow: { ...PLAIN, role: 'every', names_both: true },
  mindie: { ...PLAIN, role: 'every', usage: (usage) => `{${counts(usage)}${cachedDetail(usage)}${reasoningDetail(usage)}}` },
  sglang: {
    ...PLAIN,
    choice: loggedChoice,
    last_delta: '',
    last_members: ',"matched_stop":null',
    usage: (usage) => `{${counts(usage)}${cachedIfAny(usage)},"reasoning_tokens":${usage.reasoning_tokens}}`,
  },
  ollama: {
    ...PLAIN,
    before: (stamp) => `${idFirst(stamp)}"system_fingerprint":"fp_ollama",`,
    role: 'every',
    usage: (usage) => `{${counts(usage)}}`,
  },
  baichuan: { ...PLAIN, role: 'every' },
  ragflow: { ...PLAIN, role: 'every', last_delta: '"content":null', null_usage: 'always', usage: (usage) => `{${counts(usage)}}` },
  vllm: {
    ...PLAIN,
    choice: loggedChoice,
    last_members: ',"stop_reason":null',
    usage: (usage, last) =>
      `{"prompt_tokens":${usage.prompt_tokens},"total_tokens":${total(usage)},"completion_tokens":${usage.completion_tokens}` +
      `${last ? cachedDetail(usage) : ''}}`,
  },
}
