/** Proxies as the environment names them; already read by the configuration. */
export interface ProxySettings {
  readonly https: string | null
  readonly http: string | null
  /** Comma or space separated: `*`, `host`, `.host`, `*.host`, each with an optional `:port`. */
  readonly no_proxy: string | null
}

/**
 * The proxy for an origin by HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or null for none.
 * A name in NO_PROXY covers its subdomains (`*.name` only these). Loopback never goes through a proxy, as in Go's net/http and in curl's
 * usual set-up: the sandbox and a model on the same machine must work behind one. Address ranges are not understood.
 */
export function proxyFor(origin: string, settings: ProxySettings): string | null {
  const url = new URL(origin)
  const proxy = url.protocol === 'https:' ? settings.https : settings.http
  if (proxy === null || proxy === '') return null
  const host = bareHost(url.hostname)
  if (host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127(\.\d+){3}$/.test(host)) return null
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port
  const exempt = (settings.no_proxy ?? '').split(/[\s,]+/).some((entry) => entry !== '' && covers(entry, host, port))
  return exempt ? null : proxy
}

function covers(entry: string, host: string, port: string): boolean {
  // A bare IPv6 address has several colons; only brackets can give it a port.
  const match = /^\[(?<v6>.+)\](?::(?<v6port>\d+))?$/.exec(entry) ?? /^(?<name>[^:]+):(?<port>\d+)$/.exec(entry)
  const wanted_port = match?.groups?.['v6port'] ?? match?.groups?.['port']
  if (wanted_port !== undefined && wanted_port !== port) return false
  const pattern = (match?.groups?.['v6'] ?? match?.groups?.['name'] ?? entry).toLowerCase().replace(/\.$/, '')
  if (pattern === '*') return true
  const name = pattern.replace(/^\*?\./, '')
  if (host.endsWith(`.${name}`)) return true
  return host === name && !pattern.startsWith('*')
}

function bareHost(hostname: string): string {
  return hostname
    .replace(/^\[(.+)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase()
}
