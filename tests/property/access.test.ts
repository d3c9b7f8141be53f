import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { WeirError } from '../../src/base/errors.ts'
import type { Configuration } from '../../src/config/model.ts'
import type { Caller } from '../../src/gateway/call.ts'
import { type ChoiceFacts, considerVirtual } from '../../src/gateway/choose.ts'
import { measuringFor } from '../../src/gateway/quote.ts'
import { readFacts } from '../../src/gateway/request.ts'
import { chooseRoute, type Route } from '../../src/gateway/route.ts'
import { buildSnapshot, type Snapshot } from '../../src/gateway/snapshot.ts'
import { createDomainClassifier } from '../../src/routing/domain.ts'
import { waysOf, wholeTenant } from '../../src/routing/reach.ts'
import type { VirtualModel } from '../../src/routing/virtual.ts'
import { chatModel, configurationOf } from '../support/catalogue.ts'
import { REPO_ROOT } from '../support/root.ts'
import { propertyRuns, propertySeed } from '../support/seed.ts'
import { tempDir } from '../support/temp.ts'

const seed = propertySeed()
/** Each run writes and reads a configuration, which takes some milliseconds. */
const RUNS = Math.min(propertyRuns(300), 2000)
const dir = tempDir()
const TENANTS = ['bank', 'clinic', 'shop']
const ZONES = ['private', 'domestic', 'overseas'] as const
const NOW = Date.parse('2026-11-28T12:00:00+08:00')
const FILING = { number: 'Beijing-TestChat-202404280016', evidence: 'test' }

const zones = fc.subarray([...ZONES])
const reserved = fc.option(fc.subarray(TENANTS, { minLength: 1 }), { nil: undefined })
const date = fc.option(fc.constantFrom('2026-01-01', '2026-11-28', '2027-06-01'), { nil: undefined })
const endpoint = fc.record({
  zone: fc.constantFrom(...ZONES),
  tenants: reserved,
  filing: fc.option(fc.constant(FILING), { nil: undefined }),
  tier: fc.integer({ min: 1, max: 3 }),
  weight: fc.integer({ min: 1, max: 3 }),
})
const model = fc.record({
  endpoints: fc.array(endpoint, { minLength: 1, maxLength: 4 }),
  tenants: reserved,
  alias: fc.boolean(),
  life: fc.constantFrom('preview', 'ga', 'deprecated', 'retired'),
  retires_on: date,
  successor: fc.option(fc.nat(), { nil: undefined }),
  /** A profile of it, for these. */
  profile: fc.option(fc.record({ tenants: reserved }), { nil: undefined }),
})
const whose = fc.record({
  tenant: fc.constantFrom(...TENANTS),
  audience: fc.constantFrom('public', 'internal'),
  tenant_zones: zones,
  project_zones: fc.option(zones),
  key_zones: fc.option(zones),
  key_models: fc.option(fc.subarray(['model-0', 'model-1', 'also-1', 'model-2', 'nothing'])),
})
type Whose = typeof whose extends fc.Arbitrary<infer Value> ? Value : never

/** Models that are replaced by earlier ones only, so that nothing leads back. */
function catalogueOf(models: readonly (typeof model extends fc.Arbitrary<infer Value> ? Value : never)[]): Configuration {
  const entries = models.map(({ endpoints, tenants, alias, life, retires_on, successor }, index) => [
    `model-${index}`,
    chatModel(
      endpoints.map((one, position) => ({ id: `e${index}-${position}`, ...one })),
      {
        ...{ tenants, life, retires_on, ...(alias ? { aliases: [`also-${index}`] } : {}) },
        ...(successor === undefined || index === 0 ? {} : { replaced_by: `model-${successor % index}` }),
      },
    ),
  ])
  const profiles = models.flatMap(({ profile }, index) =>
    profile === undefined ? [] : [[`profile-${index}`, { ...profile, profile: { of: `model-${index}`, system: 'x' } }] as const],
  )
  return configurationOf(dir, Object.fromEntries([...entries, ...profiles]))
}

function callerOf({ tenant, audience, tenant_zones, project_zones, key_zones, key_models }: Whose): Caller {
  const record = { id: tenant, audience, status: 'active', zones: tenant_zones, locale: 'en' }
  // Routing reads nothing else of them.
  return { tenant: record, project: { zones: project_zones }, key: { zones: key_zones, models: key_models } } as unknown as Caller
}

function routeTo(name: string, caller: Caller, configuration: Configuration, drawn: number): Route | WeirError {
  const snapshot = buildSnapshot(configuration)
  const facts = { snapshot, now_ms: NOW, chance: () => () => drawn, mayTry: () => true, retryInMs: () => 1 }
  try {
    return chooseRoute(name, 'chat_completions', caller, facts)
  } catch (error) {
    if (error instanceof WeirError) return error
    throw error
  }
}

function virtualOf(ids: readonly string[]): VirtualModel {
  const candidates = ids.map((id) => ({ model: id, domain: null, weight: 100, quality: 50 }))
  return { id: 'any', domain: 'general', prefer: 'balanced', candidates, canary: null, max_price_pico: { input: null, output: null } }
}

