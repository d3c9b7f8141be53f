import { createHash, createHmac } from 'node:crypto'
import { SignJWT } from 'jose'
import type { AuthScheme } from './provider.ts'

/** What of a request its credentials depend on. */
export interface SignedRequest {
  readonly host: string
  readonly path: string
  readonly body: Buffer
  /** Wall clock, ms since the epoch. */
  readonly now_ms: number
}

type HeaderFields = Readonly<Record<string, string>>

const NONE: HeaderFields = {}

/** A signed token lives this long, and is made anew while it has this much left. */
const TOKEN_LIFE_MS = 30 * 60_000
const TOKEN_MARGIN_MS = 5 * 60_000
/** Most keys whose tokens are remembered; the oldest goes first. */
const MAX_TOKENS = 10_000

interface Token {
  readonly text: string
  readonly expires_ms: number
}

/** Tokens by scheme, key and what they are bound to. Held in memory alone. */
const TOKENS = new Map<string, Token>()

/** The headers that prove who is asking. A promise only where a token has to be signed. */
export function credentialsOf(scheme: AuthScheme, api_key: string | null, request: SignedRequest): HeaderFields | Promise<HeaderFields> {
  if (api_key === null || scheme === 'none') return NONE
  switch (scheme) {
    case 'bearer':
    case 'optional_bearer':
      return { authorization: `Bearer ${api_key}` }
    case 'x_api_key':
      return { 'x-api-key': api_key }
    case 'jwt_zhipu':
    case 'jwt_iss':
      return tokenHeaders(scheme, api_key, request.now_ms)
    case 'tc3':
      return tencentHeaders(pairOf(api_key), request)
    case 'bce':
      return baiduHeaders(api_key, request)
  }
}

interface KeyPair {
  readonly id: string
  readonly secret: string
}

/** `id.secret` or `id:secret`; a key of another form signs as itself, and is refused by the provider. */
function pairOf(api_key: string): KeyPair {
  const [, id = api_key, secret = ''] = /^([^.:]+)[.:](.+)$/.exec(api_key) ?? []
  return { id, secret }
}

function tokenHeaders(scheme: 'jwt_zhipu' | 'jwt_iss', api_key: string, now_ms: number): HeaderFields | Promise<HeaderFields> {
  const pair = pairOf(api_key)
  if (pair.secret === '') return { authorization: `Bearer ${api_key}` }
  const known = TOKENS.get(`${scheme} ${api_key}`)
  if (known !== undefined && known.expires_ms - now_ms > TOKEN_MARGIN_MS && known.expires_ms - now_ms <= TOKEN_LIFE_MS) {
    return { authorization: `Bearer ${known.text}` }
  }
  return signToken(scheme, api_key, pair, now_ms)
}

async function signToken(scheme: 'jwt_zhipu' | 'jwt_iss', api_key: string, pair: KeyPair, now_ms: number): Promise<HeaderFields> {
  const expires_ms = now_ms + TOKEN_LIFE_MS
  const [header, claims] =
    scheme === 'jwt_zhipu'
      ? // Its times are milliseconds, and its header has a member of its own.
        [
          { alg: 'HS256', sign_type: 'SIGN' },
          { api_key: pair.id, exp: expires_ms, timestamp: now_ms },
        ]
      : // A clock that is a little behind must not make the token one of the future.
        [
          { alg: 'HS256', typ: 'JWT' },
          { iss: pair.id, exp: Math.floor(expires_ms / 1000), nbf: Math.floor(now_ms / 1000) - 5 },
        ]
  const text = await new SignJWT(claims).setProtectedHeader(header).sign(Buffer.from(pair.secret))
  remember(`${scheme} ${api_key}`, { text, expires_ms })
  return { authorization: `Bearer ${text}` }
}

function remember(name: string, token: Token): void {
  TOKENS.delete(name)
  TOKENS.set(name, token)
  const oldest = TOKENS.size > MAX_TOKENS ? TOKENS.keys().next() : null
  if (oldest !== null && oldest.done !== true) TOKENS.delete(oldest.value)
}

const sha256 = (data: string | Buffer): string => createHash('sha256').update(data).digest('hex')
const hmac = (key: string | Buffer, data: string): Buffer => createHmac('sha256', key).update(data).digest()

/** TC3-HMAC-SHA256 of Tencent Cloud, https://cloud.tencent.com/document/api/1729/101842: every request is signed with its body. */
function tencentHeaders({ id, secret }: KeyPair, { host, body, now_ms }: SignedRequest): HeaderFields {
  const timestamp = String(Math.floor(now_ms / 1000))
  const date = new Date(now_ms).toISOString().slice(0, 10)
  const [service = ''] = host.split('.')
  const canonical = ['POST', '/', '', `content-type:application/json\nhost:${host}\n`, 'content-type;host', sha256(body)].join('\n')
  const scope = `${date}/${service}/tc3_request`
  const to_sign = ['TC3-HMAC-SHA256', timestamp, scope, sha256(canonical)].join('\n')
  const key = hmac(hmac(hmac(`TC3${secret}`, date), service), 'tc3_request')
  const signature = hmac(key, to_sign).toString('hex')
  return {
    authorization: `TC3-HMAC-SHA256 Credential=${id}/${scope}, SignedHeaders=content-type;host, Signature=${signature}`,
    'x-tc-timestamp': timestamp,
  }
}

/** bce-auth-v1 of Baidu Cloud, https://cloud.baidu.com/doc/Reference/s/Njwvz1wot: method, path and host are signed for a span of time. */
function baiduHeaders(api_key: string, { host, path, now_ms }: SignedRequest): HeaderFields {
  const name = `bce ${host}${path} ${api_key}`
  const known = TOKENS.get(name)
  if (known !== undefined && known.expires_ms - now_ms > TOKEN_MARGIN_MS && known.expires_ms - now_ms <= TOKEN_LIFE_MS) {
    return { authorization: known.text }
  }
  const { id, secret } = pairOf(api_key)
  const at = new Date(now_ms).toISOString().replace(/\.\d+Z$/, 'Z')
  const prefix = `bce-auth-v1/${id}/${at}/${TOKEN_LIFE_MS / 1000}`
  const signing_key = hmac(secret, prefix).toString('hex')
  const canonical = ['POST', path, '', `host:${encodeURIComponent(host)}`].join('\n')
  const text = `${prefix}/host/${hmac(signing_key, canonical).toString('hex')}`
  remember(name, { text, expires_ms: now_ms + TOKEN_LIFE_MS })
  return { authorization: text }
}
