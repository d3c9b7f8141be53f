import { copyFileSync, cpSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { REPO_ROOT } from '../support/root.ts'
import { sharedData } from '../support/shared.ts'
import { tempDir } from '../support/temp.ts'

const SOUND = join(REPO_ROOT, 'tests', 'fixtures', 'config', 'sound')
const CLOCK: Clock = { now_ms: () => Date.parse('2026-09-01T00:00:00+08:00'), monotonic_ms: () => 0 }
const CHATGLM = 'Beijing-ChatGLM-20230821'

interface Directory {
  readonly dir: string
  /** Runs a command line with this directory as its configuration. */
  readonly weir: (...args: readonly string[]) => Promise<Outcome>
  /** Writes a file beside the configuration. @returns its path */
  readonly put: (name: string, text: string | Buffer) => string
}

function directory(config = SOUND): Directory {
  const root = tempDir()
  const dir = join(root, 'config')
  cpSync(config, dir, { recursive: true })
  const put = (name: string, text: string | Buffer): string => {
    writeFileSync(join(root, name), text)
    return join(root, name)
  }
  return { dir, put, weir: (...args) => runCommand(args, { WEIR_CONFIG_DIR: dir }, CLOCK) }
}

/** The sound catalogue with a filing at its one endpoint. */
function withFiling({ dir }: Directory, filing: string): void {
  const path = join(dir, 'catalogue.yaml')
  writeFileSync(path, readFileSync(path, 'utf8').replace('- provider: deepseek\n', `- provider: deepseek\n        filing: ${filing}\n`))
}

describe('weir filings import', () => {
  test('makes the registry, then merges: added, changed, kept, and what the list lacks stays', async () => {
    const { dir, weir, put } = directory()
    const first = put(
      'first.csv',
      'filing_number,name,entity,filed_on\nBeijing-A-20240101,A,甲,2024-01-05\nBeijing-B-20240101,B,乙,2024-01-06\n',
    )
    expect(await weir('filings', 'import', first)).toMatchObject({ code: 0, out: expect.stringContaining('added 2, changed 0') as unknown })
    const second = put('second.csv', '序号,模型名称,备案单位,备案编号\n1,A,丙,beijing-a-20240101\n2,C,丁,Beijing-C-20240101\n3,D,戊,\n')
    const dry = await weir('filings', 'import', second, '--as-of', '2026-08-24', '--dry-run')
    expect([dry.code, readFileSync(join(dir, 'filings.csv'), 'utf8').includes('丙')]).toEqual([0, false])
    const wet = await weir('filings', 'import', second, '--as-of', '2026-08-24')
    for (const { out } of [dry, wet]) {
      expect(out).toContain('line 4: has no number\n')
      expect(out).toContain('changed Beijing-A-20240101: entity "甲" is now "丙"\n')
      expect(out).toContain('added 1, changed 1, kept as they were 0\n1 known numbers are not in this list and stay')
      expect(out).toContain('3 numbers as of 2026-08-24')
    }
    const { rows, as_of } = JSON.parse((await weir('filings', 'list', '--json')).out) as {
      as_of: string
      rows: { number: string; entity: string }[]
    }
    expect([as_of, rows.map(({ number, entity }) => `${number} ${entity}`)]).toEqual([
      '2026-08-24',
      ['Beijing-A-20240101 丙', 'Beijing-B-20240101 乙', 'Beijing-C-20240101 丁'],
    ])
    expect((await weir('filings', 'list', '--search', '丁')).out).toMatch(/^Beijing-C-20240101 [^]*\n1 of 3 numbers as of 2026-08-24\n$/m)
    expect(readdirSync(dir)).not.toContain('filings.csv.new')
  })

  test('leaves the file alone where the list cannot be read, has no numbers or no date, or the file has mistakes', async () => {
    const { dir, weir, put } = directory()
    expect(await weir('filings', 'import', put('a.csv', 'name\nx\n'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('no column of numbers') as unknown,
    })
    expect(await weir('filings', 'import', put('b.csv', 'number\n\nx\n'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('no row') as unknown,
    })
    expect(await weir('filings', 'import', put('c.csv', `number\n${CHATGLM}\n`))).toMatchObject({
      code: 2,
      err: expect.stringContaining('--as-of') as unknown,
    })
    expect(await weir('filings', 'import', put('d.csv', `number\n${CHATGLM}\n`), '--as-of', '24.8.2026')).toMatchObject({ code: 2 })
    expect(await weir('filings', 'import', join(dir, 'no-such-file'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('ENOENT') as unknown,
    })
    expect(readdirSync(dir)).not.toContain('filings.csv')
    writeFileSync(join(dir, 'filings.csv'), 'nonsense\n')
    expect(await weir('filings', 'import', put('e.csv', `number,date\n${CHATGLM},2024-01-01\n`))).toMatchObject({
      code: 1,
      err: expect.stringContaining('filings.csv:1') as unknown,
    })
    expect(readFileSync(join(dir, 'filings.csv'), 'utf8')).toBe('nonsense\n')
  })

  test('writes through a link, which stays one', async () => {
    const { dir, weir, put } = directory()
    const elsewhere = join(dir, '..', 'elsewhere')
    mkdirSync(elsewhere)
    writeFileSync(join(elsewhere, 'real.csv'), '# as_of: 2026-01-01\nnumber\nBeijing-A-20240101\n')
    symlinkSync(join(elsewhere, 'real.csv'), join(dir, 'filings.csv'))
    expect(await weir('filings', 'import', put('a.csv', `number,date\n${CHATGLM},2024-01-01\n`))).toMatchObject({ code: 0 })
    expect(lstatSync(join(dir, 'filings.csv')).isSymbolicLink()).toBe(true)
    expect(readFileSync(join(elsewhere, 'real.csv'), 'utf8')).toContain(`\nBeijing-A-20240101,,,,,\n${CHATGLM},`)
  })

  test('takes the whole list of the regulator into the shipped registry, and that list again changes nothing', async (context) => {
    const list = sharedData('filings.csv')
    if (list === null) return context.skip('shared data is absent')
    const { dir, weir } = directory(join(REPO_ROOT, 'config'))
    const first = await weir('filings', 'import', list)
    expect(first.out).toContain('added 1,099, changed 0, kept as they were 13\n')
    expect(first.out).toContain('1,112 numbers as of 2026-08-24')
    const before = readFileSync(join(dir, 'filings.csv'), 'utf8')
    expect((await weir('filings', 'import', list)).out).toContain('added 0, changed 0, kept as they were 1,112\n')
    expect(readFileSync(join(dir, 'filings.csv'), 'utf8')).toBe(before)
    expect(await weir('check')).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringContaining('filings: 1112 numbers as of 2026-08-24 (8 days old)') as unknown,
    })
  }, 60_000)
})

describe('weir check', () => {
  test('finds nothing wrong with the shipped registry, says which models cannot serve the public and why, and warns when it is old', async () => {
    const { dir, weir } = directory(join(REPO_ROOT, 'config'))
    const young = await weir('filings', 'check')
    expect([young.code, young.err]).toEqual([0, ''])
    expect(young.out).toContain('filings: 13 numbers as of 2026-08-24 (8 days old)\nmodels that cannot serve the public\n')
    expect(young.out).toMatch(/^ {2}no filing is given for qwen: text-embedding-v4, /m)
    expect(young.out).not.toMatch(/ deepseek-flash\b/)
    const late: Clock = { ...CLOCK, now_ms: () => Date.parse('2026-10-24T00:00:00+08:00') }
    const old = await runCommand(['check'], { WEIR_CONFIG_DIR: dir }, late)
    expect([old.code, old.out.includes('(61 days old)\nwarning: the registry of filing numbers is more than 60 days old')]).toEqual([
      0,
      true,
    ])
  }, 60_000)

  test('fails on a number that is not in the registry, which is every number where there is none', async () => {
    const place = directory()
    withFiling(place, `{number: ${CHATGLM}, evidence: test}`)
    const expected = `error: endpoint deepseek/deepseek-flash: the filing number ${CHATGLM} is not in the registry`
    expect(await place.weir('check')).toMatchObject({
      code: 1,
      err: expect.stringContaining(expected) as unknown,
      out: expect.stringContaining('no registry') as unknown,
    })
    writeFileSync(join(place.dir, 'filings.csv'), '# as_of: 2026-08-24\nnumber\nBeijing-A-20240101\n')
    expect(await place.weir('filings', 'check')).toMatchObject({ code: 1, err: expect.stringContaining(expected) as unknown })
    writeFileSync(join(place.dir, 'filings.csv'), `# as_of: 2026-08-24\nnumber\n${CHATGLM.toUpperCase()}\n`)
    expect(await place.weir('filings', 'check')).toMatchObject({ code: 0, err: '' })
  })

  test('warns where somebody else than the provider filed a number, and of registrations that it does not know', async () => {
    const place = directory()
    copyFileSync(join(REPO_ROOT, 'config', 'filings.csv'), join(place.dir, 'filings.csv'))
    withFiling(place, `{number: ${CHATGLM}, registration: Hunan-App-20250905S0006, evidence: test}`)
    const settings = join(place.dir, 'weir.yaml')
    writeFileSync(settings, `${readFileSync(settings, 'utf8')}operator: {name: 某公司, registration: Hunan-Own-20250905S0007}\n`)
    const { code, out } = await place.weir('check')
    expect(code).toBe(0)
    expect(out).toContain(
      'warning: endpoint deepseek/deepseek-flash: its number was filed by 北京智谱华章科技有限公司, and deepseek is known as 北京深度求索',
    )
    expect(out).toContain('warning: endpoint deepseek/deepseek-flash: the registration Hunan-App-20250905S0006 is not in the registry')
    expect(out).toContain('warning: operator.registration Hunan-Own-20250905S0007 is not in the registry')
    rmSync(settings)
    expect(await place.weir('filings', 'check')).toMatchObject({ code: 1, err: expect.stringContaining('weir.yaml') as unknown })
  })
})
