import { describe, expect, it, test } from 'vitest'
import { LimitsUnavailable } from '../../src/storage/cluster-ports.ts'
import { parseAddresses } from '../../src/storage/redis/address.ts'
import { failureOf, UnknownVersion } from '../../src/storage/redis/failures.ts'
import { counterName, counterNames, countersText, Keys, slotOf } from '../../src/storage/redis/keys.ts'
import { openRedis } from '../../src/storage/redis/link.ts'
import { loadScripts } from '../../src/storage/redis/scripts.ts'
import type { LimitRule } from '../../src/storage/ports.ts'

const RULE: LimitRule = { scope: 'key', scope_id: 'k', model: null, kind: 'budget', limit: 1n, window: null }
const WINDOW = { name: '5h', start_ms: 0, end_ms: 1, next_end_ms: 2 } as const

describe('keys of Redis', () => {
  it('of one bucket share its hash tag, and so a slot', () => {
    const { meta, account, hold, counter } = new Keys('weir').of(17)
    const keys = [meta, account('a{b1}'), hold('h'), counter(counterName(RULE))]
    expect(keys).toEqual(['weir:{b17}:meta', 'weir:{b17}:a:a{b1}', 'weir:{b17}:h:h', 'weir:{b17}:c:B-k:k'])
    expect(new Set(keys.map(slotOf)).size).toBe(1)
    expect(() => new Keys('weir').of(256)).toThrow(RangeError)
  })

  test.each([
    ['123456789', 12_739],
    ['foo', 12_182],
    ['{foo}.bar', 12_182],
    ['{}foo', 9500],
  ])('the slot of %s is %i', (key, slot) => {
    expect(slotOf(key)).toBe(slot)
  })

  it('are told by their bucket, under their prefix alone', () => {
    const keys = new Keys('a.b')
    expect(keys.bucketOfKey(keys.of(200).account('x'))).toBe(200)
    for (const key of ['other:{b1}:meta', 'a.b:{changes}:version', 'a.bc:{b1}:meta', '{b1}:meta']) expect(keys.bucketOfKey(key)).toBeNull()
    expect(() => openRedis({ url: 'redis://127.0.0.1', prefix: 'a{b}', onError: () => undefined })).toThrow(RangeError)
  })

  it('of counters are different wherever limits are', () => {
    const rules: LimitRule[] = [
      RULE,
      { ...RULE, window: WINDOW },
      { ...RULE, kind: 'amount_window', window: WINDOW },
      { ...RULE, scope: 'project' },
      { ...RULE, scope_id: 'k:m' },
      { ...RULE, model: 'm' },
      { ...RULE, scope_id: 'k%3Am' },
      { ...RULE, scope_id: 'k', model: 'm:x' },
      { ...RULE, scope_id: 'k:m', model: 'x' },
    ]
    const names = rules.map(counterName)
    expect(new Set(names).size).toBe(rules.length)
    expect(counterNames(countersText(rules))).toEqual(names)
    expect(countersText(rules).split('\n')[0]).toBe('BBABBBBBB')
    expect([countersText([]), counterNames('')]).toEqual(['', []])
  })
})

describe('addresses of Redis', () => {
  it('have a host, a port, a database, a user and a password', () => {
    expect(parseAddresses('redis://h')).toEqual([{ host: 'h', port: 6379, db: 0, tls: false }])
    expect(parseAddresses('rediss://me:s%40cret@h:7000/3')).toEqual([
      { host: 'h', port: 7000, db: 3, tls: true, username: 'me', password: 's@cret' },
    ])
    expect(parseAddresses('redis://:word@[::1]:7000')).toEqual([{ host: '::1', port: 7000, db: 0, tls: false, password: 'word' }])
  })

  it('several are nodes of one cluster, with the password of the first', () => {
    expect(parseAddresses('redis://:word@a, redis://b:7001')).toEqual([
      { host: 'a', port: 6379, db: 0, tls: false, password: 'word' },
      { host: 'b', port: 7001, db: 0, tls: false, password: 'word' },
    ])
  })

  test.each(['', 'h:6379', 'http://h', 'redis://', 'redis://h/x', 'redis://a,', 'redis://:s3cret@h:99999'])('%s is none', (url) => {
    expect(() => parseAddresses(url)).toThrow(/^address \d of Redis/)
    expect(() => parseAddresses(url)).not.toThrow(/s3cret/)
  })
})

describe('failures of Redis', () => {
  const reply = (message: string): Error => Object.assign(new Error(message), { name: 'ReplyError', command: { args: ['s3cret'] } })

  test.each([
    [reply('OOM command not allowed'), 'full'],
    [reply('LOADING Redis is loading the dataset in memory'), 'away'],
    [reply("READONLY You can't write against a read only replica."), 'away'],
    [reply('CLUSTERDOWN Hash slot not served'), 'away'],
    [reply('MOVED 1 127.0.0.1:1'), 'away'],
    [new Error("Stream isn't writeable and enableOfflineQueue options is false"), 'away'],
    [new Error('Command timed out'), 'unknown'],
    [new Error('Connection is closed.'), 'unknown'],
    [new Error('Reached the max retries per request limit (which is 0).'), 'unknown'],
    [new Error('read ECONNRESET'), 'unknown'],
  ])('%s is %s', (error, kind) => {
    const failure = failureOf(error)
    expect(failure).toMatchObject({ name: 'LimitsUnavailable', kind })
    expect(JSON.stringify(failure, Object.getOwnPropertyNames(failure))).not.toMatch(/s3cret/)
  })

  it('a failure that was told already stays what it is', () => {
    const failure = new LimitsUnavailable('closed', 'closed')
    expect(failureOf(failure)).toBe(failure)
  })

  it('mistakes are no failures of the server', () => {
    expect(failureOf(reply('WEIRVERSION a hold has version 2 script: 0123456789012345678901234567890123456789, on x'))).toBeInstanceOf(
      UnknownVersion,
    )
    expect(failureOf(reply('ERR Error running script'))).not.toHaveProperty('kind')
  })
})

describe('scripts of Redis', () => {
  const scripts = Object.entries(loadScripts())

  test.each(scripts)('%s says what it does, with which keys, and at which cost', (_, { text }) => {
    expect(text).toMatch(/^#!lua( flags=[a-z,-]+)?\n/)
    expect(text).toMatch(/\n-- KEYS {2}\d/)
    expect(text).toMatch(/\n-- Gives /)
    expect(text).toMatch(/O\(.+\)/)
    expect(text).not.toMatch(/\n-- include: .*\n-- include: /)
  })

  it('none but the admission is refused when memory is full', () => {
    expect(scripts.filter(([, { text }]) => text.startsWith('#!lua\n')).map(([name]) => name)).toEqual(['hold'])
  })
})
