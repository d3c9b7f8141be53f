import { describe, expect, it } from 'vitest'
import { meaningOf } from '../support/meaning.ts'
import { startVariants, VARIANTS } from '../support/variants.ts'

const TOOL = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}
const QUESTION = { role: 'user', content: 'What is the weather in Hangzhou?' }

interface Message {
  readonly role: string
  readonly content: string | null
  readonly reasoning_content?: string
  readonly tool_calls: readonly { readonly id: string; readonly function: { readonly name: string; readonly arguments: string } }[]
}
interface Answer {
  readonly choices: readonly { readonly message: Message; readonly finish_reason: string }[]
}

describe('a conversation with tool calls', () => {
  it.each([false, true])('goes on at every other provider, whichever answered first (stream %s)', { timeout: 300_000 }, async (stream) => {
    const { gateway, sandbox } = await startVariants({ reasoning_tokens: 3 })
    const asked: [string, Message][] = []
    for (const { id } of VARIANTS) {
      const response = await gateway.chat({ model: id, messages: [QUESTION], tools: [TOOL], stream })
      expect([id, response.status]).toEqual([id, 200])
      const message = stream ? fromStream(await response.text()) : await wholeMessage(response)
      expect([id, message.reasoning_content]).toEqual([id, id.includes('qianfan_v1') ? undefined : 'The user says'])
      expect([id, message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)])]).toEqual([
        id,
        [['get_weather', { city: 'Hangzhou' }]],
      ])
      asked.push([id, message])
    }
    for (const [first, message] of asked) {
      const result = { role: 'tool', tool_call_id: message.tool_calls[0]?.id, content: '{"celsius":21}' }
      const messages = [QUESTION, message, result]
      const answers = VARIANTS.map(async ({ id }) => {
        const response = await gateway.chat({ model: id, messages, tools: [TOOL], stream })
        const body = await response.text()
        const content =
          response.status !== 200 ? body : stream ? meaningOf(body).content : (JSON.parse(body) as Answer).choices[0]?.message.content
        expect([first, id, response.status, content]).toEqual([first, id, 200, expect.stringContaining('{"celsius":21}')])
      })
      await Promise.all(answers)
    }
    const rows = sandbox.served({ limit: 10_000 }).served
    expect(rows.filter(({ directive }) => directive !== 'answer')).toEqual([])
    expect((await gateway.audit()).events).toBe(VARIANTS.length * (VARIANTS.length + 1))
  })
})

/** The message that a client puts together, with no more in it than the SDK knows, but for the reasoning. */
function fromStream(stream: string): Message {
  const { content, reasoning, calls, finish } = meaningOf(stream)
  expect(finish).toBe('tool_calls')
  expect(stream.match(/data: \[DONE\]/g)).toHaveLength(1)
  return {
    ...{ role: 'assistant', content: content === '' ? null : content },
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    tool_calls: calls.map(({ id, type, name, arguments: given }) => ({ id, type, function: { name, arguments: given } })),
  }
}

async function wholeMessage(response: Response): Promise<Message> {
  const [choice] = ((await response.json()) as Answer).choices
  if (choice === undefined) throw new Error('an answer without a choice')
  expect(choice.finish_reason).toBe('tool_calls')
  return choice.message
}
