import { DOMAINS } from '../../src/base/domains.ts'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { createDomainClassifier } from '../../src/routing/domain.ts'
import { domainNamed, isKnownDomain } from '../../src/routing/domains.ts'
import { decideDomain, prepareEvidence } from '../../src/routing/evidence.ts'
import { foldKeyword } from '../../src/routing/keywords.ts'
import { promptOf } from '../../src/routing/prompt.ts'
import { indexSamples } from '../../src/routing/samples.ts'
import { prepareRouting } from '../../src/routing/tenant.ts'
import type { RoutingRecord } from '../../src/storage/records.ts'
import { REPO_ROOT } from '../support/root.ts'

const classifier = createDomainClassifier(readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin')))
const user = (content: string): object => ({ role: 'user', content })
const RETURNS = '我买的衣服尺码不对，想退货退款，运费谁来承担？'

describe('names of domains', () => {
  test.each([
    ['finance', 'finance'],
    ['Tourism', 'customer_service'],
    ['hospitality', 'customer_service'],
    ['medical', 'healthcare'],
    ['law', 'legal'],
    ['gov', 'government'],
    ['e-commerce', 'retail'],
    ['Public Service', 'government'],
    [' 医疗 ', 'healthcare'],
    ['parcels', 'parcels'],
    ['x2_y', 'x2_y'],
  ])('%s is %s', (name, domain) => {
    expect(domainNamed(name)).toBe(domain)
  })

  test.each(['', 'x', 'Parcels', '2nd', 'a-b', '快递', 'x'.repeat(33), 'a b'])('%j is none', (name) => {
    expect(domainNamed(name)).toBeNull()
  })

  test('every domain of the closed set means itself, and nothing else is of the set', () => {
    for (const domain of DOMAINS) expect([domainNamed(domain), isKnownDomain(domain)]).toEqual([domain, true])
    for (const name of ['medical', 'parcels', 'tourism']) expect(isKnownDomain(name)).toBe(false)
  })
})

describe('the order of evidence', () => {
  const tenant = prepareEvidence([{ domain: 'returns', keywords: ['退货'] }], [{ text: RETURNS, domain: 'complaints' }])
  const samples = prepareEvidence([], [{ text: RETURNS, domain: 'complaints' }])
  const prompt = promptOf([user(RETURNS)])

  test('the hint is before the rules, those before the samples, and the classifier is last', () => {
    expect(decideDomain(prompt, { fixed: null, hint: 'legal', tenant, classifier })).toMatchObject({
      domain: 'legal',
      confidence: 1,
      by: 'hint',
    })
    expect(decideDomain(prompt, { fixed: null, hint: null, tenant, classifier })).toMatchObject({
      domain: 'returns',
      by: 'rule',
      keyword: '退货',
    })
    const sampled = decideDomain(prompt, { fixed: null, hint: null, tenant: samples, classifier })
    expect(sampled).toMatchObject({ domain: 'complaints', by: 'sample', keyword: null, guess: null })
    expect(sampled.confidence).toBeCloseTo(1, 6)
    expect(decideDomain(prompt, { fixed: null, hint: null, tenant: null, classifier })).toMatchObject({
      domain: 'retail',
      by: 'classifier',
    })
  })

  test('rules go in their order, the last turn before the system prompt', () => {
    const rules = prepareEvidence(
      [
        { domain: 'first', keywords: ['gold', 'silver'] },
        { domain: 'second', keywords: ['copper', 'gold mine'] },
      ],
      [],
    )
    const decided = (system: string, text: string): unknown => {
      const { domain, keyword } = decideDomain(promptOf([{ role: 'system', content: system }, user(text)]), {
        fixed: null,
        hint: null,
        tenant: rules,
        classifier,
      })
      return [domain, keyword]
    }
    expect(decided('', 'a gold mine')).toEqual(['first', 'gold'])
    expect(decided('you know silver', 'copper?')).toEqual(['second', 'copper'])
    expect(decided('you know SILVER.', 'tell me')).toEqual(['first', 'silver'])
  })

  test('an earlier turn does not decide by its keywords, and samples are compared with the last', () => {
    const messages = [user('退货'), { role: 'assistant', content: '好的' }, user('What is the capital of France?')]
    expect(decideDomain(promptOf(messages), { fixed: null, hint: null, tenant, classifier }).by).not.toBe('rule')
    expect(decideDomain(promptOf(messages), { fixed: null, hint: null, tenant: samples, classifier }).by).not.toBe('sample')
  })
})

describe('keywords', () => {
  const found = (keyword: string, text: string): boolean =>
    decideDomain(promptOf([user(text)]), {
      fixed: null,
      hint: null,
      tenant: prepareEvidence([{ domain: 'own', keywords: [keyword] }], []),
      classifier,
    }).by === 'rule'

  test.each([
    ['基金', '请问基金怎么买'],
    ['基金', '請問基金怎麼買'],
    ['基金怎么', '請問基金怎麼買'],
    ['Gold', 'is gold heavy'],
    ['ｇｏｌｄ', 'GOLD!'],
    ['café', 'the CAFE there'],
    ['credit card', 'my credit   card'],
    ['12306', '打12306客服'],
    ['C++', 'how to write C++?'],
    ['401(k)', 'my 401（k） plan'],
    ['😀', 'ok 😀'],
  ])('%j is found in %j', (keyword, text) => {
    expect(found(keyword, text)).toBe(true)
  })

  test.each([
    ['gold', 'golden'],
    ['gold', 'marigold'],
    ['12306', 'call 95588'],
    ['12306', 'number 123067'],
    ['gpt', 'gpt4'],
    ['C++', 'vitamin C'],
    ['credit card', 'creditcard'],
  ])('%j is not found in %j', (keyword, text) => {
    expect(found(keyword, text)).toBe(false)
  })

  test('of nothing but spaces and marks that leave no trace are none', () => {
    expect(foldKeyword(' \u200b\u00ad ')).toBe('')
    expect(found(' ', 'a b')).toBe(false)
  })
})

describe('samples', () => {
  test('the likest is named, and one that is like none of them finds none', () => {
    const index = indexSamples([
      { text: 'Where is my parcel? The tracking number shows nothing.', domain: 'parcels' },
      { text: RETURNS, domain: 'complaints' },
    ])
    expect(index.find({ system: null, turns: ['where is my parcel, tracking shows nothing'] })).toMatchObject({
      sample: 0,
      domain: 'parcels',
    })
    expect(index.find({ system: null, turns: ['Explain the theory of relativity'] })).toBeNull()
    expect(index.find({ system: null, turns: [] })).toBeNull()
  })
})

describe("a tenant's record", () => {
  const empty: RoutingRecord = { tenant: 'acme', version: 1, rules: [], samples: [], models: [], updated_at: 0 }
  const model = { domain: null, prefer: 'cost', candidates: [], canary: null, max_price_pico: { input: null, output: 5n } } as const

  test('becomes nothing, evidence, or models, as far as it has them', () => {
    expect(prepareRouting(empty)).toBeNull()
    expect(prepareRouting({ ...empty, models: [{ id: 'acme/fast', ...model }] })).toEqual({
      evidence: null,
      models: new Map([['acme/fast', { id: 'acme/fast', ...model }]]),
    })
    const ruled = prepareRouting({ ...empty, rules: [{ domain: 'own', keywords: ['x'] }] })
    expect([ruled?.models.size, ruled?.evidence?.samples]).toEqual([0, null])
    expect(prepareRouting({ ...empty, samples: [{ text: 'x', domain: 'own' }] })?.evidence?.samples).not.toBeNull()
  })
})
