import { describe, expect, it, test } from 'vitest'
import type { Model } from '../../src/config/model.ts'
import { lifeOf, successorOf, type Aging } from '../../src/routing/lives.ts'
import { chatModel, configurationOf, loadModels } from '../support/catalogue.ts'
import { tempDir } from '../support/temp.ts'

const at = (time: string): number => Date.parse(time)
const NOW = at('2026-11-28T12:00:00+08:00')
const aging = (changes: Partial<Aging>): Aging => ({ life: 'ga', deprecated_at: null, retires_at: null, ...changes })

test.each([
  ['what is written, without dates', aging({ life: 'preview' }), NOW, 'preview'],
  ['deprecated from its date on', aging({ deprecated_at: NOW }), NOW, 'deprecated'],
  ['not a moment before', aging({ deprecated_at: NOW + 1 }), NOW, 'ga'],
  ['a preview is deprecated as well', aging({ life: 'preview', deprecated_at: NOW }), NOW, 'deprecated'],
  ['retired from its date on', aging({ retires_at: NOW }), NOW, 'retired'],
  ['deprecated until then', aging({ life: 'deprecated', retires_at: NOW + 1 }), NOW, 'deprecated'],
  ['retired, whatever the dates say', aging({ life: 'retired', retires_at: NOW + 1 }), NOW, 'retired'],
])('a model is %s', (_, model, now_ms, life) => {
  expect(lifeOf(model, now_ms)).toBe(life)
})

const endpoint = { id: undefined }
const models = (changes: Readonly<Record<string, object>>): Record<string, Record<string, unknown>> =>
  Object.fromEntries(Object.entries(changes).map(([id, change]) => [id, chatModel([endpoint], change as Record<string, unknown>)]))

it('a date begins at midnight in Shanghai', () => {
  const { catalogue } = configurationOf(tempDir(), models({ old: { retires_on: '2026-12-31', deprecated_on: '2026-12-01' } }))
  const old = catalogue.models.get('old') as Model
  expect(old.retires_at).toBe(at('2026-12-30T16:00:00Z'))
  expect([lifeOf(old, at('2026-12-30T23:59:59.999+08:00')), lifeOf(old, at('2026-12-31T00:00:00+08:00'))]).toEqual([
    'deprecated',
    'retired',
  ])
})

it('the successor is the first that is still there', () => {
  const { catalogue } = configurationOf(
    tempDir(),
    models({
      first: { life: 'retired', replaced_by: 'second' },
      second: { retires_on: '2026-11-28', replaced_by: 'third' },
      third: {},
      lonely: { life: 'retired' },
    }),
  )
  const next = (id: string, now_ms: number): string | undefined =>
    successorOf(catalogue.models.get(id) as Model, catalogue, 'acme', now_ms)?.id
  expect([next('first', NOW), next('first', at('2026-11-27T12:00:00+08:00')), next('lonely', NOW), next('third', NOW)]).toEqual([
    'third',
    'second',
    undefined,
    undefined,
  ])
})

describe('a catalogue is refused', () => {
  const issuesOf = (changes: Readonly<Record<string, object>>): string[] => {
    const result = loadModels(tempDir(), models(changes))
    return result.ok ? [] : result.issues.map(({ path, message, expected }) => `${path} ${message} | ${expected}`)
  }
  test.each([
    [
      'with a successor that is no model',
      { old: { replaced_by: 'nev' }, new: {} },
      'models.old.replaced_by unknown model "nev" | one of old, new (did you mean "new"?)',
    ],
    [
      'with an alias for a successor',
      { old: { replaced_by: 'newest' }, new: { aliases: ['newest'] } },
      'models.old.replaced_by "newest" is an alias | new',
    ],
    [
      'with a model that replaces itself',
      { old: { replaced_by: 'old' } },
      'models.old.replaced_by leads from old back to old | a successor',
    ],
    ['with a life that is none', { old: { life: 'legacy' } }, 'models.old.life is "legacy" | one of preview, ga, deprecated, retired'],
    ['with a date that does not exist', { old: { retires_on: '2026-02-30' } }, 'models.old.retires_on is "2026-02-30" | a date'],
    [
      'with dates the wrong way round',
      { old: { deprecated_on: '2026-12-02', retires_on: '2026-12-01' } },
      'models.old.deprecated_on is after retires_on',
    ],
    ['with nobody to be private to', { old: { tenants: [] } }, 'models.old.tenants is an empty list | at least one tenant'],
    ['with a tenant that no id can be', { old: { tenants: ['Bank!'] } }, 'models.old.tenants[0] is "Bank!" | the id of a tenant'],
  ])('%s', (_, changes, issue) => {
    const issues = issuesOf(changes)
    expect(issues).toHaveLength(1)
    expect(issues[0]).toContain(issue)
  })

  test('with successors in a circle, each named', () => {
    expect(issuesOf({ a: { replaced_by: 'b' }, b: { replaced_by: 'c' }, c: { replaced_by: 'a' }, d: { replaced_by: 'a' } })).toHaveLength(3)
  })
})