const classifier = createDomainClassifier(readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin')))

function virtualFacts(snapshot: Snapshot): ChoiceFacts {
  const health = { mayTry: () => true, retryInMs: () => 1, latencyMs: () => null }
  const tenant = { evidence: null, models: new Map<string, VirtualModel>() }
  return { snapshot, now_ms: NOW, chance: () => () => 0.5, hint: () => null, classifier, tenant, ...health }
}

const catalogues = fc.array(model, { minLength: 1, maxLength: 4 })
const names = ({ catalogue }: Configuration): readonly string[] => [...catalogue.models.keys(), ...catalogue.aliases.keys()]

test('no name, alias, fallback or successor takes a request to a zone that tenant, project and key do not all allow', () => {
  fc.assert(
    fc.property(
      catalogues,
      whose,
      fc.double({ min: 0, max: 1, noNaN: true, minExcluded: true, maxExcluded: true }),
      (models, asking, drawn) => {
        const configuration = catalogueOf(models)
        const allowed = (zone: string): boolean =>
          [asking.tenant_zones, asking.project_zones, asking.key_zones].every((list) => list === null || list.some((one) => one === zone))
        for (const name of names(configuration)) {
          const route = routeTo(name, callerOf(asking), configuration, drawn)
          if (route instanceof WeirError) continue
          expect(route.targets).not.toEqual([])
          expect(route.targets.filter(({ zone }) => !allowed(zone))).toEqual([])
          if (asking.audience === 'public') expect(route.targets.filter(({ filing }) => filing === null)).toEqual([])
        }
      },
    ),
    { seed, numRuns: RUNS },
  )
})

test('a virtual model chooses nothing that its caller could not reach by name, and names nothing that does not exist for it', () => {
  fc.assert(
    fc.property(catalogues, whose, (models, asking) => {
      const plain = catalogueOf(models)
      const caller = callerOf(asking)
      const ids = [...plain.catalogue.models.keys()]
      const virtual = virtualOf(ids)
      const snapshot = buildSnapshot({ ...plain, routes: new Map([[virtual.id, virtual]]) })
      const facts = virtualFacts(snapshot)
      const request = readFacts('chat_completions', Buffer.from('{"model":"any","messages":[{"role":"user","content":"hello"}]}'), 16)
      const { candidates, ordered } = considerVirtual(virtual, request, measuringFor(request), caller, facts)
      const shown = candidates.filter(({ obstacle }) => obstacle !== 'not_found' && obstacle !== 'not_allowed')
      for (const { id } of shown) {
        const route = routeTo(id, { ...caller, key: { ...caller.key, models: null } }, plain, 0.5)
        expect([id, route instanceof WeirError && route.code === 'model_not_found']).toEqual([id, false])
      }
      for (const { id, targets } of ordered.order) {
        const route = routeTo(id, caller, plain, 0.5)
        if (route instanceof WeirError) expect(route).toBe(id)
        else expect(targets.map((target) => target.id).toSorted()).toEqual(route.targets.map((target) => target.id).toSorted())
      }
      const reachable = ids.filter((id) => !(routeTo(id, caller, plain, 0.5) instanceof WeirError))
      expect(ordered.order.map(({ id }) => id).toSorted()).toEqual(reachable.toSorted())
    }),
    { seed, numRuns: RUNS },
  )
})

test('what is reserved for others is no target, is named nowhere, and is refused in the words for what does not exist', () => {
  fc.assert(
    fc.property(catalogues, whose, (models, asking) => {
      const configuration = catalogueOf(models)
      const caller = callerOf(asking)
      const isFor = (tenants: readonly string[] | null): boolean => tenants === null || tenants.includes(asking.tenant)
      const hidden = [...configuration.catalogue.models.values()].filter(
        (one) => !isFor(one.tenants) || one.endpoints.every(({ tenants }) => !isFor(tenants)),
      )
      const private_names = new Set(
        hidden.flatMap(({ id }) => [id, ...[...configuration.catalogue.aliases].filter(([, of]) => of === id).map(([alias]) => alias)]),
      )
      for (const name of names(configuration)) {
        const route = routeTo(name, caller, configuration, 0.5)
        const unknown = routeTo('no-such-model', caller, configuration, 0.5)
        if (private_names.has(name)) {
          expect(route).toBeInstanceOf(WeirError)
          expect((route as WeirError).message).toBe((unknown as WeirError).message.replace('no-such-model', name))
          expect((route as WeirError).code).toBe('model_not_found')
        } else if (route instanceof WeirError) {
          for (const other of private_names) expect(route.message).not.toContain(other)
        } else expect(route.targets.filter(({ tenants }) => !isFor(tenants))).toEqual([])
      }
    }),
    { seed, numRuns: RUNS },
  )
})

test("what is told of a tenant's reach is what routing does", () => {
  fc.assert(
    fc.property(catalogues, whose, (models, asking) => {
      const configuration = catalogueOf(models)
      const whole = callerOf({ ...asking, project_zones: null, key_zones: null, key_models: null })
      for (const [party, caller] of [
        [wholeTenant(whole.tenant), whole],
        [callerOf(asking), callerOf(asking)],
      ] as const) {
        const told = waysOf(party, configuration.catalogue, NOW).filter(({ closed_by }) => closed_by === null)
        const found = names(configuration).flatMap((name) => {
          const route = routeTo(name, caller, configuration, 0.5)
          return route instanceof WeirError ? [] : route.targets.map(({ id }) => id)
        })
        expect([...new Set(told.map(({ endpoint: { id } }) => id))].toSorted()).toEqual([...new Set(found)].toSorted())
      }
    }),
    { seed, numRuns: RUNS },
  )
})
