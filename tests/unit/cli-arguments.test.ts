import { expect, test } from 'vitest'
import { helpOf, readArguments, type Command } from '../../src/cli/command.ts'
import { grouped, table } from '../../src/cli/table.ts'
import { type Outcome, runCommand } from '../support/command.ts'

const COMMAND: Command = {
  name: 'pour',
  summary: 'Pour.',
  positionals: ['cup', '[saucer]'],
  options: { size: { value: 'N', help: 'how much' }, with: { value: 'X', help: 'and', many: true }, hot: { help: 'hot' } },
  run: () => Promise.resolve(0),
}

async function weir(...args: string[]): Promise<Outcome> {
  return await runCommand(args)
}

test('reads positionals, values, lists and flags', () => {
  const args = readArguments(COMMAND, ['blue', '--size', '3', '--with', 'milk,sugar', '--with', 'tea', '--hot'])
  expect(args?.positional(0)).toBe('blue')
  expect(args?.positional(1)).toBeUndefined()
  expect(args?.number('size', 1, 5)).toBe(3)
  expect(args?.list('with')).toEqual(['milk', 'sugar', 'tea'])
  expect(args?.flag('hot')).toBe(true)
})

test.each([
  [[], 'cup is missing'],
  [['a', 'b', 'c'], '"c" is one argument too many'],
  [['a', '--cold'], "Unknown option '--cold'"],
  [['a', '--size'], '--size'],
])('%j is a usage error', (given, message) => {
  expect(() => readArguments(COMMAND, given)).toThrow(message)
})

test.each(['0', '6', '1.5', '-1', 'x', '1e3'])('a number out of its range is a usage error: %s', (given) => {
  expect(() => readArguments(COMMAND, ['a', `--size=${given}`])?.number('size', 1, 5)).toThrow('from 1 to 5')
})

test('help names every option', () => {
  for (const word of ['weir pour <cup> [saucer]', '--size N', '--hot', '--help']) expect(helpOf(COMMAND)).toContain(word)
})

test('every command has help that costs nothing', async () => {
  const { out } = await weir('--help')
  const names = [...out.matchAll(/^ {2}([a-z]+(?: [a-z]+)?) {2,}/gm)].map(([, name = '']) => name)
  expect(names).toContain('key create')
  expect(names.length).toBeGreaterThan(12)
  for (const name of names) {
    const { code, out: help } = await weir(...name.split(' '), '--help')
    expect([code, help.startsWith(`Usage: weir ${name}`)]).toEqual([0, true])
  }
})

test('exit codes: 0 for help and version, 2 for what cannot be understood', async () => {
  expect(await weir('--version')).toMatchObject({ code: 0, out: 'weir 1.2.3\n' })
  expect(await weir()).toMatchObject({ code: 2 })
  expect(await weir('frobnicate')).toMatchObject({ code: 2, err: expect.stringContaining('"frobnicate"') as unknown })
  expect(await weir('key')).toMatchObject({ code: 2, err: expect.stringContaining('weir key create') as unknown })
  expect(await weir('key', 'revoke')).toMatchObject({ code: 2, err: expect.stringContaining('key is missing') as unknown })
})

test('columns align, figures to the right, Chinese characters counted as two', () => {
  expect(
    table(
      ['NAME', 'TOKENS'],
      [
        ['网站', '1,200'],
        ['shop', '7'],
      ],
    ),
  ).toBe('NAME  TOKENS\n网站   1,200\nshop       7\n')
  expect([grouped(1234567), grouped('1234.000001'), grouped(12)]).toEqual(['1,234,567', '1,234.000001', '12'])
})
