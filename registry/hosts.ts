/** Facts about hosts: where a registry's API is, which addresses are this machine, which hop may follow which. */

/** Docker Hub is the one registry whose API is not at the host of its name. */
export function apiHost(registry: string): string {
  return registry === 'docker.io' || registry === 'index.docker.io' ? 'registry-1.docker.io' : registry
}

/** Whether a URL's hostname (`[::1]` in brackets, as the URL class gives it) is this machine's loopback. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}

/** Whether a registry at `from` may send us to `to`: never from https to http, and plain http only where it was allowed. */
export function mayFollow(from: URL, to: URL, insecure: boolean): boolean {
  if (to.protocol === 'https:') return true
  if (to.protocol !== 'http:' || from.protocol === 'https:') return false
  return insecure || to.origin === from.origin || isLoopback(to.hostname)
}

/** The proxy for a URL by HTTPS_PROXY, HTTP_PROXY and NO_PROXY (lower case wins), as curl and Go read them. */
export function proxyFor(url: URL, env: Readonly<Record<string, string | undefined>>): string | undefined {
  if (isLoopback(url.hostname)) return undefined
  const name = url.protocol === 'https:' ? 'https_proxy' : 'http_proxy'
  const proxy = env[name] || env[name.toUpperCase()]
  if (!proxy || bypassed(url, env['no_proxy'] || env['NO_PROXY'] || '')) return undefined
  return proxy.includes('://') ? proxy : `http://${proxy}`
}

function bypassed(url: URL, list: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  return list.split(/[\s,]+/).some((entry) => {
    if (entry === '') return false
    if (entry === '*') return true
    if (entry.includes('/')) return inNetwork(host, entry)
    const match = /^(\[[^\]]*\]|[^:]*|[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*)(?::(\d+))?$/.exec(entry)
    if (match === null || (match[2] !== undefined && match[2] !== port)) return false
    const name = (match[1] ?? '').replace(/^\[|\]$|^\*?\./g, '').toLowerCase()
    return name !== '' && (host === name || host.endsWith(`.${name}`))
  })
}

/** IPv4 only: `10.0.0.0/8`. Networks of IPv6 in NO_PROXY are rare and are left to the plain comparison. */
function inNetwork(host: string, entry: string): boolean {
  const [base, bits] = entry.split('/')
  const address = ipv4(host)
  const network = ipv4(base ?? '')
  const length = Number(bits)
  if (address === undefined || network === undefined || !(length >= 0 && length <= 32)) return false
  const size = 2 ** (32 - length)
  return Math.floor(address / size) === Math.floor(network / size)
}

function ipv4(text: string): number | undefined {
  const parts = text.split('.')
  if (parts.length !== 4 || parts.some((part) => !/^\d{1,3}$/.test(part) || Number(part) > 255))
    return undefined
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0)
}
