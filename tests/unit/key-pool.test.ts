import { describe, expect, it } from 'vitest'
import { chanceOf } from '../../src/routing/draw.ts'
import { ALONE } from '../../src/storage/nodes.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'
import {
  afterAnswer,
  afterFailedTry,
  afterTaking,
  drawKey,
  drawSteadily,
  freshKey,
  KEY_RULES as RULES,
  type KeyPool,
  phaseOf,
  type ProviderKey,
} from '../../src/upstream/key-pool.ts'
import { PlaceBoard } from '../../src/upstream/places.ts'
import { seededRandom } from '../support/random.ts'

const NOW = 1_000_000
const key = (name: string, more: Partial<ProviderKey> = {}): ProviderKey => ({
  id: `p/${name}`,
  name,
  secret: `secret-${name}`,
  weight: 1,
  capacity: null,
  ...more,
})

describe('the key of a conversation', () => {
  const keys = [key('a', { weight: 3 }), key('b'), key('c')]
  const drawn = (conversation: number, from: readonly ProviderKey[]): string | undefined =>
    drawSteadily(from, chanceOf(`conversation ${conversation}`))?.name

  it('is the same each time, by weight, and where a key goes away only its own conversations move', () => {
    const before = Array.from({ length: 4000 }, (_, index) => drawn(index, keys))
    expect(Array.from({ length: 4000 }, (_, index) => drawn(index, keys))).toEqual(before)
    const share = before.filter((name) => name === 'a').length / before.length
    expect(share).toBeGreaterThan(0.56)
    expect(share).toBeLessThan(0.64)
    const [, ...others] = keys
    for (const [index, name] of before.entries()) if (name !== 'a') expect(drawn(index, others)).toBe(name)
    expect(drawSteadily([], () => 0.5)).toBeNull()
  })
})

describe('a key', () => {
  it.each(['auth', 'balance', 'quota'] as const)('that is refused for %s is left alone for long, and longer each time', (kind) => {
    let [state, now_ms] = [freshKey, NOW]
    const pauses: number[] = []
    for (let again = 0; again < 6; again += 1) {
      state = afterFailedTry(state, kind, now_ms, null)
      expect(phaseOf(state, state.until_ms - 1)).toBe('cooling')
      pauses.push(state.until_ms - now_ms)
      now_ms = state.until_ms
      expect(phaseOf(state, now_ms)).toBe('ready')
    }
    expect(pauses).toEqual([60_000, 120_000, 240_000, 480_000, 600_000, 600_000])
  })

  it('that comes too fast is left alone for a moment, or for as long as the provider asks, within a limit', () => {
    expect(afterFailedTry(freshKey, 'rate', NOW, null).until_ms).toBe(NOW + RULES.rate_cooldown_ms)
    expect(afterFailedTry(freshKey, 'rate', NOW, 30_000).until_ms).toBe(NOW + 30_000)
    expect(afterFailedTry(freshKey, 'rate', NOW, 10 ** 9).until_ms).toBe(NOW + RULES.retry_after_cap_ms)
  })

  it('is refused once, however many requests ran with it', () => {
    let state = afterFailedTry(freshKey, 'auth', NOW, null)
    for (let more = 1; more < 100; more += 1) state = afterFailedTry(state, 'auth', NOW + more, null)
    expect(state).toEqual({ refusals: 1, until_ms: NOW + RULES.account_cooldown_ms, probe_until_ms: 0 })
  })

  it('is tried by one request after its pause, and is as new once that is answered', () => {
    const cold = afterFailedTry(freshKey, 'quota', NOW, null)
    const then = cold.until_ms
    const tried = afterTaking(cold, then)
    expect(phaseOf(tried, then)).toBe('probing')
    expect(phaseOf(tried, then + RULES.probe_lease_ms)).toBe('ready')
    expect(afterAnswer(tried, then + 5)).toEqual(freshKey)
    expect(afterFailedTry(tried, 'invalid', then + 5, null)).toEqual(freshKey)
  })

  it('of which a try has taught nothing may be tried again', () => {
    const cold = afterFailedTry(freshKey, 'quota', NOW, null)
    const tried = afterTaking(cold, cold.until_ms)
    for (const kind of ['server', 'reset', 'client_gone'] satisfies FailureKind[])
      expect(phaseOf(afterFailedTry(tried, kind, cold.until_ms + 1, null), cold.until_ms + 1)).toBe('ready')
  })

  it('is not mended by the answer to a request from before', () => {
    const cold = afterFailedTry(freshKey, 'auth', NOW, null)
    expect(afterAnswer(cold, NOW + 10)).toBe(cold)
  })

  it('is drawn by its weight', () => {
    const random = seededRandom(7)
    const keys = [key('a', { weight: 1 }), key('b', { weight: 3 })]
    const drawn = Array.from({ length: 4000 }, () => drawKey(keys, random.next())?.name)
    expect(drawn.filter((name) => name === 'b').length / drawn.length).toBeCloseTo(0.75, 1)
    expect(drawKey([], 0.5)).toBeNull()
  })
})

