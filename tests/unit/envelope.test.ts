import { createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { masterKeyFrom, type MasterKeys, openSecret, rewrapSecret, SealBroken, sealSecret } from '../../src/base/envelope.ts'

const keyOf = (name: string): MasterKeys['current'] => masterKeyFrom(createHash('sha256').update(name).digest('hex'))
const only = (name: string): MasterKeys => ({ current: keyOf(name), all: [keyOf(name)] })
const BOUND = ['provider key', 'deepseek', 'main']
const SECRET = 'sk-of-a-provider-密'

describe('a master key', () => {
  it('is 32 bytes in hex or base64, whichever way it is written', () => {
    const bytes = randomBytes(32)
    const written = [bytes.toString('hex'), `${bytes.toString('base64')}\n`, bytes.toString('base64url')]
    for (const text of written) expect(masterKeyFrom(text).bytes).toEqual(bytes)
    expect(new Set(written.map((text) => masterKeyFrom(text).id)).size).toBe(1)
  })

  it.each(['', 'short', 'zz'.repeat(32), randomBytes(31).toString('hex'), randomBytes(33).toString('base64'), `${'a'.repeat(43)}!`])(
    'is nothing else: %j',
    (text) => {
      expect(() => masterKeyFrom(text)).toThrow(/is not a master key/)
    },
  )
})

describe('a sealed secret', () => {
  const sealed = sealSecret(SECRET, BOUND, keyOf('one'), randomBytes)

  it('opens again, and shows nothing of itself', () => {
    expect(openSecret(sealed, BOUND, only('one'))).toBe(SECRET)
    expect(sealed).not.toContain(SECRET)
    expect(Buffer.from(sealed, 'base64url').includes(Buffer.from(SECRET))).toBe(false)
    expect(sealSecret(SECRET, BOUND, keyOf('one'), randomBytes)).not.toBe(sealed)
  })

  it('opens for nothing but what it is bound to', () => {
    for (const other of [['provider key', 'deepseek', 'other'], ['provider key', 'qwen', 'main'], [], [...BOUND, '']])
      expect(() => openSecret(sealed, other, only('one'))).toThrow(SealBroken)
  })

  it('does not open under another master key, and names the one that is missing', () => {
    expect(() => openSecret(sealed, BOUND, only('two'))).toThrow(`master key ${keyOf('one').id}`)
    const lying = sealed.replace(keyOf('one').id, keyOf('two').id)
    expect(() => openSecret(lying, BOUND, only('two'))).toThrow(SealBroken)
  })

  it('does not open when any of it was changed or cut', () => {
    for (let at = 0; at < sealed.length; at += 1) {
      const flipped = sealed[at] === 'A' ? 'B' : 'A'
      const changed = sealed.slice(0, at) + flipped + sealed.slice(at + 1)
      // The last character of base64 may have bits that mean nothing.
      if (Buffer.from(changed, 'base64url').equals(Buffer.from(sealed, 'base64url')) || isSameBytes(changed, sealed)) continue
      expect(() => openSecret(changed, BOUND, only('one'))).toThrow(SealBroken)
      expect(() => openSecret(sealed.slice(0, at), BOUND, only('one'))).toThrow(SealBroken)
    }
  })

  it('is wrapped anew without being opened to anybody, and once', () => {
    const masters: MasterKeys = { current: keyOf('two'), all: [keyOf('two'), keyOf('one')] }
    const rewrapped = rewrapSecret(sealed, BOUND, masters, randomBytes) ?? ''
    expect(openSecret(rewrapped, BOUND, only('two'))).toBe(SECRET)
    expect(() => openSecret(rewrapped, BOUND, only('one'))).toThrow(SealBroken)
    expect(rewrapped.split('.')[3]).toBe(sealed.split('.')[3])
    expect(rewrapSecret(rewrapped, BOUND, masters, randomBytes)).toBeNull()
    expect(() => rewrapSecret(sealed, BOUND, only('two'), randomBytes)).toThrow(SealBroken)
  })
})

function isSameBytes(a: string, b: string): boolean {
  const parts = (text: string): string =>
    text
      .split('.')
      .map((part) => Buffer.from(part, 'base64url').toString('hex'))
      .join('.')
  return a.split('.')[0] === b.split('.')[0] && a.split('.')[1] === b.split('.')[1] && parts(a) === parts(b)
}
