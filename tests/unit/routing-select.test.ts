import { describe, expect, it } from 'vitest'
import { chanceOf, conversationKey, drawOrder } from '../../src/routing/draw.ts'
import { needsOf, unmetNeed } from '../../src/routing/needs.ts'
import { promptOf } from '../../src/routing/prompt.ts'
import { fallbackReason, lackingOf, leadOf, reasonOf } from '../../src/routing/reason.ts'
import { type Candidate, nearestObstacle, OBSTACLES, orderCandidates, type Policy } from '../../src/routing/select.ts'

const candidate = (id: string, more: Partial<Candidate> = {}): Candidate => ({
  ...{ id, domain: 'general', weight: 1, quality: 50, obstacle: null, tight: false, price_nano: 1000n, latency_ms: null },
  ...more,
})
const policy = (more: Partial<Policy> = {}): Policy => ({ prefer: 'balanced', canary: null, ...more })
const orderOf = (candidates: readonly Candidate[], domain: string, given: Policy, key = 'k'): readonly string[] =>
  orderCandidates(candidates, domain, given, chanceOf(key)).order.map(({ id }) => id)

describe('the order of candidates', () => {
  const med = candidate('med', { domain: 'healthcare' })
  const law = candidate('law', { domain: 'legal' })
  const any = candidate('any')

  it.each([
    ['the domain before general', [any, med, law], 'healthcare', ['med', 'any']],
    ['general alone for general', [any, med, law], 'general', ['any']],
    ['no other domain', [med, law], 'finance', []],
    ['what cannot serve is left out', [any, { ...med, obstacle: 'tools' } as const], 'healthcare', ['any']],
    ['a short context after everything else', [any, { ...med, tight: true }], 'healthcare', ['any', 'med']],
    ['nothing', [], 'general', []],
  ])('%s', (_, candidates, domain, expected) => {
    expect(orderOf(candidates, domain, policy())).toEqual(expected)
  })

  it('goes by price, and what differs by less than a fiftieth counts as equal', () => {
    const priced = [
      candidate('dear', { price_nano: 2000n }),
      candidate('cheap', { price_nano: 1000n }),
      candidate('dearest', { price_nano: 9000n }),
    ]
    expect(orderOf(priced, 'general', policy({ prefer: 'cost' }))).toEqual(['cheap', 'dear', 'dearest'])
    const equals = [candidate('a', { price_nano: 1000n }), candidate('b', { price_nano: 1010n })]
    const firsts = new Set(Array.from({ length: 50 }, (_, index) => orderOf(equals, 'general', policy({ prefer: 'cost' }), `k${index}`)[0]))
    expect(firsts).toEqual(new Set(['a', 'b']))
    expect(orderOf([candidate('some'), candidate('free', { price_nano: 0n })], 'general', policy({ prefer: 'cost' }))).toEqual([
      'free',
      'some',
    ])
  })

  it('goes by quality', () => {
    const rated = [candidate('good', { quality: 60 }), candidate('best', { quality: 90 }), candidate('poor', { quality: 10 })]
    expect(orderOf(rated, 'general', policy({ prefer: 'quality' }))).toEqual(['best', 'good', 'poor'])
  })

  it('goes by latency in steps, and looks at what nobody has seen lately first', () => {
    const timed = [
      candidate('slow', { latency_ms: 900 }),
      candidate('fast', { latency_ms: 200 }),
      candidate('slower', { latency_ms: 2000 }),
    ]
    expect(orderOf(timed, 'general', policy({ prefer: 'latency' }))).toEqual(['fast', 'slow', 'slower'])
    const near = [candidate('a', { latency_ms: 200 }), candidate('b', { latency_ms: 230 })]
    const firsts = new Set(
      Array.from({ length: 50 }, (_, index) => orderOf(near, 'general', policy({ prefer: 'latency' }), `k${index}`)[0]),
    )
    expect(firsts).toEqual(new Set(['a', 'b']))
    expect(orderOf([candidate('seen', { latency_ms: 500 }), candidate('new')], 'general', policy({ prefer: 'latency' }))).toHaveLength(2)
    expect(
      orderOf(
        [candidate('seen', { latency_ms: 500 }), candidate('fast', { latency_ms: 100 }), candidate('new')],
        'general',
        policy({ prefer: 'latency' }),
      )[2],
    ).toBe('seen')
  })

  it('puts the canary before its equals, also with a weight of 0, but never one that cannot serve, is for another domain, or would take the place of a vertical one', () => {
    const canary = { model: 'new', percent: 100 }
    const fresh = candidate('new', { weight: 0 })
    expect(orderCandidates([any, fresh], 'general', policy({ canary }), chanceOf('k'))).toMatchObject({ order: [fresh, any], by: 'canary' })
    expect(orderOf([any, { ...fresh, obstacle: 'unhealthy' }], 'general', policy({ canary }))).toEqual(['any'])
    expect(orderOf([any, { ...fresh, domain: 'legal' }], 'general', policy({ canary }))).toEqual(['any'])
    expect(orderOf([any, fresh], 'general', policy({ canary: { ...canary, percent: 0 } }))).toEqual(['any', 'new'])
    expect(orderOf([med, fresh], 'healthcare', policy({ canary }))).toEqual(['med', 'new'])
  })

  it.each([
    ['only', [any], 'balanced'],
    ['weight', [any, candidate('b')], 'balanced'],
    ['cost', [any, candidate('b')], 'cost'],
    ['quality', [any, candidate('b')], 'quality'],
    ['latency', [any, candidate('b')], 'latency'],
  ] as const)('says by what: %s', (by, candidates, prefer) => {
    expect(orderCandidates(candidates, 'general', policy({ prefer }), chanceOf('k')).by).toBe(by)
  })

  it('names the obstacle of the candidate that was nearest to serving', () => {
    expect(nearestObstacle([candidate('a', { obstacle: 'filing' }), candidate('b', { obstacle: 'zone' })])).toBe('filing')
    expect(nearestObstacle([candidate('a', { obstacle: 'unhealthy' }), candidate('b', { obstacle: 'vision' })])).toBe('unhealthy')
    expect(nearestObstacle([])).toBeNull()
    expect(OBSTACLES[0]).toBe('domain')
  })
})

