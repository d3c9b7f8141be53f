import { describe, expect, it } from 'vitest'
import { ALONE, processShare } from '../../src/storage/nodes.ts'
import { CapacityMeter, MinuteWindow, shareOf } from '../../src/upstream/capacity.ts'

const NOW = 1_000_000_000
const MINUTE = 60_000

describe("a process's share of a limit", () => {
  it.each([
    [10, 3],
    [3, 3],
    [100_000, 7],
    [1, 1],
  ])('adds up to the limit: %d over %d processes', (limit, processes) => {
    const shares = Array.from({ length: processes }, (_, rank) => shareOf(limit, { processes, rank }))
    expect(shares.reduce((sum, share) => sum + share, 0)).toBe(limit)
    expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1)
  })

  it('is 1 where there are more processes than units, since one with nothing could never serve', () => {
    expect(Array.from({ length: 5 }, (_, rank) => shareOf(2, { processes: 5, rank }))).toEqual([1, 1, 1, 1, 1])
  })

  it('counts gateways that live, and ranks them alike in all of them', () => {
    const node = (name: string, roles: readonly string[] = ['gateway'], silent_ms = 0, stopped = false) => ({
      node: name,
      roles,
      silent_ms,
      stopped,
    })
    const nodes = [
      node('c'),
      node('a'),
      node('worker', ['worker']),
      node('silent', ['gateway'], 60_000),
      node('gone', ['gateway'], 0, true),
    ]
    expect(processShare(nodes, 'a')).toEqual({ processes: 2, rank: 0 })
    expect(processShare(nodes, 'c')).toEqual({ processes: 2, rank: 1 })
    expect(processShare(nodes, 'new')).toEqual({ processes: 3, rank: 2 })
    expect(processShare([], 'a')).toEqual(ALONE)
  })
})

describe('a window of a minute', () => {
  it('counts what lies less than a minute back, and for at most a second more', () => {
    const window = new MinuteWindow()
    window.add(5, NOW, NOW)
    window.add(2, NOW + 30_000, NOW + 30_000)
    expect(window.sum(NOW + MINUTE - 1)).toBe(7)
    expect(window.sum(NOW + MINUTE + 1000)).toBe(2)
    expect(window.sum(NOW + 30_000 + MINUTE + 1000)).toBe(0)
  })

  it('says when so much has left', () => {
    const window = new MinuteWindow()
    window.add(5, NOW, NOW)
    window.add(2, NOW + 30_000, NOW + 30_000)
    const at = NOW + 40_000
    expect(window.leavesIn_ms(0, at)).toBe(0)
    for (const amount of [1, 5, 6, 7]) {
      const then = at + window.leavesIn_ms(amount, at)
      const same = new MinuteWindow()
      same.add(5, NOW, NOW)
      same.add(2, NOW + 30_000, NOW + 30_000)
      expect(same.sum(then - 1)).toBeGreaterThan(7 - amount)
      expect(same.sum(then)).toBeLessThanOrEqual(7 - amount)
    }
  })

  it('forgets a correction downwards of a second that is over, and counts one upwards now', () => {
    const window = new MinuteWindow()
    window.add(10, NOW, NOW)
    const later = NOW + 2 * MINUTE
    window.add(-10, NOW, later)
    expect(window.sum(later)).toBe(0)
    window.add(3, NOW, later)
    expect(window.sum(later)).toBe(3)
  })
})

describe('a capacity', () => {
  const CAPACITY = { concurrency: 2, requests_per_minute: 3, tokens_per_minute: 100 }

  it('has room until one of its limits is reached', () => {
    const meter = new CapacityMeter()
    const taken = { tokens: 10, at_ms: NOW }
    meter.take(10, NOW)
    meter.take(10, NOW)
    expect(meter.hasRoom(CAPACITY, ALONE, 10, NOW)).toBe(false)
    expect(meter.roomIn_ms(CAPACITY, ALONE, 10, NOW)).toBeNull()
    meter.leave(taken, true, 10, NOW)
    expect(meter.hasRoom(CAPACITY, ALONE, 81, NOW)).toBe(false)
    expect(meter.hasRoom(CAPACITY, ALONE, 80, NOW)).toBe(true)
    meter.take(10, NOW)
    meter.leave(taken, true, 10, NOW)
    expect(meter.hasRoom(CAPACITY, ALONE, 1, NOW)).toBe(false)
    expect(meter.roomIn_ms(CAPACITY, ALONE, 1, NOW)).toBeGreaterThan(MINUTE - 1000)
    expect(meter.left(CAPACITY, ALONE, NOW)).toEqual({ concurrency: 1, requests_per_minute: 0, tokens_per_minute: 70 })
  })

  it('counts what a request used in the end, and nothing of one that was never sent', () => {
    const meter = new CapacityMeter()
    const taken = { tokens: 50, at_ms: NOW }
    meter.take(50, NOW)
    meter.leave(taken, true, 90, NOW + 10)
    expect(meter.left(CAPACITY, ALONE, NOW + 10).tokens_per_minute).toBe(10)
    meter.take(50, NOW)
    meter.leave(taken, false, null, NOW + 10)
    expect(meter.left(CAPACITY, ALONE, NOW + 10)).toEqual({ concurrency: 2, requests_per_minute: 2, tokens_per_minute: 10 })
  })

  it('lets a request that is larger than the limit through when nothing else counts', () => {
    const meter = new CapacityMeter()
    expect(meter.hasRoom(CAPACITY, ALONE, 5000, NOW)).toBe(true)
    meter.take(5000, NOW)
    expect(meter.hasRoom(CAPACITY, ALONE, 1, NOW)).toBe(false)
  })
})
