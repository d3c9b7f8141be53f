import { type Domain, DOMAINS, VERTICALS } from '../../src/base/domains.ts'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { CONFIDENCE_THRESHOLD, confidentDomain, createDomainClassifier } from '../../src/routing/domain.ts'
import {
  createFeatureScanner,
  EARLIER_TURN_HEAD,
  EARLIER_TURNS,
  LAST_TURN_HEAD,
  LAST_TURN_TAIL,
  SYSTEM_HEAD,
} from '../../src/routing/features.ts'
import { formatWeights, markOf, MAX_WEIGHTS_BYTES, neighbourOf, parseWeights, slotOf } from '../../src/routing/weights.ts'
import { composePhrases, parseLine, readOwn, readTemplates, readTerms } from '../../scripts/routing/corpus.ts'
import { REPO_ROOT } from '../support/root.ts'
import { sharedData } from '../support/shared.ts'

const file = readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin'))
const classifier = createDomainClassifier(file)
const say = (text: string, system: string | null = null) => classifier.classify({ system, turns: [text] })
const route = (text: string): Domain => confidentDomain(say(text))

const CLEAR: Readonly<Record<Domain, readonly string[]>> = {
  finance: [
    '请帮我比较等额本息和等额本金的利息差额，贷款八十万二十年',
    '公司计提存货跌价准备的会计分录怎么写',
    'my credit card payment was charged twice, the bank says it is pending',
  ],
  healthcare: [
    '孩子发烧三十九度还咳嗽，需要吃退烧药吗',
    '高血压患者长期服用氨氯地平有什么副作用',
    'I have chest pain and my blood pressure is high',
  ],
  education: [
    '写一份小学二年级语文教案，含教学目标和板书设计',
    '已知函数f(x)是奇函数且单调递增，求不等式的解集',
    'lesson plan for 5th grade students about fractions',
  ],
  government: [
    '身份证过期了在外地怎么换领，需要去派出所吗',
    '起草一份关于加强基层治理的通知，主送各乡镇人民政府',
    'how do I renew my passport and register to vote',
  ],
  industrial: [
    '变频器报过流故障跳闸，三相异步电动机绝缘正常',
    '数控机床主轴轴承异响怎么检修',
    'the pump motor trips on overload and the bearing overheats',
  ],
  legal: [
    '公司违法解除劳动合同，申请劳动仲裁能要多少赔偿金',
    '甲盗窃后为抗拒抓捕致人重伤，应当认定为何罪',
    'draft a non-disclosure agreement with an indemnification clause',
  ],
  retail: [
    '衣服尺码偏小，申请退货退款，运费谁出',
    '店铺双十一满减优惠券怎么设置，客单价太低',
    'where is my package, I want to return the shoes I ordered',
  ],
  customer_service: [
    '帮我订明天北京飞上海的机票，靠窗的座位',
    '酒店房间隔音太差，前台服务态度也不好',
    'I want to book a hotel room for two nights with breakfast',
  ],
  general: ['用Python写一个快速排序', '写一首关于月亮的诗', 'tell me a joke about cats', '李白和杜甫谁更伟大'],
}