describe('a pool of keys', () => {
  const target = (pool: KeyPool, id = 'e') => ({ id, capacity: null, key_pool: pool })
  const board = (): PlaceBoard =>
    new PlaceBoard(
      () => ALONE,
      () => 0,
    )
  const pool: KeyPool = { id: 'p', keys: [key('a'), key('b')] }

  it('goes on with the keys that are left, and says when none is', () => {
    const places = board()
    const first = places.take(target(pool), 1, NOW)
    if (first === null) throw new Error('there is no place')
    expect(first.key?.name).toBe('a')
    expect(places.failed(first, 'auth', NOW, null)).toBe('another')
    const second = places.take(target(pool), 1, NOW)
    if (second === null) throw new Error('there is no place')
    expect(second.key?.name).toBe('b')
    expect(places.failed(second, 'rate', NOW, 5000)).toBe('none_left')
    expect(places.keyIn_ms(target(pool), NOW)).toBe(5000)
    expect(places.roomIn_ms(target(pool), 1, NOW)).toBe(5000)
    expect(places.take(target(pool), 1, NOW)).toBeNull()
    expect(places.take(target(pool), 1, NOW + 5000)?.key?.name).toBe('b')
    expect(places.take(target(pool), 1, NOW + 5000)).toBeNull()
    expect(places.keyState('p/b', NOW + 5000).phase).toBe('probing')
    expect(places.keyState('p/a', NOW + 5000)).toEqual({ phase: 'cooling', until_ms: NOW + RULES.account_cooldown_ms })
  })

  it('shares what is left of a key among the endpoints that use it', () => {
    const one: KeyPool = { id: 'p', keys: [key('a', { capacity: { concurrency: 1, requests_per_minute: null, tokens_per_minute: null } })] }
    const places = board()
    const place = places.take(target(one, 'e1'), 1, NOW)
    expect(places.take(target(one, 'e2'), 1, NOW)).toBeNull()
    if (place === null) throw new Error('there is no place')
    expect(places.leave(place, null, NOW)).toBe(true)
    expect(places.leave(place, null, NOW)).toBe(false)
    expect(places.take(target(one, 'e2'), 1, NOW)).not.toBeNull()
  })

  it('uses a key that was taken away no more, and a renewed one with its new secret, whatever pool a request was given', () => {
    const places = board()
    places.adopt([target(pool)])
    const place = places.take(target(pool), 1, NOW)
    if (place !== null) places.failed(place, 'auth', NOW, null)
    places.adopt([target({ id: 'p', keys: [key('a', { secret: 'renewed' })] })])
    const again = places.take(target(pool), 1, NOW)
    expect(again?.key).toMatchObject({ name: 'a', secret: 'renewed' })
    places.adopt([])
    expect(places.take(target(pool), 1, NOW)).toBeNull()
  })

  it('takes nothing of a key that was not used', () => {
    const limited: KeyPool = {
      id: 'p',
      keys: [key('a', { capacity: { concurrency: null, requests_per_minute: 1, tokens_per_minute: null } })],
    }
    const places = board()
    for (let again = 0; again < 3; again += 1) {
      const place = places.take(target(limited), 1, NOW)
      if (place === null) throw new Error('there is no place')
      places.leave(place, null, NOW)
    }
    const used = places.take(target(limited), 1, NOW)
    if (used !== null) used.sent = true
    if (used !== null) places.leave(used, null, NOW)
    expect(places.take(target(limited), 1, NOW)).toBeNull()
  })
})
