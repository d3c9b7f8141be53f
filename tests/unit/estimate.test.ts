import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { FITTED, defaultDataPath, fitCoefficients, heldOut, milliTokens, readSamples } from '../../scripts/fit-estimator.ts'
import { COEFFICIENTS } from '../../src/money/estimate-coefficients.ts'
import { FEATURES } from '../../src/money/estimate-features.ts'
import { isCommonWord } from '../../src/money/estimate-words.ts'
import {
  ATTACHMENT_TOKENS,
  countTokens,
  createCounter,
  estimateChatPrompt,
  measureChatPrompt,
  tokensOfAttachments,
  estimateEmbeddingsInput,
  sandboxTokens,
} from '../../src/money/estimate.ts'
import type { Tokenizer } from '../../src/money/estimate.ts'

const TOKENIZERS: readonly Tokenizer[] = ['qwen3', 'deepseek_v3', 'general', 'sandbox']
const ESTIMATED: readonly Tokenizer[] = ['qwen3', 'deepseek_v3', 'general']

const data_path = defaultDataPath(process.env['WEIR_SHARED_DIR'])
const hasData = existsSync(data_path)
if (!hasData) console.warn(`skipped: the estimator is not checked against real token counts, for there are none at ${data_path}`)

describe.skipIf(!hasData)('the estimator against real token counts', () => {
  const samples = hasData ? readSamples(data_path) : []

  it.each(FITTED)('has for %s the coefficients that a refit gives', (tokenizer) => {
    const column = FITTED.indexOf(tokenizer)
    expect(FEATURES.map((name) => COEFFICIENTS[name][column])).toEqual(milliTokens(fitCoefficients(samples, tokenizer)))
  })

  it.each(FITTED)('estimates %s on sources it was not fitted on within the promised error', (tokenizer) => {
    const held = heldOut(samples, tokenizer)
    expect(held.long_texts).toBeGreaterThan(100)
    expect(Math.abs(held.total_error)).toBeLessThan(0.05)
    expect(held.long_texts_within / held.long_texts).toBeGreaterThanOrEqual(0.9)
    const biased = [...held.by_class].filter(([, { error }]) => Math.abs(error) >= 0.05)
    expect(biased).toEqual([])
  })
})

describe('a count of tokens', () => {
  it.each(TOKENIZERS)('of %s is nothing for no text and something for any text', (tokenizer) => {
    expect(countTokens('', tokenizer)).toBe(0)
    const texts = [' ', '\n', 'a', '堰', '😀', '\ufffd', '\ud83d', '\udc00', '0']
    expect(texts.filter((text) => countTokens(text, tokenizer) < 1)).toEqual([])
  })

  it.each(ESTIMATED)('of %s takes a common English word for about a token and Chinese for less than a token a character', (tokenizer) => {
    expect(countTokens('the water of the river is measured at the weir every day', tokenizer)).toBeGreaterThanOrEqual(10)
    expect(countTokens('the water of the river is measured at the weir every day', tokenizer)).toBeLessThanOrEqual(15)
    const chinese = '都江堰是世界上历史最久的水利工程之一，它把江水分开，也用来测量水量。'
    expect(countTokens(chinese, tokenizer)).toBeGreaterThan(chinese.length / 2.5)
    expect(countTokens(chinese, tokenizer)).toBeLessThan(chinese.length)
  })

  it('has a digit for a token with Qwen3 and three digits for a token with DeepSeek', () => {
    const digits = '123456'.repeat(50)
    expect(countTokens(digits, 'qwen3')).toBeGreaterThan(250)
    expect(countTokens(digits, 'deepseek_v3')).toBeLessThan(120)
  })

  it('of an unknown tokenizer lies between the fitted ones', () => {
    const text = 'const 流量 = await gauge.read({ unit: "m3/s", at: 20261123 })\n'.repeat(20)
    const both = [countTokens(text, 'qwen3'), countTokens(text, 'deepseek_v3')]
    expect(countTokens(text, 'general')).toBeGreaterThanOrEqual(Math.min(...both) - 1)
    expect(countTokens(text, 'general')).toBeLessThanOrEqual(Math.max(...both) + 1)
  })

  it('can be read at any time without changing it', () => {
    const counter = createCounter('qwen3')
    counter.add('流')
    counter.total()
    counter.add('量')
    expect(counter.total()).toBe(countTokens('流量', 'qwen3'))
  })

  it('knows a listed Chinese word from another pair', () => {
    expect(isCommonWord('我'.charCodeAt(0), '们'.charCodeAt(0))).toBe(true)
    expect(isCommonWord('们'.charCodeAt(0), '我'.charCodeAt(0))).toBe(false)
  })
})

describe("the sandbox's tokens", () => {
  it.each([
    ['', []],
    ['hello, world', ['hello', ',', ' world']],
    ['measurement_12', ['measurem', 'ent_12']],
    ['堰 weir\n\n', ['堰', ' weir', '\n\n']],
    ['  \t', ['  \t']],
    ['a😀 😀b', ['a', '😀', ' 😀', 'b']],
    ['\ud83d \udc00x', ['\ud83d', ' \udc00', 'x']],
    ['\u3000全角\u00a0', ['\u3000全', '角', '\u00a0']],
  ])('of %j are %j', (text, tokens) => {
    expect(sandboxTokens(text)).toEqual(tokens)
    expect(countTokens(text, 'sandbox')).toBe(tokens.length)
  })
})

