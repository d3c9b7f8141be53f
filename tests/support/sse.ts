/** A stream as a client gets it: its bytes and what its events say. */
export interface StreamText {
  readonly text: string
  /** Parsed `data:` of every event but the terminator. */
  readonly events: readonly StreamChunk[]
  readonly done_count: number
  /** The message of the answer put together. */
  readonly content: string
  readonly error: ErrorObject | null
}

export interface StreamChunk {
  readonly model?: string
  readonly choices?: ReadonlyArray<{ readonly delta?: { readonly content?: string | null }; readonly finish_reason?: string | null }>
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null
  readonly error?: ErrorObject
}

export interface ErrorObject {
  readonly message: string
  readonly type: string
  readonly param: string | null
  readonly code: string
  readonly request_id: string
}

export function readSse(text: string): StreamText {
  const datas = text.split('\n').flatMap((line) => (line.startsWith('data:') ? [line.slice(5).trim()] : []))
  const events = datas.filter((data) => data !== '[DONE]').map((data) => JSON.parse(data) as StreamChunk)
  const content = events.map((event) => event.choices?.[0]?.delta?.content ?? '').join('')
  const error = events.find((event) => event.error !== undefined)?.error ?? null
  return { text, events, done_count: datas.filter((data) => data === '[DONE]').length, content, error }
}

/** The whole answer to a streamed request. */
export async function sseOf(response: Response): Promise<StreamText> {
  return readSse(await response.text())
}

export async function errorOf(response: Response): Promise<ErrorObject> {
  return ((await response.json()) as { error: ErrorObject }).error
}
