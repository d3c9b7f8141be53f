import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { readFilingList } from '../../src/config/filing-list.ts'
import {
  type FilingRow,
  filingsOf,
  findFiling,
  makeRegistry,
  MAX_FILING_ROWS,
  mergeFilings,
  parseFilingNumber,
} from '../../src/routing/filings.ts'
import { sharedData } from '../support/shared.ts'

function filed(number: string, members: Partial<FilingRow> = {}): FilingRow {
  return { number, kind: 'filed', name: '', entity: '', province: '', filed_on: '', source: '', ...members }
}

describe('a number', () => {
  it.each([
    ['Beijing-ChatGLM-20230821', { kind: 'filed', prefix: 'Beijing', name: 'ChatGLM', date: '20230821', serial: '' }],
    ['Beijing-DeepseekChat-202404280016', { kind: 'filed', prefix: 'Beijing', name: 'DeepseekChat', date: '20240428', serial: '0016' }],
    ['Shanghai-X-20240428001612', { kind: 'filed', date: '20240428', serial: '001612' }],
    ['Beijing-Youtu-llm-202511150162', { kind: 'filed', name: 'Youtu-llm', serial: '0162' }],
    ['ZhongYangQiYe-Xing.Chen_2-202401010001', { kind: 'filed', prefix: 'ZhongYangQiYe', name: 'Xing.Chen_2' }],
    ['Hunan-Sibionics-20250905S0006', { kind: 'registered', name: 'Sibionics', serial: '0006' }],
    ['hunan-sibionics-20250905s0006', { kind: 'registered', folded: 'hunan-sibionics-20250905s0006' }],
  ])('%s is taken apart', (text, parts) => {
    expect(parseFilingNumber(text)).toMatchObject({ text, ...parts })
  })

  it.each([
    ...['', 'ChatGLM', 'Beijing-20230821', 'Beijing-ChatGLM-2023082', 'Beijing-ChatGLM-20230821001', 'Beijing-ChatGLM-20230821S001'],
    ...[
      'Beijing-ChatGLM-20230821 ',
      'Beijing-智谱-20230821',
      'Beijing-ChatGLM-20230821\r\nx-evil: 1',
      `Beijing-${'a'.repeat(200)}-20230821`,
    ],
  ])('%j is none', (text) => {
    expect(parseFilingNumber(text)).toBeNull()
  })
})

describe('the registry', () => {
  it('keys on the number and never on the name: two companies filed 天问', () => {
    const one = filed('Beijing-TianWen-202401010001', { name: '天问', entity: '甲公司' })
    const other = filed('Shanghai-TianWen-202401010002', { name: '天问', entity: '乙（上海）公司' })
    const registry = makeRegistry('2026-08-24', [one, other])
    expect([findFiling(registry, one.number.toUpperCase()), findFiling(registry, '天问')]).toEqual([one, null])
    expect(filingsOf(registry, '乙 (上海) 公司')).toEqual([other])
    expect(filingsOf(registry, '天问')).toEqual([])
  })

  it('has a limit', () => {
    const rows = Array.from({ length: MAX_FILING_ROWS + 1 }, (_, index) => filed(`Beijing-X${index}-20240101`))
    expect(() => makeRegistry('2026-08-24', rows)).toThrow(RangeError)
    expect(makeRegistry('2026-08-24', rows.slice(1)).rows.size).toBe(MAX_FILING_ROWS)
  })

  it('takes what is newer, fills what the newer leaves empty, and keeps the spelling that it had', () => {
    const known = makeRegistry('2026-06-01', [filed('ZheJiang-X-20240101', { name: '旧', entity: '甲', province: '浙江省' })])
    const list = [filed('Zhejiang-X-20240101', { name: '新', entity: '' })]
    const newer = mergeFilings(known, makeRegistry('2026-08-01', list)).registry
    expect(findFiling(newer, 'ZHEJIANG-X-20240101')).toMatchObject({
      number: 'ZheJiang-X-20240101',
      name: '新',
      entity: '甲',
      province: '浙江省',
    })
    const older = mergeFilings(known, makeRegistry('2026-01-01', list))
    expect([older.changed, older.registry.as_of, findFiling(older.registry, 'ZheJiang-X-20240101')?.name]).toEqual([[], '2026-06-01', '旧'])
  })
})

