import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createCounter } from '../../src/money/estimate.ts'
import { openaiDialect } from '../../src/upstream/dialects/openai.ts'
import { propertySeed } from '../support/seed.ts'
import { answerContext, translate } from '../support/streams.ts'

const seed = propertySeed()

/** How a string may be written: as JSON writes it, or with every character escaped. */
const written = fc.tuple(fc.string({ unit: 'binary', maxLength: 12 }), fc.boolean()).map(([text, escaped]) => ({
  text,
  json: escaped ? `"${[...text].map((one) => [...one].map(escapeAll).join('')).join('')}"` : JSON.stringify(text),
}))
const escapeAll = (text: string): string =>
  Array.from({ length: text.length }, (_, at) => `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')

/** A few shapes, so that runs of one shape are usual and changes of shape happen. */
const shape = fc.record({
  id: fc.constantFrom('a', 'b'),
  index: fc.constantFrom(0, 0, 1, -1),
  field: fc.constantFrom('content', 'content', 'reasoning_content'),
  more: fc.constantFrom('', ',"annotations":[]', ',"content":"twice"', ',"refusal":"no"'),
  finish: fc.constantFrom('null', 'null', '""', '"stop"'),
  usage: fc.constantFrom('', '', ',"usage":null', ',"usage":{"prompt_tokens":1,"completion_tokens":2}'),
  end: fc.constantFrom('\n\n', '\n\n', '\r\n\r\n'),
})
const run = fc.tuple(shape, fc.array(written, { minLength: 1, maxLength: 5 }))

type Shape = typeof shape extends fc.Arbitrary<infer T> ? T : never

const chunkOf = ({ id, index, field, more, finish, usage }: Shape, json: string): string =>
  `{"id":"${id}","model":"up","choices":[{"index":${index},"delta":{"${field}":${json}${more}},"finish_reason":${finish}}]${usage}}`

it('a chunk is passed and counted the same whatever came before it', () => {
  const property = fc.property(fc.array(run, { minLength: 1, maxLength: 5 }), fc.boolean(), (runs, usage_asked) => {
    const context = answerContext({ usage_asked, tokenizer: 'qwen3' })
    const events = runs.flatMap(([form, texts]) => texts.map(({ json }) => `data: ${chunkOf(form, json)}${form.end}`))
    const whole = translate(openaiDialect, context, [Buffer.from(events.join(''))])
    const alone = events.map((event) => openaiDialect.streamed(context).push(Buffer.from(event)))
    const out = Buffer.concat(alone.map((step) => step.out)).toString()
    expect(whole.out.startsWith(out)).toBe(true)
    expect(whole.data_events).toBe(alone.reduce((sum, step) => sum + step.data_events, 0))
    expect(whole.observed.estimated_output).toBe(estimateOf(runs))
  })
  fc.assert(property, { seed, numRuns: 500 })
})

/** Counted by the plainest rule: the parsed texts of each choice, in order. */
function estimateOf(runs: readonly [Shape, readonly { readonly text: string; readonly json: string }[]][]): number {
  const counters = new Map<string, ReturnType<typeof createCounter>>()
  const count = (name: string, text: unknown): void => {
    if (typeof text !== 'string' || text === '') return
    const counter = counters.get(name) ?? createCounter('qwen3')
    counters.set(name, counter)
    counter.add(text)
  }
  for (const [form, texts] of runs) {
    const index = Math.max(0, form.index)
    for (const { json } of texts) {
      const { choices } = JSON.parse(chunkOf(form, json)) as { choices: { delta: Record<string, unknown> }[] }
      for (const [name, text] of Object.entries(choices[0]?.delta ?? {})) if (name !== 'role') count(`${index} ${name}`, text)
    }
  }
  return [...counters.values()].reduce((sum, counter) => sum + counter.total(), 0)
}
