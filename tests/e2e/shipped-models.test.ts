import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { startShipped, type ShippedGateway } from '../support/shipped.ts'

const QUESTION = [{ role: 'user' as const, content: 'hello' }]
const ANSWER = 'You said: "hello"'

/** The sandbox's own count of the latest request. */
function served(gateway: ShippedGateway): { prompt_tokens: number; sent_tokens: number; path: string } {
  const row = gateway.sandbox.served({ limit: 10_000 }).served.at(-1)
  if (row === undefined) throw new Error('the sandbox served nothing')
  return row
}

function modelsOf(gateway: ShippedGateway, kind: 'chat' | 'embeddings' | 'rerank'): string[] {
  return gateway.plane
    .snapshot()
    .callable.filter((model) => model.kind === kind)
    .map(({ id }) => id)
}

describe('every model of the shipped catalogue, through the official SDK', () => {
  it('answers a chat, streamed and not, with the text, usage and finish reason that its provider sent', { timeout: 240_000 }, async () => {
    const gateway = await startShipped()
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.account_of_test.secret, maxRetries: 0 })
    const models = modelsOf(gateway, 'chat')
    expect(models.length).toBeGreaterThan(120)
    for (const model of models) {
      const whole = await client.chat.completions.create({ model, messages: QUESTION })
      const [choice] = whole.choices
      const first = served(gateway)
      expect([model, choice?.message.content, choice?.finish_reason, whole.model]).toEqual([
        model,
        expect.stringContaining(ANSWER),
        'stop',
        model,
      ])
      expect([model, whole.usage?.prompt_tokens, whole.usage?.completion_tokens]).toEqual([model, first.prompt_tokens, first.sent_tokens])
      const final = await client.chat.completions
        .stream({ model, messages: QUESTION, stream_options: { include_usage: true } })
        .finalChatCompletion()
      const second = served(gateway)
      expect([model, final.choices[0]?.message.content, final.choices[0]?.finish_reason]).toEqual([model, choice?.message.content, 'stop'])
      expect([model, final.usage?.prompt_tokens, final.usage?.completion_tokens]).toEqual([model, second.prompt_tokens, second.sent_tokens])
    }
    await gateway.storage.ledger.post()
    const facts = await gateway.storage.ledger.auditFacts()
    expect(facts.events).toBe(models.length * 2)
  })

  it('makes embeddings, in parts where the provider takes no more, and metered once', async () => {
    const gateway = await startShipped()
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.account_of_test.secret, maxRetries: 0 })
    for (const model of modelsOf(gateway, 'embeddings')) {
      const input = Array.from({ length: 70 }, (_, index) => `text ${index}`)
      gateway.sandbox.reset()
      const answer = await client.embeddings.create({ model, input })
      expect(answer.data.map(({ index }) => index)).toEqual(input.map((_, index) => index))
      expect([model, answer.usage.prompt_tokens]).toEqual([model, gateway.sandbox.served().totals.prompt_tokens])
      const alone = await client.embeddings.create({ model, input: input[41] ?? '' })
      expect(answer.data[41]?.embedding).toEqual(alone.data[0]?.embedding)
    }
  })

  it('ranks documents', async () => {
    const gateway = await startShipped()
    for (const model of modelsOf(gateway, 'rerank')) {
      const response = await gateway.post('/v1/rerank', { model, query: 'abc', documents: ['xyz', 'abc', { text: 'abx' }], top_n: 2 })
      expect(response.status).toBe(200)
      expect(await response.json()).toMatchObject({ model, results: [{ index: 1 }, { index: 2 }] })
    }
    expect(modelsOf(gateway, 'rerank')).toContain('gte-rerank-v2')
  })
})
