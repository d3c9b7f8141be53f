import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, test } from 'vitest'
import { digestOnDisk } from '../../src/config/load.ts'
import { chatModel, configurationOf, loadModels } from '../support/catalogue.ts'
import { tempDir } from '../support/temp.ts'

const base = (changes: object = {}): Record<string, unknown> =>
  chatModel([{ id: 'base-a' }], { domain: 'finance', max_output_tokens: 500, capabilities: ['chat', 'tools'], ...changes })
const profile = (changes: object = {}, more: object = {}): Record<string, unknown> => ({
  profile: { of: 'base', system: 'x', ...changes },
  ...more,
})

it('is its model under another name, but for what it says itself', () => {
  const { catalogue } = configurationOf(tempDir(), {
    'first-helper': profile({ temperature: 0 }),
    base: base(),
    helper: profile(
      { system: '甲\n乙' },
      { domain: 'legal', owned_by: 'us', max_output_tokens: 100, created: '2026-02-02', capabilities: ['chat'] },
    ),
    greedy: profile({}, { max_output_tokens: 5000 }),
  })
  expect([...catalogue.models.keys()]).toEqual(['first-helper', 'base', 'helper', 'greedy'])
  const of = (id: string) => catalogue.models.get(id)
  expect(of('first-helper')).toEqual({
    ...of('base'),
    ...{ id: 'first-helper', domain: 'general', profile: { of: 'base', system: 'x', tools: [], temperature: 0, top_p: null } },
  })
  expect(of('helper')).toMatchObject({
    domain: 'legal',
    owned_by: 'us',
    max_output_tokens: 100,
    capabilities: ['chat'],
    endpoints: of('base')?.endpoints,
  })
  expect([of('helper')?.created, of('helper')?.profile?.system]).toEqual([Date.parse('2026-02-02') / 1000, '甲\n乙'])
  expect(of('greedy')?.max_output_tokens).toBe(500)
})

it("has its model's price unless it has one of its own", () => {
  const models = { base: base(), cheap: profile(), own: profile() }
  const { prices, catalogue } = configurationOf(tempDir(), models, ['cheap'])
  expect(['cheap', 'own'].map((id) => prices.sell.get(id)?.map((version) => version.id))).toEqual([['sell:base@v1'], ['sell:own@v1']])
  expect(catalogue.models.get('cheap')?.endpoints).toHaveLength(1)
})

it.each([
  [{ life: 'preview' }, {}, 'preview'],
  [{ life: 'deprecated' }, { life: 'preview' }, 'deprecated'],
  [{}, { life: 'deprecated' }, 'deprecated'],
  [{ life: 'retired' }, {}, 'retired'],
])('lives no longer than its model', (of_base, own, life) => {
  const { catalogue } = configurationOf(tempDir(), {
    base: base({ ...of_base, replaced_by: 'next' }),
    next: chatModel([{ id: 'next-a' }]),
    helper: profile({}, own),
  })
  expect([catalogue.models.get('helper')?.life, catalogue.models.get('helper')?.replaced_by]).toEqual([life, null])
})

it('a prompt in a file is trimmed, and belongs to the digest', () => {
  const dir = tempDir()
  mkdirSync(join(dir, 'profiles'))
  writeFileSync(join(dir, 'profiles', 'bank.md'), '\n  先说结论。\n\n')
  const models = { base: base(), helper: profile({ system: { file: 'profiles/bank.md' } }) }
  const first = configurationOf(dir, models)
  expect(first.catalogue.models.get('helper')?.profile?.system).toBe('先说结论。')
  expect(digestOnDisk(dir)).toBe(first.digest)
  writeFileSync(join(dir, 'profiles', 'bank.md'), '先说依据。')
  const second = configurationOf(dir, models)
  expect(second.digest).not.toBe(first.digest)
  expect(digestOnDisk(dir)).toBe(second.digest)
})

describe('a catalogue is refused', () => {
  test.each([
    [
      'of a model that there is not',
      profile({ of: 'bsae' }),
      'models.helper.profile.of unknown model "bsae" | one of base, embed (did you mean "base"?)',
    ],
    [
      'of another profile',
      profile({ of: 'other' }),
      'models.helper.profile.of "other" is a profile itself | the id of a model that is none',
    ],
    ['of a model that is no chat model', profile({ of: 'embed' }), 'models.helper.profile.of "embed" is no chat model'],
    ['without a prompt', profile({ system: ' ' }), 'models.helper.profile.system has a value that cannot be used | the prompt'],
    [
      'with a prompt that is too long',
      profile({ system: '长'.repeat(22_000) }),
      'models.helper.profile.system has a value that cannot be used',
    ],
    [
      'with a prompt from elsewhere',
      profile({ system: { file: '../../etc/passwd.md' } }),
      'models.helper.profile.system.file is "../../etc/passwd.md" | the prompt',
    ],
    ['with a file that is not there', profile({ system: { file: 'profiles/none.md' } }), 'none.md cannot be read'],
    ['with endpoints of its own', { ...profile(), endpoints: [] }, 'models.helper.endpoints unknown key "endpoints"'],
    ['with a number that is none', profile({ temperature: 3 }), 'models.helper.profile.temperature is the number 3 | a number from 0 to 2'],
    [
      'with a tool that is none',
      profile({ tools: [{ type: 'function', function: { name: 'no spaces' } }] }),
      'models.helper.profile.tools[0].function.name is "no spaces" | a tool',
    ],
    [
      'with a name that is taken',
      { ...profile(), aliases: ['base'] },
      'models.helper.aliases[0] the alias "base" already names the model base',
    ],
  ])('with a profile %s', (_, helper, expected) => {
    const embed = { ...chatModel([{ id: 'embed-a' }]), kind: 'embeddings', max_output_tokens: 0 }
    const result = loadModels(tempDir(), { base: base(), other: profile(), embed, helper })
    const issues = result.ok ? [] : result.issues.map(({ path, message, expected: wanted }) => `${path} ${message} | ${wanted}`)
    expect(issues.join('\n')).toContain(expected)
    expect(issues).toHaveLength(1)
  })
})
