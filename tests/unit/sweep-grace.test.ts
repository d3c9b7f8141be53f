import { expect, it } from 'vitest'
import { SweepGrace } from '../../src/worker/sweep-grace.ts'

const SECOND_MS = 1000

it('buckets that nobody could reach for a while are left alone for ten seconds, each by itself', () => {
  const grace = new SweepGrace(0)
  const at = (seconds: number, ...answered: readonly number[]) => grace.sweepable(answered, seconds * SECOND_MS)
  expect(at(5, 0, 1)).toEqual([0, 1])
  // The server of bucket 1 goes away; that of bucket 0 never does.
  for (const seconds of [10, 15, 20, 25]) expect(at(seconds, 0)).toEqual([0])
  for (const seconds of [30, 35, 39]) expect(at(seconds, 0, 1)).toEqual([0])
  expect(at(40, 0, 1)).toEqual([0, 1])
  // One that is first heard of after a while was away too.
  expect(at(41, 0, 1, 2)).toEqual([0, 1])
  expect(at(51, 0, 1, 2)).toEqual([0, 1, 2])
})

it('one missed look is no time without renewals', () => {
  const grace = new SweepGrace(0)
  for (const seconds of [5, 15, 30]) expect(grace.sweepable([7], seconds * SECOND_MS)).toEqual([7])
})
