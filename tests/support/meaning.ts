/** What a client makes of a stream: put together as the official SDKs do, which join texts of one name and look calls up by index. */
export interface Meaning {
  readonly content: string
  readonly reasoning: string
  readonly role: string | null
  readonly calls: readonly { readonly id: string; readonly type: string; readonly name: string; readonly arguments: string }[]
  readonly finish: string | null
  readonly native_finish: string | null
  readonly usage: Readonly<Record<string, unknown>> | null
}

interface Call {
  id?: string
  type?: string
  function?: { name?: string; arguments?: string }
}
interface Delta {
  readonly role?: string | null
  readonly content?: string | null
  readonly reasoning_content?: string | null
  readonly tool_calls?: readonly (Call & { readonly index: number })[] | null
}
interface Chunk {
  readonly choices: readonly {
    readonly index: number
    readonly delta: Delta
    readonly finish_reason: string | null
    readonly native_finish_reason?: string
  }[]
  readonly usage?: Readonly<Record<string, unknown>> | null
}

/** The meaning of choice `wanted` of a translated stream. @throws Error for what an SDK could not put together */
export function meaningOf(stream: string, wanted = 0): Meaning {
  let [content, reasoning, role]: [string, string, string | null] = ['', '', null]
  const calls: Call[] = []
  let finish: string | null = null
  let native_finish: string | null = null
  let usage: Meaning['usage'] = null
  for (const { choices, usage: reported } of chunksOf(stream)) {
    usage = reported ?? usage
    for (const choice of choices.filter(({ index }) => index === wanted)) {
      const { delta } = choice
      content += textOf(delta.content)
      reasoning += textOf(delta.reasoning_content)
      if (typeof delta.role === 'string') role = (role ?? '') + delta.role
      for (const fragment of delta.tool_calls ?? []) joinCall(calls, fragment)
      finish = choice.finish_reason ?? finish
      native_finish = choice.native_finish_reason ?? native_finish
    }
  }
  return { content, reasoning, role, calls: calls.map(wholeCall), finish, native_finish, usage }
}

/** The chunks of a stream. @throws Error for data that is no JSON object with choices */
export function chunksOf(stream: string): Chunk[] {
  return stream
    .split(/\r\n\r\n|\n\n|\r\r/)
    .map((event) =>
      event
        .split(/\r\n|\n|\r/)
        .filter((line) => line.startsWith('data:'))
        .map((line) => line.slice(5).replace(/^ /, ''))
        .join('\n'),
    )
    .filter((data) => data !== '' && data !== '[DONE]')
    .map((data) => {
      const chunk = JSON.parse(data) as Chunk
      if (!Array.isArray(chunk.choices)) throw new Error(`a chunk without choices: ${data}`)
      return chunk
    })
}

function textOf(text: unknown): string {
  if (text === null || text === undefined) return ''
  if (typeof text !== 'string') throw new Error(`a text that is none: ${JSON.stringify(text)}`)
  return text
}

function joinCall(calls: Call[], { index, ...fragment }: Call & { readonly index: number }): void {
  if (!Number.isSafeInteger(index) || index < 0 || index > calls.length) throw new Error(`tool call index ${index} of ${calls.length}`)
  const known = (calls[index] ??= {})
  known.id = (known.id ?? '') + (fragment.id ?? '')
  known.type = fragment.type ?? known.type ?? ''
  known.function ??= {}
  known.function.name = (known.function.name ?? '') + (fragment.function?.name ?? '')
  known.function.arguments = (known.function.arguments ?? '') + textOf(fragment.function?.arguments)
}

function wholeCall(call: Call): Meaning['calls'][number] {
  const made = { id: call.id ?? '', type: call.type ?? '', name: call.function?.name ?? '', arguments: call.function?.arguments ?? '' }
  if (made.id === '' || made.type === '' || made.name === '') throw new Error(`an unfinished tool call: ${JSON.stringify(made)}`)
  return made
}