describe('the prompt of a chat request', () => {
  const tools = [{ type: 'function', function: { name: 'gauge', parameters: { type: 'object', properties: {} } } }]

  it('is exact by definition for the sandbox', () => {
    const call = { id: 'call_1', type: 'function', function: { name: 'gauge', arguments: '{"at":1}' } }
    const messages = [
      { role: 'user', content: 'how much water ' },
      { role: 'assistant', content: null, tool_calls: [call], reasoning_content: 'not counted here' },
      {
        role: 'tool',
        content: [
          { type: 'text', text: ' 12 m3/s' },
          { type: 'image_url', image_url: { url: 'data:,' } },
        ],
      },
    ]
    const texts = ['how much water ', 'gauge', '{"at":1}', ' 12 m3/s', JSON.stringify(tools)]
    const words = texts.reduce((sum, text) => sum + sandboxTokens(text).length, 0)
    expect(estimateChatPrompt({ messages, tools }, 'sandbox')).toBe(3 * 4 + 3 + words)
  })

  it.each(ESTIMATED)('adds fixed costs of messages, the answer and images for %s', (tokenizer) => {
    const text = 'measure the water'
    const words = countTokens(text, tokenizer)
    expect(estimateChatPrompt({ messages: [] }, tokenizer)).toBe(3)
    expect(estimateChatPrompt({ messages: [{ role: 'user', content: text }] }, tokenizer)).toBe(7 + words)
    const parts = [
      { type: 'text', text },
      { type: 'image_url', image_url: { url: 'https://example.com/weir.png' } },
    ]
    expect(estimateChatPrompt({ messages: [{ role: 'user', content: parts }] }, tokenizer)).toBe(7 + words + ATTACHMENT_TOKENS)
  })

  it('tells attachments apart by kind, with a type or without, beside texts of their own', () => {
    const url = { url: 'data:,' }
    const content = [
      { type: 'image_url', image_url: url },
      { image_url: url },
      { type: 'image_url', image_url: url, text: 'a text that hides it' },
      { type: 'input_audio', input_audio: { data: '', format: 'mp3' } },
      { type: 'video', video: ['a.jpg', 'b.jpg'] },
      { type: 'document', content: [] },
      { type: 'text', text: 'the water' },
    ]
    for (const tokenizer of [...ESTIMATED, 'sandbox'] as const) {
      const { attachments, text_tokens } = measureChatPrompt({ messages: [{ role: 'user', content }, { content }] }, tokenizer)
      expect(attachments).toEqual({ image: 6, audio: 2, video: 2, file: 2 })
      const words = countTokens('a text that hides it', tokenizer) + countTokens('the water', tokenizer)
      expect(Math.abs(text_tokens - (2 * 4 + 3 + 2 * words))).toBeLessThanOrEqual(1)
    }
    const bounds = { image: 4096, audio: 100, video: 16_384, file: 0 }
    expect(tokensOfAttachments({ image: 2, audio: 1, video: 1, file: 9 }, bounds)).toBe(2 * 4096 + 100 + 16_384)
    expect(tokensOfAttachments({ image: 2, audio: 1, video: 0, file: 9 }, bounds, 1024)).toBe(2 * 1024 + 100)
  })

  it.each(ESTIMATED)('counts names, reasoning, tools, functions and a JSON schema as text for %s', (tokenizer) => {
    const schema = { type: 'json_schema', json_schema: { name: 'flow', schema: { type: 'number' } } }
    const plain = estimateChatPrompt({ messages: [{ role: 'user', content: 'x' }] }, tokenizer)
    const more = (request: object, message: object): number =>
      estimateChatPrompt({ messages: [{ role: 'user', content: 'x', ...message }], ...request }, tokenizer) - plain
    expect(more({}, { name: 'engineer' })).toBeGreaterThan(0)
    expect(more({}, { reasoning_content: 'think about water' })).toBeGreaterThan(1)
    expect(more({ tools }, {})).toBeCloseTo(countTokens(JSON.stringify(tools), tokenizer), -1)
    expect(more({ functions: tools }, {})).toBe(more({ tools }, {}))
    expect(more({ response_format: schema }, {})).toBeCloseTo(countTokens(JSON.stringify(schema), tokenizer), -1)
    expect(more({ response_format: { type: 'json_object' } }, {})).toBe(0)
  })

  it('is bounded for values nested without end', () => {
    let parts: unknown = 'deep'
    for (let depth = 0; depth < 100_000; depth++) parts = [parts]
    expect(
      estimateChatPrompt({ messages: [{ content: parts }], tools: parts, response_format: { type: 'json_schema', parts } }, 'qwen3'),
    ).toBeLessThan(200)
  })

  it('takes messages of unknown form for empty ones', () => {
    expect(
      estimateChatPrompt(
        { messages: [null, 1, 'x', [], { content: 5 }, { content: [null, 7, {}] }, { tool_calls: [null, 3] }] },
        'general',
      ),
    ).toBe(7 * 4 + 3)
  })
})

describe('the input of an embeddings request', () => {
  it.each(TOKENIZERS)('counts texts as %s does and token ids one each', (tokenizer) => {
    expect(estimateEmbeddingsInput('water ', tokenizer)).toBe(countTokens('water ', tokenizer))
    expect(estimateEmbeddingsInput([1, 2, 3], tokenizer)).toBe(3)
    expect(estimateEmbeddingsInput([[1, 2], [3]], tokenizer)).toBe(3)
    expect(estimateEmbeddingsInput(null, tokenizer)).toBe(0)
  })

  it('keeps the texts of a list apart', () => {
    expect(estimateEmbeddingsInput(['ab', 'cd ', 'ef'], 'sandbox')).toBe(4)
  })
})
