import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openaiDialect } from '../../src/upstream/dialects/openai.ts'
import type { AnswerLabel } from '../../src/upstream/dialects/label.ts'
import { answerContext, everySplit, translate } from '../support/streams.ts'

const FIXTURES = resolve(import.meta.dirname, '..', 'fixtures', 'streams')
const TEXT = '（AI"生成"）'

function fixture(name: string): Buffer {
  return readFileSync(resolve(FIXTURES, `${name}.sse`))
}

function whole(answer: object, place: AnswerLabel['place']): { readonly out: string; readonly repairs: readonly string[] } {
  const { out, observation } = openaiDialect.whole(Buffer.from(JSON.stringify(answer)), answerContext({ label: { text: TEXT, place } }))
  return { out: out.toString(), repairs: observation.repairs }
}

function chunk(delta: object, finish_reason: string | null = null, index = 0): string {
  return `data: ${JSON.stringify({ id: 'a', created: 1, model: 'weir-chat', choices: [{ index, delta, finish_reason }] })}\n\n`
}

describe('a stream', () => {
  it.each(['start', 'end'] as const)('has the label once per text, at its %s, however it is split, and no more tokens', (place) => {
    const bytes = fixture(`aigc-label-${place}.before`)
    const context = answerContext({ label: { text: TEXT, place } })
    const outcome = translate(openaiDialect, context, [bytes])
    expect(outcome.out).toBe(fixture(`aigc-label-${place}.after`).toString())
    expect(outcome.observed.repairs).toEqual(['aigc_label'])
    for (const chunks of everySplit(bytes)) expect(translate(openaiDialect, context, chunks)).toEqual(outcome)
    const plain = translate(openaiDialect, answerContext(), [bytes])
    expect(plain.out).not.toContain('AI')
    expect(outcome.observed.estimated_output).toBe(plain.observed.estimated_output)
  })

  it.each([
    ['content', [chunk({ content: 'a' }), chunk({ content: 'b' }, 'stop')], 'b"', `b（AI\\"生成\\"）"`],
    [
      'no content at the end',
      [chunk({ content: 'a' }), chunk({ content: null }, 'length')],
      '"content":null',
      '"content":"（AI\\"生成\\"）"',
    ],
    [
      'a text that is sent once more at the end',
      [chunk({ content: 'abcdefgh' }), chunk({ content: 'ij' }), chunk({ content: 'abcdefghij' }, 'stop')],
      '"abcdefghij"',
      '"（AI\\"生成\\"）"',
    ],
  ])('ends in the label behind %s', (_, chunks, before, after) => {
    const stream = chunks.join('')
    const { out } = translate(openaiDialect, answerContext({ label: { text: TEXT, place: 'end' } }), [Buffer.from(stream)])
    expect(out).toBe(stream.replace(before, after))
  })

  it('of blanks and tool calls has none', () => {
    const call = { index: 0, id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }
    const stream = chunk({ role: 'assistant', content: '\n\n' }) + chunk({ tool_calls: [call] }) + chunk({}, 'tool_calls')
    for (const place of ['start', 'end'] as const) {
      const { out, observed } = translate(openaiDialect, answerContext({ label: { text: TEXT, place } }), [Buffer.from(stream)])
      expect([out, observed.repairs]).toEqual([stream, []])
    }
  })

  it('that breaks off has what came before', () => {
    const { out, failure } = translate(openaiDialect, answerContext({ label: { text: TEXT, place: 'start' } }), [
      Buffer.from(chunk({ content: 'a' })),
    ])
    expect([out, failure]).toEqual([chunk({ content: `${TEXT}a` }), 'truncated'])
  })
})

describe('a whole answer', () => {
  const message = (content: unknown, more: object = {}): object => ({
    index: 0,
    message: { role: 'assistant', content, ...more },
    finish_reason: 'stop',
  })
  const answer = (...choices: readonly object[]): object => ({
    id: 'a',
    model: 'weir-chat',
    choices,
    usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
  })

  it.each([
    ['start', `${TEXT}早\n"x"`],
    ['end', `早\n"x"${TEXT}`],
  ] as const)('has it at its %s, and every other byte as it was', (place, content) => {
    expect(whole(answer(message('早\n"x"')), place)).toEqual({ out: JSON.stringify(answer(message(content))), repairs: ['aigc_label'] })
  })

  it('of tool calls alone, or of reasoning alone, has none', () => {
    const calls = { tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }] }
    for (const choice of [message(null, calls), message('', calls), message(' \n', calls), message('', { reasoning_content: 'hm' })]) {
      expect(whole(answer(choice), 'start')).toEqual({ out: JSON.stringify(answer(choice)), repairs: [] })
      expect(whole(answer(choice), 'end')).toEqual({ out: JSON.stringify(answer(choice)), repairs: [] })
    }
  })

  it('of parts becomes a text with the label, and each choice has its own', () => {
    const parts = [{ type: 'text', text: 'x' }]
    const { out, repairs } = whole(answer(message(parts), { ...message('y'), index: 1 }), 'start')
    expect(JSON.parse(out)).toEqual(answer(message(`${TEXT}x`), { ...message(`${TEXT}y`), index: 1 }))
    expect(repairs.toSorted()).toEqual(['aigc_label', 'content_text'])
  })
})