describe('a draw', () => {
  it('puts what has no weight last', () => {
    const items = [
      { id: 'none', weight: 0 },
      { id: 'some', weight: 1 },
      { id: 'more', weight: 900 },
    ]
    for (let key = 0; key < 50; key += 1) expect(drawOrder(items, chanceOf(`k${key}`)).at(-1)?.id).toBe('none')
  })

  it('is of the tenant, the system prompt and the opening, however they are cut', () => {
    const keys = [
      conversationKey('t', 'a', 'b'),
      conversationKey('t', 'ab', ''),
      conversationKey('u', 'a', 'b'),
      conversationKey('t', null, 'b'),
    ]
    expect(new Set(keys).size).toBe(4)
  })
})

describe('what is read of a prompt', () => {
  it.each([
    ['nothing', null, { system: null, turns: [], opening: null }],
    ['no list', 'hello', { system: null, turns: [], opening: null }],
    ['odd messages', [1, null, {}, { role: 7 }, { role: 'user' }], { system: null, turns: [''], opening: '' }],
    [
      'a developer prompt',
      [
        { role: 'developer', content: 'be brief' },
        { role: 'user', content: 'hi' },
      ],
      { system: 'be brief', turns: ['hi'], opening: 'hi' },
    ],
    [
      'parts',
      [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image_url', image_url: { url: 'x' } },
            { type: 'text', text: 'here' },
          ],
        },
      ],
      { system: null, turns: ['look\n\nhere'], opening: 'look\n\nhere' },
    ],
    [
      'the last three turns of the user',
      ['a', 'b', 'c', 'd'].flatMap((content) => [
        { role: 'user', content },
        { role: 'assistant', content: 'x' },
      ]),
      { system: null, turns: ['b', 'c', 'd'], opening: 'a' },
    ],
  ])('%s', (_, messages, expected) => {
    expect(promptOf(messages)).toEqual(expected)
  })

  it('keeps the beginning and the end of what is long, and looks at no more than 60 messages', () => {
    const long = `${'a'.repeat(5000)}${'z'.repeat(5000)}`
    const [turn = ''] = promptOf([{ role: 'user', content: long }]).turns
    expect([turn.length, turn[0], turn.at(-1)]).toEqual([2001, 'a', 'z'])
    const many = Array.from({ length: 9000 }, (_, index) => ({ role: 'user', content: String(index) }))
    expect(promptOf(many)).toEqual({ system: null, turns: ['8997', '8998', '8999'], opening: '0' })
  })
})

