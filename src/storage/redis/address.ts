/** Where one Redis server is, and how to be let in. */
export interface RedisAddress {
  readonly host: string
  readonly port: number
  readonly username?: string
  readonly password?: string
  readonly db: number
  readonly tls: boolean
}

const DEFAULT_PORT = 6379
const MAX_ADDRESSES = 100

/**
 * Reads `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS; several, with commas between them, are nodes of one cluster.
 * User and password may be given with the first alone.
 *
 * @throws RangeError, naming no password
 */
export function parseAddresses(urls: string): readonly [RedisAddress, ...RedisAddress[]] {
  const texts = urls.split(',').map((text) => text.trim())
  if (texts.length > MAX_ADDRESSES) throw new RangeError(`more than ${MAX_ADDRESSES} addresses of Redis`)
  const [first, ...others] = texts.map(parseAddress)
  if (first === undefined) throw new RangeError('no address of Redis')
  const { username, password } = first
  const same = { ...(username === undefined ? {} : { username }), ...(password === undefined ? {} : { password }) }
  return [first, ...others.map((address) => ({ ...same, ...address }))]
}

function parseAddress(text: string, index: number): RedisAddress {
  const wrong = (what: string): RangeError => new RangeError(`address ${index + 1} of Redis ${what}: write redis://host:6379`)
  if (!URL.canParse(text)) throw wrong('is not a URL')
  const { protocol, hostname, port, username, password, pathname } = new URL(text)
  if (protocol !== 'redis:' && protocol !== 'rediss:') throw wrong('begins with neither redis:// nor rediss://')
  if (hostname === '') throw wrong('names no host')
  const [, db = '0'] = /^\/?(\d{0,5})$/.exec(pathname) ?? ['', 'x']
  if (db === 'x') throw wrong('has a path that is no database number')
  return {
    host: hostname.replace(/^\[(.+)\]$/, '$1'),
    port: port === '' ? DEFAULT_PORT : Number(port),
    db: Number(db),
    tls: protocol === 'rediss:',
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  }
}
