import { createHmac } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { credentialsOf } from '../../src/upstream/providers/credentials.ts'
import type { AuthScheme } from '../../src/upstream/providers/provider.ts'

const NOW = 1_795_000_000_000
const BODY = Buffer.from('{"Model":"hunyuan","Messages":[{"Role":"user","Content":"你好"}]}')
const REQUEST = { host: 'api.example.cn', path: '/v1', body: BODY, now_ms: NOW }

const headers = async (scheme: AuthScheme, key: string | null, now_ms = NOW): Promise<Readonly<Record<string, string>>> =>
  credentialsOf(scheme, key, { ...REQUEST, now_ms })

/** The three parts of a token, after its signature was checked. */
function readToken(authorization: string | undefined, secret: string): { header: unknown; claims: Record<string, number | string> } {
  const [header = '', claims = '', signature = ''] = (authorization ?? '').replace('Bearer ', '').split('.')
  expect(createHmac('sha256', secret).update(`${header}.${claims}`).digest('base64url')).toBe(signature)
  const parse = (part: string): unknown => JSON.parse(Buffer.from(part, 'base64url').toString())
  return { header: parse(header), claims: parse(claims) as Record<string, number | string> }
}

describe('keys that are sent as they are', () => {
  it.each<readonly [AuthScheme, string | null, object]>([
    ['bearer', 'sk-1', { authorization: 'Bearer sk-1' }],
    ['optional_bearer', 'sk-1', { authorization: 'Bearer sk-1' }],
    ['optional_bearer', null, {}],
    ['x_api_key', 'sk-1', { 'x-api-key': 'sk-1' }],
    ['none', null, {}],
    ['jwt_zhipu', 'plain-key', { authorization: 'Bearer plain-key' }],
    ['jwt_iss', 'sk-plain', { authorization: 'Bearer sk-plain' }],
  ])('%s %s', async (scheme, key, expected) => {
    expect(await headers(scheme, key)).toEqual(expected)
  })
})

describe('tokens signed from id.secret', () => {
  it("are Zhipu's: milliseconds, and a header of its own; the secret is not in them", async () => {
    const { authorization } = await headers('jwt_zhipu', 'key-id.key-secret')
    expect(authorization).not.toContain('key-secret')
    expect(readToken(authorization, 'key-secret')).toEqual({
      header: { alg: 'HS256', sign_type: 'SIGN' },
      claims: { api_key: 'key-id', timestamp: NOW, exp: NOW + 30 * 60_000 },
    })
  })

  it("are SenseNova's: seconds, by the registered names", async () => {
    const { authorization } = await headers('jwt_iss', 'ak-id.sk-secret')
    expect(readToken(authorization, 'sk-secret')).toEqual({
      header: { alg: 'HS256', typ: 'JWT' },
      claims: { iss: 'ak-id', exp: NOW / 1000 + 30 * 60, nbf: NOW / 1000 - 5 },
    })
  })

  it('are kept per key until shortly before they end', async () => {
    const at = async (minutes: number, key = 'cached-id.cached-secret'): Promise<string | undefined> =>
      (await headers('jwt_zhipu', key, NOW + minutes * 60_000))['authorization']
    const first = await at(0)
    expect(await at(24)).toBe(first)
    expect(credentialsOf('jwt_zhipu', 'cached-id.cached-secret', { ...REQUEST, now_ms: NOW + 60_000 })).not.toBeInstanceOf(Promise)
    const second = await at(26)
    expect(second).not.toBe(first)
    expect(await at(27)).toBe(second)
    expect(await at(0, 'other-id.other-secret')).not.toBe(first)
  })
})

describe('signatures of requests, the same as the vendors’ own tools make', () => {
  it('of Tencent Cloud, with the body, by a new one each time', async () => {
    const sign = (body: Buffer): unknown =>
      credentialsOf('tc3', 'test-id.test-secret', { ...REQUEST, host: 'hunyuan.tencentcloudapi.com', path: '/', body })
    expect(sign(BODY)).toEqual({
      authorization:
        'TC3-HMAC-SHA256 Credential=test-id/2026-11-18/hunyuan/tc3_request, SignedHeaders=content-type;host, Signature=735dfc7a67432f8b5d2741962a3d72546571e79f940e5f8ce85c2df3f2fd2ddb',
      'x-tc-timestamp': '1795000000',
    })
    expect(sign(Buffer.from('{}'))).not.toEqual(sign(BODY))
  })

  it('of Baidu Cloud, for a path and half an hour', () => {
    const path = '/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-3.5-8k'
    const sign = (now_ms: number): unknown =>
      credentialsOf('bce', 'test-id:test-secret', { ...REQUEST, host: 'aip.baidubce.com', path, now_ms })
    const first = {
      authorization: 'bce-auth-v1/test-id/2026-11-18T11:06:40Z/1800/host/7752b34c8141c3d0cbb23f9fabf91193adecd092bfdf9a051fd5028da2119aaa',
    }
    expect(sign(NOW)).toEqual(first)
    expect(sign(NOW + 60_000)).toEqual(first)
    expect(sign(NOW + 26 * 60_000)).not.toEqual(first)
  })
})
