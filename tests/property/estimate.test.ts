import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { countTokens, createCounter, estimateChatPrompt, sandboxTokens } from '../../src/money/estimate.ts'
import type { Tokenizer } from '../../src/money/estimate.ts'

const TOKENIZERS: readonly Tokenizer[] = ['qwen3', 'deepseek_v3', 'general', 'sandbox']

const seed = Number(process.env['WEIR_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
console.info(`seed of the estimator's properties: ${seed} (set WEIR_TEST_SEED to repeat)`)
const RUNS = { seed, numRuns: 300 }

/** UTF-16 code units of every class, many of them such as join with their neighbours, unpaired surrogates included. */
const unit = fc.oneof(
  fc.constantFrom(...Array.from('aZ09_ \t\n\r.-{"\\|我们可以，。　０ａéжのнกع'), '\ud83d', '\ude00', '\ufffd', '\u2028', '\u00a0'),
  fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)),
)
const text = fc.array(unit, { maxLength: 80 }).map((units) => units.join(''))
const cuts = fc.array(fc.nat(80), { maxLength: 12 })

function piecesOf(whole: string, at: readonly number[]): string[] {
  const edges = [0, ...at.filter((edge) => edge < whole.length).toSorted((a, b) => a - b), whole.length]
  return edges.slice(1).map((end, index) => whole.slice(edges[index], end))
}

describe.each(TOKENIZERS)('a counter of %s', (tokenizer) => {
  it('gives the total of the whole text for any pieces of it', () => {
    fc.assert(
      fc.property(text, cuts, (whole, at) => {
        const counter = createCounter(tokenizer)
        for (const piece of piecesOf(whole, at)) counter.add(piece)
        expect(counter.total()).toBe(countTokens(whole, tokenizer))
      }),
      RUNS,
    )
  })

  it('never falls, is whole, and is at least one for any text', () => {
    fc.assert(
      fc.property(text, (whole) => {
        const counter = createCounter(tokenizer)
        let before = 0
        for (let at = 0; at < whole.length; at++) {
          counter.add(whole.charAt(at))
          const after = counter.total()
          expect(Number.isSafeInteger(after) && after >= Math.max(1, before)).toBe(true)
          before = after
        }
      }),
      RUNS,
    )
  })

  it('estimates a prompt of any parsed JSON without throwing', () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue()), fc.jsonValue(), (messages, other) => {
        const request = { messages, tools: other, response_format: { type: 'json_schema', json_schema: other } }
        expect(estimateChatPrompt(request, tokenizer)).toBeGreaterThanOrEqual(3 + 4 * messages.length)
      }),
      RUNS,
    )
  })
})

describe("the sandbox's tokens", () => {
  it('are as many as its counter says and concatenate to the text', () => {
    fc.assert(
      fc.property(text, (whole) => {
        const tokens = sandboxTokens(whole)
        expect(tokens.join('')).toBe(whole)
        expect(countTokens(whole, 'sandbox')).toBe(tokens.length)
      }),
      RUNS,
    )
  })

  it('of tools are those of their JSON text', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (tools) => {
        const words = tools === null ? 0 : sandboxTokens(JSON.stringify(tools)).length
        expect(estimateChatPrompt({ messages: [], tools }, 'sandbox')).toBe(3 + words)
      }),
      RUNS,
    )
  })
})
