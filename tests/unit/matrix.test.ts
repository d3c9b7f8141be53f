import { describe, expect, it, test } from 'vitest'
import { domainMatrix, findingsOf, matrixText } from '../../src/cli/matrix.ts'
import { chatModel, configurationOf } from '../support/catalogue.ts'
import { tempDir } from '../support/temp.ts'

const NOW = Date.parse('2026-11-28T12:00:00+08:00')
const FILING = { number: 'Beijing-TestChat-202404280016', evidence: 'test' }
let endpoints = 0
const model = (changes: object = {}, endpoint: object = {}): Record<string, unknown> =>
  chatModel([{ id: `endpoint-${++endpoints}`, ...endpoint }], { ...changes })
const matrixOf = (models: Readonly<Record<string, Record<string, unknown>>>, unpriced?: readonly string[]) =>
  domainMatrix(configurationOf(tempDir(), models, unpriced), NOW)

describe('the matrix of domains', () => {
  it('has every chat model by its domain, who can call it and why others cannot', () => {
    const matrix = matrixOf({
      filed: model({ domain: 'finance' }, { filing: FILING }),
      inside: model({ domain: 'finance', life: 'preview' }),
      'filed-helper': { domain: 'legal', profile: { of: 'filed', system: 'x' } },
      gone: model({ domain: 'legal', life: 'retired' }),
      keyless: model({ domain: 'healthcare' }, { provider: 'deepseek' }),
      own: model({ tenants: ['bank'] }),
      vectors: { ...model({ kind: 'embeddings', domain: 'retail', max_output_tokens: 0 }) },
    })
    expect(matrix.domains).toMatchObject({
      finance: [
        { model: 'filed', callable: 'public', why: '', life: 'ga' },
        { model: 'inside', callable: 'internal', why: 'no endpoint has a filing', life: 'preview' },
      ],
      legal: [
        { model: 'filed-helper', callable: 'public', profile_of: 'filed' },
        { model: 'gone', callable: 'no', why: 'retired' },
      ],
      healthcare: [{ model: 'keyless', callable: 'no', why: expect.stringContaining('no api_key is given for deepseek') as unknown }],
      general: [{ model: 'own', callable: 'internal', tenants: ['bank'] }],
    })
    expect(matrix.without_vertical).toEqual(['education', 'government', 'industrial', 'retail', 'customer_service'])
    expect(matrix.without_callable).toEqual(['healthcare'])
    const text = matrixText(matrix)
    expect(text).toMatch(/^legal +filed-helper \(profile of filed\) +public$/m)
    expect(text).toMatch(/^general +own \(for bank\) +internal +no endpoint has a filing$/m)
    expect(text).toMatch(/^education +- +-$/m)
    expect(text).toContain('nothing vertical for education, government, industrial, retail, customer_service: general models serve them')
    expect(text).toContain('no vertical that can be called for healthcare')
  })

  it('tells models that wait for the same together', () => {
    const keyless = Object.fromEntries(['a', 'b', 'c', 'd', 'e'].map((id) => [id, model({ life: 'retired' })]))
    expect(matrixText(matrixOf(keyless))).toMatch(/^general +a, b and 3 more +no +retired$/m)
  })
})

describe('findings', () => {
  const findings = (models: Readonly<Record<string, Record<string, unknown>>>) =>
    findingsOf(configurationOf(tempDir(), models), NOW).map(({ model: id, message }) => `${id}: ${message}`)

  test.each([
    [
      'nothing, of models that are in order',
      { a: model({ life: 'deprecated', deprecated_on: '2026-01-01', replaced_by: 'b' }), b: model({ life: 'preview' }) },
      [],
    ],
    [
      'a date that has passed',
      { a: model({ retires_on: '2026-11-28', replaced_by: 'b' }), b: model() },
      ['a: its retires_on has passed, so it is not served: write life: retired'],
    ],
    ['no date of a model that is retired anyway', { a: model({ life: 'retired', retires_on: '2026-01-01' }) }, []],
    [
      'a successor that is retired',
      { a: model({ life: 'deprecated', replaced_by: 'b' }), b: model({ life: 'retired', replaced_by: 'c' }), c: model() },
      ['a: its successor b is retired itself'],
    ],
    ['no successor', { a: model({ life: 'deprecated' }) }, ['a: is deprecated, and nothing replaces it']],
    [
      'a successor that not everybody has',
      { a: model({ life: 'deprecated', replaced_by: 'b' }), b: model({ tenants: ['bank'] }) },
      ['a: its successor b does not exist for all of its tenants'],
    ],
    [
      'a successor of another kind',
      { a: model({ life: 'deprecated', replaced_by: 'b' }), b: model({ kind: 'embeddings', max_output_tokens: 0 }) },
      ['a: its successor b is of another kind (embeddings)'],
    ],
    [
      'a profile for nobody',
      { a: model({ tenants: ['bank'] }), b: { tenants: ['shop'], profile: { of: 'a', system: 'x' } } },
      ['b: is for nobody: its tenants and those of its model have nobody in common'],
    ],
  ])('say of %s', (_, models, expected) => {
    expect(findings(models)).toEqual(expected)
  })
})