const GBK_LIST = Buffer.from(
  // "序号,模型名称,备案单位,备案编号" and "1,云雀,抖音,Beijing-YunQue-20230821" in GBK.
  'd0f2bac52cc4a3d0cdc3fbb3c62cb1b8b0b8b5a5cebb2cb1b8b0b8b1e0bac50a' +
    '312cd4c6c8b82cb6b6d2f42c4265696a696e672d59756e5175652d32303233303832310a',
  'hex',
)

describe('a list as somebody published it', () => {
  it('is read in GBK', () => {
    const { encoding, rows } = readFilingList(GBK_LIST)
    expect([encoding, rows]).toEqual(['GB18030', [filed('Beijing-YunQue-20230821', { name: '云雀', entity: '抖音' })]])
  })

  it('may have a title above its columns, quotes, wide letters and other dashes', () => {
    const text =
      '生成式人工智能服务已备案信息（截至8月）,,,\n序号,模型名称,备案单位,备案编号,备案时间\n' +
      '1,"星""火",科大讯飞,Ａnhui－XingHuo–20230823,2023年9月4日\n2,a "b" c,乙,Beijing-B-202401010001,2024/1/2 0:00\n'
    const { rows, problems } = readFilingList(Buffer.from(text))
    expect(rows).toEqual([
      filed('Anhui-XingHuo-20230823', { name: '星"火', entity: '科大讯飞', filed_on: '2023-09-04' }),
      filed('Beijing-B-202401010001', { name: 'a "b" c', entity: '乙', filed_on: '2024-01-02' }),
    ])
    expect(problems).toEqual([])
  })

  it('names by line what it cannot take over, and takes the rest', () => {
    const text =
      'number,name,entity,date\n,无号,甲,\nBeijing-A-20240101,一,甲,2024-13-40\n"x\ny",二,乙,\nbeijing-a-20240101,别的,丙,\nBeijing-A-20240101,一,甲,\n,,,\n'
    const { rows, problems, duplicates } = readFilingList(Buffer.from(text))
    expect(rows).toEqual([filed('Beijing-A-20240101', { name: '一', entity: '甲' })])
    expect([duplicates, problems]).toEqual([
      2,
      [
        { line: 2, message: 'has no number' },
        { line: 3, message: 'the date "2024-13-40" cannot be read and is left out' },
        { line: 4, message: '"x y" is neither a filing nor a registration number' },
        { line: 6, message: 'says something else of beijing-a-20240101 than line 3, which counts' },
      ],
    ])
  })

  it.each([
    ['name,entity\nx,y\n', 'has no column of numbers'],
    ['', 'has no column of numbers'],
    ['number,name\n"x,y\n', 'never closed'],
  ])('%j is none', (text, why) => {
    expect(() => readFilingList(Buffer.from(text))).toThrow(why)
  })

  it('is read whole: the regulator’s list and the registered applications', (context) => {
    const paths = [sharedData('filings.csv'), sharedData('registrations-sample.csv')]
    if (paths[0] === null || paths[1] === null) return context.skip('shared data is absent')
    const [list, registered] = paths.map((path) => readFilingList(readFileSync(path ?? '')))
    expect([list?.rows.length, list?.duplicates, list?.problems, list?.newest]).toEqual([1112, 0, [], '2026-08-24'])
    expect(new Set(list?.rows.map(({ kind }) => kind))).toEqual(new Set(['filed']))
    expect([registered?.rows.length, registered?.problems]).toEqual([36, []])
    expect(new Set(registered?.rows.map(({ kind }) => kind))).toEqual(new Set(['registered']))
    for (const { number, name, entity } of [...(list?.rows ?? []), ...(registered?.rows ?? [])])
      expect([number, name === '', entity === '']).toEqual([number, false, false])
    const registry = makeRegistry('2026-08-24', list?.rows ?? [])
    expect(findFiling(registry, 'zhejiang-tongyiqianwen-20230901')?.entity).toBe('阿里巴巴达摩院（杭州）科技有限公司')
  })
})
