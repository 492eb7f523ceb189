/** `EXPOSE`: `[address:][host port:]port[-port][/protocol]`, of which only port and protocol count. */

export interface PortSpec {
  /** The range; both the same for a single port. `portsOf` lists it. */
  readonly first: number
  readonly last: number
  /** As written; `tcp` if it was not. */
  readonly protocol: string
  /** An address or a host's port was given, which means nothing in an image. */
  readonly mapped: boolean
}

/** One expanded word of EXPOSE; or what is wrong with it. */
export function parsePortSpec(text: string): PortSpec | string {
  const parts = text.split(':')
  const container = parts.at(-1)!
  const host = parts.length > 1 ? parts.at(-2)! : ''
  const address = parts.slice(0, -2).join(':')
  const slash = container.indexOf('/')
  const numbers = slash < 0 ? container : container.slice(0, slash)
  const protocol = (slash < 0 ? '' : container.slice(slash + 1)) || 'tcp'
  if (numbers === '') return 'there is no port'
  if (!['tcp', 'udp', 'sctp'].includes(protocol.toLowerCase())) return `unknown protocol '${protocol}'`
  if (address !== '' && !isAddress(address)) return `'${address}' is not an IP address`
  const range = parseRange(numbers)
  if (typeof range === 'string') return range
  if (host !== '') {
    const hostRange = parseRange(host)
    if (typeof hostRange === 'string') return `host port: ${hostRange}`
    const [first, last] = range
    if (last - first !== hostRange[1] - hostRange[0] && last !== first)
      return `the ranges ${numbers} and ${host} differ in length`
  }
  const [first, last] = range
  return { first, last, protocol, mapped: address !== '' || host !== '' }
}

/** As the image's config has them: `80/tcp`. Up to 65,536. */
export function portsOf({ first, last, protocol }: PortSpec): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol.toLowerCase()}`)
}

function parseRange(text: string): readonly [number, number] | string {
  const dash = text.indexOf('-')
  const first = parsePort(dash < 0 ? text : text.slice(0, dash))
  const last = dash < 0 ? first : parsePort(text.slice(dash + 1))
  if (first === undefined || last === undefined) return `'${text}' is not a port (0 to 65535)`
  return last < first ? `the range ${text} is backwards` : [first, last]
}

function parsePort(text: string): number | undefined {
  const value = /^\+?\d{1,18}$/.test(text) ? Number(text) : Number.NaN
  return value <= 65535 ? value : undefined
}

/** Go `net.ParseIP`, IPv6 in brackets or not. */
function isAddress(text: string): boolean {
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text
  if (bare.includes(':')) return isIpv6(bare)
  return isIpv4(bare)
}

function isIpv4(text: string): boolean {
  const numbers = text.split('.')
  return numbers.length === 4 && numbers.every((one) => /^(0|[1-9]\d{0,2})$/.test(one) && Number(one) <= 255)
}

function isIpv6(text: string): boolean {
  const halves = text.split('::')
  if (halves.length > 2) return false
  let groups = 0
  for (const [i, half] of halves.entries()) {
    const list = half === '' ? [] : half.split(':')
    for (const [j, group] of list.entries()) {
      const last = i === halves.length - 1 && j === list.length - 1
      if (last && group.includes('.')) {
        if (!isIpv4(group)) return false
        groups++
      } else if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return false
      groups++
    }
    if (half === '' && halves.length === 1) return false
  }
  return halves.length === 2 ? groups < 8 : groups === 8
}