describe('the domain of a prompt', () => {
  test.each(DOMAINS)('%s is told from clear examples', (domain) => {
    expect(CLEAR[domain].map((text) => [text, route(text)])).toEqual(CLEAR[domain].map((text) => [text, domain]))
  })

  test('is the same every time, and in another classifier with the same weights', () => {
    const texts = Object.values(CLEAR).flat()
    const first = texts.map((text) => say(text))
    const other = createDomainClassifier(file)
    expect(texts.toReversed().map((text) => other.classify({ system: null, turns: [text] }))).toEqual(first.toReversed())
    expect(texts.map((text) => say(text))).toEqual(first)
  })

  test('stays the same after more scans than a scan number can count', () => {
    const before = say('挂号看医生')
    for (let scan = 0; scan < 0x10000 + 5; scan++) say('退')
    expect(say('挂号看医生')).toEqual(before)
  })

  test.each([
    ['nothing', { system: null, turns: [] }],
    ['an empty turn', { system: '', turns: [''] }],
    ['white space', { system: null, turns: [' \n\t　'] }],
    ['punctuation', { system: null, turns: ['？？？！……,.;{}[]'] }],
    ['digits', { system: null, turns: ['12345 67890'] }],
    ['emoji', { system: null, turns: ['😀🎉👍'] }],
    ['halves of surrogate pairs', { system: null, turns: ['\ud83d\ud83d\udc00'] }],
    ['a script it was never shown', { system: null, turns: ['ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾ'] }],
    ['control characters', { system: '\u0000\u0001', turns: ['\u0007\u001b'] }],
  ])('%s is general', (_name, input) => {
    const guess = classifier.classify(input)
    expect(confidentDomain(guess)).toBe('general')
    expect(guess.domain).toBe('general')
  })

  test('that is not sure enough is general', () => {
    const scores = say('房子')
    expect(confidentDomain({ ...scores, domain: 'legal', confidence: CONFIDENCE_THRESHOLD - 0.01 })).toBe('general')
    expect(confidentDomain({ ...scores, domain: 'legal', confidence: CONFIDENCE_THRESHOLD })).toBe('legal')
    expect(confidentDomain({ ...scores, domain: 'legal', confidence: 0.4 }, 0.3)).toBe('legal')
  })

  test('has scores for every domain that sum to 1, and the largest is the confidence', () => {
    const { domain, confidence, scores } = say('信用卡逾期被起诉怎么办')
    expect(Object.keys(scores).toSorted()).toEqual([...DOMAINS].toSorted())
    expect(Object.values(scores).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12)
    expect(Math.max(...Object.values(scores))).toBe(confidence)
    expect(scores[domain]).toBe(confidence)
  })

  test.each([
    ['full-width letters', 'ＣＲＥＤＩＴ　ＣＡＲＤ', 'credit card'],
    ['case', 'Credit CARD', 'credit card'],
    ['traditional characters', '銀行貸款利率', '银行贷款利率'],
    ['digits of another width or value', '贷款１００万利率3.6%', '贷款25万利率4.9%'],
    ['radicals that look like characters', '⾼⾎压', '高血压'],
    ['zero-width characters', '银\u200b行贷\ufeff款', '银行贷款'],
    ['punctuation', '银行，贷款……利率？', '银行、贷款；利率'],
    ['accents', 'crédit', 'credit'],
  ])('does not depend on %s', (_name, one, other) => {
    expect(say(one)).toEqual(say(other))
  })

  test('is found despite a typo in a word', () => {
    expect(say('my doctr gave me a perscription for the infection').domain).toBe('healthcare')
  })

  test('is the less sure the more of a prompt was never met', () => {
    const known = '公司计提存货跌价准备的会计分录怎么写'
    const confidences = [0, 5, 20, 60].map((words) => say(known + ' ᎣᏏᏲ'.repeat(words)).scores.finance)
    expect(confidences).toEqual(confidences.toSorted((a, b) => b - a))
    expect(new Set(confidences).size).toBe(confidences.length)
  })

  test('may come from the system prompt or an earlier turn where the last turn says nothing', () => {
    expect(say('那怎么办', '你是医院的导诊助手，根据患者症状推荐挂号科室').domain).toBe('healthcare')
    expect(classifier.classify({ system: null, turns: ['房东不退押金能起诉吗，合同还没到期', '好的'] }).domain).toBe('legal')
  })
})

describe('the budget of characters', () => {
  const filler = (character: string): string => character.repeat(1_000_000)

  test('a turn of a megabyte is read at its beginning and its end only', () => {
    const head = '银行贷款利率'.repeat(100).slice(0, LAST_TURN_HEAD)
    const tail = '基金定投收益'.repeat(100).slice(0, LAST_TURN_TAIL)
    expect(say(head + filler('医') + tail)).toEqual(say(head + filler('法') + tail))
    expect(say(`${head.slice(1)}医${tail}`)).not.toEqual(say(`${head.slice(1)}法${tail}`))
  })

  test('system prompt and earlier turns are read at their beginning', () => {
    const system = '法律顾问'.repeat(100).slice(0, SYSTEM_HEAD)
    expect(say('你好', system + filler('医'))).toEqual(say('你好', system))
    const earlier = '挂号看病'.repeat(100).slice(0, EARLIER_TURN_HEAD)
    const last = Array.from({ length: EARLIER_TURNS }, () => '你好')
    const classify = (first: string) => classifier.classify({ system: null, turns: [first, ...last.slice(1), '好的'] })
    expect(classify(earlier + filler('税'))).toEqual(classify(earlier))
    expect(classifier.classify({ system: null, turns: [filler('税'), ...last, '好的'] })).toEqual(
      classifier.classify({ system: null, turns: [...last, '好的'] }),
    )
  })

  test('the most features that the budget can give fit', () => {
    const scanner = createFeatureScanner()
    for (const text of [filler('医'), filler('a'), 'a '.repeat(500_000), 'abcde '.repeat(200_000), '1医a'.repeat(300_000)]) {
      scanner.scan({ system: text, turns: [text, text, text] })
      const last = scanner.spans.at(-1)?.end ?? 0
      expect(last).toBeLessThanOrEqual(scanner.hashes.length)
      expect(last).toBeGreaterThan(0)
    }
  })
})

