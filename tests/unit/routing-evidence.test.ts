import { describe, expect, it } from 'vitest'
import type { Domain } from '../../src/base/domains.ts'
import { CONFIDENCE_THRESHOLD, type DomainClassifier, type DomainGuess } from '../../src/routing/domain.ts'
import type { DomainInput } from '../../src/routing/features.ts'
import { decideDomain, prepareEvidence } from '../../src/routing/evidence.ts'
import { promptOf } from '../../src/routing/prompt.ts'
import { indexSamples } from '../../src/routing/samples.ts'

/** Knows a few words, and how sure it is of each. */
function wordClassifier(words: Readonly<Record<string, readonly [Domain, number]>>): DomainClassifier & { readonly asked: DomainInput[] } {
  const asked: DomainInput[] = []
  const classify = (input: DomainInput): DomainGuess => {
    asked.push(input)
    const last = input.turns.at(-1) ?? ''
    const found = Object.entries(words).find(([word]) => last.includes(word))?.[1]
    const [domain, confidence] = found ?? (['general', 0.5] as const)
    const zeros = {
      finance: 0,
      healthcare: 0,
      education: 0,
      government: 0,
      industrial: 0,
      legal: 0,
      retail: 0,
      customer_service: 0,
      general: 0,
    }
    return { domain, confidence, scores: { ...zeros, general: 1 - confidence, [domain]: confidence } }
  }
  return { asked, classify, explain: () => [] }
}

const classifier = wordClassifier({ sue: ['legal', 0.95], fever: ['healthcare', 0.9], maybe: ['finance', 0.6], poem: ['general', 0.97] })
const user = (...turns: readonly string[]): ReturnType<typeof promptOf> => promptOf(turns.map((content) => ({ role: 'user', content })))
const rules = [
  { domain: 'finance', keywords: ['基金', 'ETF'] },
  { domain: 'retail', keywords: ['fever'] },
]
const samples = [{ text: '请问你们的会员积分多久会清零，怎么兑换礼品', domain: 'customer_service' }]
const tenant = prepareEvidence(rules, samples)
const nobody = { fixed: null, hint: null, tenant: null, classifier }

describe('the strongest evidence decides', () => {
  it.each([
    ['the name', user('fever, sue'), { fixed: 'industrial', hint: 'legal', tenant }, ['industrial', 'name', 1]],
    ['the hint', user('fever, sue'), { hint: 'legal', tenant }, ['legal', 'hint', 1]],
    ['a keyword', user('high fever'), { tenant }, ['retail', 'rule', 1]],
    ['the classifier', user('high fever'), {}, ['healthcare', 'classifier', 0.9]],
    ['nothing that is sure', user('maybe'), {}, ['general', 'classifier', 0.4]],
    ['nothing', user('hm'), {}, ['general', 'classifier', 0.5]],
  ] as const)('%s', (_, prompt, sources, [domain, by, confidence]) => {
    const found = decideDomain(prompt, { ...nobody, ...sources })
    expect([found.domain, found.by]).toEqual([domain, by])
    expect(found.confidence).toBeCloseTo(confidence, 9)
  })

  it('a sample decides for texts that are much like it, and for no others', () => {
    const like = decideDomain(user('你们的会员积分什么时候清零，能兑换什么礼品？'), { ...nobody, tenant })
    expect(like).toMatchObject({ domain: 'customer_service', by: 'sample' })
    expect(like.confidence).toBeGreaterThan(0.35)
    expect(decideDomain(user('please sue them'), { ...nobody, tenant }).by).toBe('classifier')
  })

  it('the classifier is not asked where something stronger has decided', () => {
    const watched = wordClassifier({})
    decideDomain(user('基金定投'), { fixed: null, hint: null, tenant, classifier: watched })
    decideDomain(user('x'), { fixed: 'legal', hint: null, tenant, classifier: watched })
    expect(watched.asked).toEqual([])
  })

  it('a turn that says too little belongs to what the conversation began with; one that is sure does not', () => {
    expect(decideDomain(user('I have a fever', 'and the other one?'), nobody)).toMatchObject({ domain: 'healthcare', by: 'opening' })
    expect(decideDomain(user('I have a fever', 'maybe so'), nobody)).toMatchObject({ domain: 'healthcare', by: 'opening' })
    expect(decideDomain(user('I have a fever', 'now a poem'), nobody)).toMatchObject({ domain: 'general', by: 'classifier' })
    expect(decideDomain(user('hello', 'maybe so'), nobody)).toMatchObject({ domain: 'general', by: 'classifier' })
  })
})

describe("a tenant's keywords", () => {
  it.each([
    ['Chinese, within a text', '我想买点基金做定投', 'finance'],
    ['letters in another case', 'which etf should I buy', 'finance'],
    ['letters within a word', 'betfair odds', null],
    ['in full width', 'ＥＴＦ', 'finance'],
    ['none', 'hello', null],
  ])('%s', (_, text, domain) => {
    const found = decideDomain(user(text), { ...nobody, tenant: prepareEvidence(rules, []) })
    expect(found.by === 'rule' ? found.domain : null).toBe(domain)
  })

  it('are looked for in the last turn first, then in the system prompt', () => {
    const prompt = promptOf([
      { role: 'system', content: '基金顾问' },
      { role: 'user', content: 'fever' },
    ])
    expect(decideDomain(prompt, { ...nobody, tenant })).toMatchObject({ domain: 'retail', keyword: 'fever' })
    expect(decideDomain({ ...prompt, turns: ['hi'] }, { ...nobody, tenant })).toMatchObject({ domain: 'finance', keyword: '基金' })
  })

  it('and samples tell which domains there are', () => {
    expect([...tenant.domains].toSorted()).toEqual(['customer_service', 'finance', 'retail'])
  })
})

it('an index of samples finds the likest', () => {
  const index = indexSamples([
    { text: '发票抬头写错了怎么重开', domain: 'a' },
    { text: '宽带断网了报修', domain: 'b' },
  ])
  expect(index.find({ system: null, turns: ['我的发票抬头写错，能重开吗'] })?.domain).toBe('a')
  expect(index.find({ system: null, turns: ['家里宽带断网，想报修'] })?.domain).toBe('b')
  expect(index.find({ system: null, turns: ['今天天气如何'] })).toBeNull()
  expect(index.find({ system: null, turns: [] })).toBeNull()
  expect(CONFIDENCE_THRESHOLD).toBeGreaterThan(0.5)
})
