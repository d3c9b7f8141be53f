import { expect, it } from 'vitest'
import { Bag } from '../../src/base/bag.ts'

const item = (name: string): { name: string; bag_index: number } => ({ name, bag_index: -1 })
const names = (bag: Bag<ReturnType<typeof item>>): string[] =>
  bag
    .all()
    .map(({ name }) => name)
    .toSorted()

it('holds what was added and not taken out, once each', () => {
  const bag = new Bag<ReturnType<typeof item>>()
  const [a, b, c] = [item('a'), item('b'), item('c')]
  for (const one of [a, b, c, a]) bag.add(one)
  expect([bag.size, names(bag)]).toEqual([3, ['a', 'b', 'c']])
  bag.delete(a)
  bag.delete(a)
  expect([bag.size, names(bag)]).toEqual([2, ['b', 'c']])
  bag.delete(c)
  bag.add(a)
  bag.delete(b)
  bag.delete(a)
  expect([bag.size, names(bag)]).toEqual([0, []])
})

it('may be emptied while it is walked', () => {
  const bag = new Bag<ReturnType<typeof item>>()
  for (const name of 'abcdef') bag.add(item(name))
  let walked = 0
  for (const one of bag.all()) {
    bag.delete(one)
    walked += 1
  }
  expect([walked, bag.size]).toEqual([6, 0])
})