describe('what a body needs', () => {
  const image = { role: 'user', content: [{ type: 'image_url' }] }
  it.each([
    ['text', { messages: [{ role: 'user', content: 'hi' }] }, []],
    ['tools', { tools: [{}] }, ['tools']],
    ['no tools', { tools: [] }, []],
    ['functions', { functions: [{}] }, ['tools']],
    ['JSON', { response_format: { type: 'json_schema' } }, ['json']],
    ['text as asked', { response_format: { type: 'text' } }, []],
    ['an image', { messages: [image] }, ['vision']],
    [
      'everything',
      { messages: [image, { content: [{ type: 'input_audio' }, { type: 'video_url' }, { type: 'file' }] }], tools: [{}] },
      ['tools', 'vision', 'audio', 'video', 'file'],
    ],
    ['odd things', { messages: [null, 7, { content: [null, { type: 9 }] }], tools: 'x', response_format: 'json' }, []],
  ])('%s', (_, body, needs) => {
    expect(needsOf(body)).toEqual(needs)
  })

  it('is met by what the catalogue knows of a model, and by nothing else', () => {
    expect(unmetNeed(['tools', 'vision'], ['chat', 'tools'])).toBe('vision')
    expect(unmetNeed(['tools'], ['tools'])).toBeNull()
    expect(unmetNeed([], [])).toBeNull()
  })
})

describe('the line that says why', () => {
  const by = (domain: string, more: object = {}) => ({ domain, confidence: 1, by: 'hint' as const, keyword: null, guess: null, ...more })
  it.each([
    ['a vertical', 'legal', [candidate('law', { domain: 'legal' })], { domain: 'legal' }, null],
    ['general', 'general', [], { domain: 'general' }, null],
    ['nothing vertical', 'legal', [candidate('any')], { domain: 'general' }, 'nothing vertical for legal'],
    [
      'one that is not there for the caller',
      'legal',
      [candidate('law', { domain: 'legal', obstacle: 'not_allowed' })],
      { domain: 'general' },
      'nothing vertical for legal',
    ],
    [
      'one that cannot',
      'legal',
      [candidate('law', { domain: 'legal', obstacle: 'vision' })],
      { domain: 'general' },
      'law not chosen: vision',
    ],
    ['nothing at all', 'legal', [candidate('law', { domain: 'legal', obstacle: 'unhealthy' })], null, 'law not chosen: unhealthy'],
  ])('why not vertical: %s', (_, domain, candidates, chosen, expected) => {
    expect(lackingOf(domain, candidates, chosen)).toBe(expected)
  })

  it('is one line of ASCII with a bound, whatever names there are', () => {
    const lead = leadOf('通用\r\nx: y', by('法律'.repeat(500)), lackingOf('法律', [], null))
    for (const line of [reasonOf(lead, '模型', 'weight'), fallbackReason(lead, [{ model: '模型\n', kind: 'server' }], 'b')]) {
      expect(line).toMatch(/^[\x20-\x7e]{1,400}$/)
    }
  })

  it('says how sure the classifier is, and of what it was not sure enough', () => {
    const scores = { finance: 0.6, general: 0.3 }
    const guess = { domain: 'finance', confidence: 0.6, scores } as never
    expect(leadOf('auto', by('general', { confidence: 0.3, by: 'classifier', guess }), null)).toBe(
      'auto: general 0.30 by classifier, finance 0.60 not sure enough',
    )
    expect(
      fallbackReason(
        'auto: legal 1.00 by hint',
        [
          { model: 'law', kind: 'server' },
          { model: 'b', kind: 'rate' },
        ],
        'c',
      ),
    ).toBe('auto: legal 1.00 by hint; law failed (server), b failed (rate) -> c (fallback)')
  })
})