describe('the weights file', () => {
  test('is of the form that its layout says, and at most 3 MiB', () => {
    const weights = parseWeights(file, VERTICALS.length)
    expect(file.length).toBeLessThanOrEqual(MAX_WEIGHTS_BYTES)
    expect(weights.marks.length).toBe(2 ** weights.slot_bits)
    expect(weights.weights.length).toBe(weights.marks.length * VERTICALS.length)
    expect(weights.step).toBeGreaterThan(0)
    expect(weights.marks.filter((mark) => mark !== 0).length).toBeGreaterThan(10_000)
    expect([...VERTICALS, 'general'].toSorted()).toEqual([...DOMAINS].toSorted())
  })

  test('comes out the same when it is written again', () => {
    expect(Buffer.from(formatWeights(parseWeights(file, VERTICALS.length))).equals(file)).toBe(true)
  })

  test('is read at the slot of a feature and at its neighbour, by the mark of the feature', () => {
    const scanner = createFeatureScanner()
    scanner.scan({ system: null, turns: ['税'] })
    const hash = scanner.hashes[0] ?? 0
    const confidenceOf = (slot: number, mark: number): number => {
      const marks = new Uint16Array(16)
      const weights = new Int8Array(marks.length * VERTICALS.length)
      marks[slot] = mark
      weights[slot * VERTICALS.length] = 100
      const bytes = formatWeights({ slot_bits: 4, step: 0.1, bias: new Float64Array(VERTICALS.length), marks, weights })
      return createDomainClassifier(bytes).classify({ system: null, turns: ['税'] }).scores.finance
    }
    const slot = slotOf(hash, 4)
    expect(confidenceOf(slot, markOf(hash))).toBeGreaterThan(0.99)
    expect(confidenceOf(neighbourOf(slot), markOf(hash))).toBeGreaterThan(0.99)
    expect(confidenceOf((slot + 2) % 16, markOf(hash))).toBeCloseTo(1 / 9, 12)
    expect(confidenceOf(slot, markOf(hash) ^ 2)).toBeCloseTo(1 / 9, 12)
  })

  const changed = (at: number, value: number): Uint8Array => Uint8Array.from(file, (byte, index) => (index === at ? value : byte))
  test.each([
    ['is empty', new Uint8Array(), /not a weights file/],
    ['begins otherwise', changed(0, 0), /not a weights file/],
    ['has another layout', changed(7, 9), /layout version 9, expected 2/],
    ['was trained on other features', changed(8, 200), /features version/],
    ['is for other domains', changed(11, 4), /4 vertical domains, expected 8/],
    ['was cut short', file.subarray(0, file.length - 1), /bytes, expected/],
    ['has absurd slots', changed(10, 200), /200 slot bits/],
  ])('that %s is refused', (_name, bytes, message) => {
    expect(() => createDomainClassifier(bytes)).toThrow(message)
  })
})

describe('the project’s own training text', () => {
  const own = readOwn()
  const wordsOf = (turns: readonly string[]): string =>
    turns
      .join('\n')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}]/gu, '')

  test('has at least 350 lines for every domain, without duplicates', () => {
    for (const domain of DOMAINS) expect(own.filter((text) => text.domain === domain).length).toBeGreaterThanOrEqual(350)
    const keys = own.map(({ input }) => JSON.stringify([input.system, wordsOf(input.turns) || input.turns]))
    expect(keys.filter((key, at) => keys.indexOf(key) !== at)).toEqual([])
  })

  test('has terms and templates that make phrases without gaps, the same each time', () => {
    for (const domain of DOMAINS) {
      for (const language of ['zh', 'en'] as const) {
        const terms = readTerms(domain, language)
        expect(new Set(terms).size).toBe(terms.length)
      }
    }
    for (const language of ['zh', 'en'] as const) for (const line of readTemplates(language)) expect(line).toContain('{a}')
    const phrases = composePhrases(7)
    expect(phrases.filter(({ input }) => /\{[a-e]\}/.test(input.turns.join('')))).toEqual([])
    expect(composePhrases(7)).toEqual(phrases)
  })

  test.each([
    ['an unknown domain', '{"text":"a","domain":"sport"}', /x:1: domain must be one of/],
    ['no text', '{"domain":"legal"}', /x:1: expected a text, or turns/],
    ['turns that are no texts', '{"turns":[1],"domain":"legal"}', /x:1: expected a text, or turns/],
    ['a system prompt that is no text', '{"turns":["a"],"system":1,"domain":"legal"}', /x:1: system must be a text/],
  ])('with %s is refused', (_name, line, message) => {
    expect(() => parseLine(line, 'x:1')).toThrow(message)
  })

  const evaluation = sharedData('routing/evaluate.jsonl')
  test.skipIf(evaluation === null)('shares no line with the evaluation set', () => {
    expect(existsSync(evaluation ?? '')).toBe(true)
    const lines = readFileSync(evaluation ?? '', 'utf8').split('\n')
    const evaluated = new Set(lines.flatMap((line, at) => (line === '' ? [] : [wordsOf(parseLine(line, String(at)).input.turns)])))
    expect(evaluated.size).toBeGreaterThan(1000)
    expect(own.filter(({ input }) => evaluated.has(wordsOf(input.turns))).map(({ input }) => input.turns)).toEqual([])
  })
})
