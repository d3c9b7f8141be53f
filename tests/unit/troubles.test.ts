import { expect, test } from 'vitest'
import { createLogger } from '../../src/observe/log.ts'
import { Troubles } from '../../src/start/troubles.ts'
import { testClock } from '../support/clock.ts'

test('the first failure of work is told at once, then one in 30 s with how many there were; all are counted', () => {
  const clock = testClock()
  const lines: { msg: string; failures: number }[] = []
  const logger = createLogger({ level: 'error', destination: { write: (line) => void lines.push(JSON.parse(line)) } })
  const troubles = new Troubles(clock, logger)
  const [posting, sweeping] = [troubles.of('posting'), troubles.of('sweeping')]
  expect([...troubles.counts]).toEqual([
    ['posting', 0],
    ['sweeping', 0],
  ])
  for (let n = 0; n < 5; n += 1) posting(new Error('away'))
  sweeping(new Error('away'))
  clock.advance(30_000)
  posting(new Error('away'))
  expect(lines.map(({ msg, failures }) => `${msg} ${failures}`)).toEqual([
    'posting failed; trying again 1',
    'sweeping failed; trying again 1',
    'posting failed; trying again 5',
  ])
  expect(troubles.counts.get('posting')).toBe(6)
})
