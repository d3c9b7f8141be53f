import { expect, it, test } from 'vitest'
import { bucketsOf, readReport, readTag, ReportProblem } from '../../src/money/report.ts'
import { timeZoneOf } from '../../src/money/window.ts'
import { segmentsOf } from '../../src/storage/sql/usage.ts'

const MINUTE_MS = 60_000
const at = (text: string): number => Date.parse(text)
const iso = (at_ms: number): string => new Date(at_ms).toISOString().slice(0, 16)

function bucketStarts(name: 'hour' | 'day' | 'week' | 'month', time_zone: string, from: string, to: string): readonly string[] {
  const buckets = bucketsOf(name, { from_ms: at(from), to_ms: at(to), time_zone, most: 400 }) ?? []
  return buckets.map(({ from_ms }) => iso(from_ms))
}

it('buckets begin when the clock of the zone shows a full hour, midnight, Monday or the first', () => {
  expect(bucketStarts('hour', 'Asia/Kolkata', '2026-11-23T00:10Z', '2026-11-23T02:00Z')).toEqual([
    '2026-11-23T00:10',
    '2026-11-23T00:30',
    '2026-11-23T01:30',
  ])
  expect(bucketStarts('day', 'Asia/Shanghai', '2026-11-22T16:00Z', '2026-11-24T16:00Z')).toEqual(['2026-11-22T16:00', '2026-11-23T16:00'])
  expect(bucketStarts('week', 'Asia/Shanghai', '2026-11-18T00:00Z', '2026-11-24T00:00Z')).toEqual(['2026-11-18T00:00', '2026-11-22T16:00'])
  expect(bucketStarts('month', 'Asia/Shanghai', '2026-11-30T00:00Z', '2026-12-02T00:00Z')).toEqual(['2026-11-30T00:00', '2026-11-30T16:00'])
})

it.each(['Europe/Berlin', 'Australia/Lord_Howe', 'America/St_Johns', 'Asia/Kathmandu'])(
  'buckets of a year in %s leave no gap, and a day has 23 to 25 hours',
  (time_zone) => {
    for (let month = 0; month < 12; month += 1) {
      const [from_ms, to_ms] = [Date.UTC(2026, month, 25), Date.UTC(2026, month + 1, 10)]
      const hours = bucketsOf('hour', { from_ms, to_ms, time_zone, most: 400 }) ?? []
      expect(hours.length).toBeGreaterThan(300)
      expect([hours[0]?.from_ms, hours.at(-1)?.to_ms]).toEqual([from_ms, to_ms])
      for (const [index, { from_ms: start, to_ms: end }] of hours.entries()) {
        expect(end - start).toBeLessThanOrEqual(60 * MINUTE_MS)
        expect(hours[index + 1]?.from_ms ?? end).toBe(end)
      }
    }
  },
)

test('more buckets than a report may have are none', () => {
  expect(bucketsOf('hour', { from_ms: 0, to_ms: 401 * 60 * MINUTE_MS, time_zone: 'UTC', most: 400 })).toBeNull()
  expect(bucketsOf('hour', { from_ms: 0, to_ms: 400 * 60 * MINUTE_MS, time_zone: 'UTC', most: 400 })).toHaveLength(400)
})

const bounds = { from_ms: 0, to_ms: 86_400_000, time_zone: 'Asia/Shanghai', dimensions: ['model', 'key', 'end_user'], most: 400 }

it('reads what a report is split by', () => {
  expect(readReport({ group: 'model, tag:team' }, bounds)).toEqual({
    by: ['model', 'tag:team'],
    bucket: null,
    periods: [{ from_ms: 0, to_ms: 86_400_000 }],
  })
  expect(readReport({ group: '', bucket: 'day' }, bounds).periods).toHaveLength(2)
  expect(readReport({ group: 'tag:team', tag: 'team:x' }, bounds).by).toEqual(['tag:team'])
  expect(readTag('team:a b:c/d')).toEqual({ name: 'team', value: 'a b:c/d' })
})

it.each([
  { group: 'colour' },
  { group: 'tenant' },
  { group: 'tag:' },
  { group: 'model,model' },
  { group: 'model,key,end_user,tag:x' },
  { group: 'tag:a,tag:b' },
  { group: 'end_user', tag: 'a:b' },
  { group: 'tag:a', end_user: 'u' },
  { tag: 'team' },
  { bucket: 'year' },
])('refuses %j with words that say what to write', (words) => {
  expect(() => readReport(words, bounds)).toThrow(ReportProblem)
})

it('knows time zones by name, in one spelling each', () => {
  expect(timeZoneOf('ASIA/shanghai')).toBe('Asia/Shanghai')
  for (const none of ['Mars', '+08:00', '', 'asia/shanghai '.repeat(10)]) expect(timeZoneOf(none)).toBeNull()
})

const NO_FLOORS = { minutes_ms: 0, events_ms: 0 }

it('a period is cut into whole days, hours and minutes, and events only at its edges', () => {
  const pieces = segmentsOf([{ from_ms: at('2026-11-20T22:58:30+08:00'), to_ms: at('2026-11-23T02:00:00.001+08:00') }], NO_FLOORS)
  expect(pieces.map(({ grain, from_ms, to_ms }) => `${grain} ${iso(from_ms + 8 * 60 * MINUTE_MS)} ${(to_ms - from_ms) / 1000}`)).toEqual([
    'event 2026-11-20T22:58 30',
    'minute 2026-11-20T22:59 60',
    'hour 2026-11-20T23:00 3600',
    'day 2026-11-21T00:00 172800',
    'hour 2026-11-23T00:00 7200',
    'event 2026-11-23T02:00 0.001',
  ])
})

it('where details are not kept, a minute or an hour belongs to the period that it begins in', () => {
  const [day_ms, half_ms] = [86_400_000, 30 * MINUTE_MS]
  const halves = (start_ms: number): readonly { from_ms: number; to_ms: number }[] => [
    { from_ms: start_ms, to_ms: start_ms + half_ms + 5 },
    { from_ms: start_ms + half_ms + 5, to_ms: start_ms + 2 * half_ms },
  ]
  const floors = { minutes_ms: day_ms, events_ms: 2 * day_ms }
  expect(segmentsOf(halves(0), floors)).toEqual([{ grain: 'hour', period: 0, from_ms: 0, to_ms: 2 * half_ms }])
  expect(segmentsOf(halves(day_ms), floors)).toEqual([
    { grain: 'minute', period: 0, from_ms: day_ms, to_ms: day_ms + half_ms + MINUTE_MS },
    { grain: 'minute', period: 1, from_ms: day_ms + half_ms + MINUTE_MS, to_ms: day_ms + 2 * half_ms },
  ])
})
