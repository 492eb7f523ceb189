/** PAX extended headers (pax(1), POSIX.1-2024): records of the form "LENGTH KEY=VALUE\n". */

/**
 * Keys as text, values as byte strings; the last of equal keys counts. The keys of GNU's sparse format 0.0, which repeat, are
 * gathered into one `GNU.sparse.map` as in format 0.1.
 * @returns `undefined` when a record is malformed
 */
export function parsePax(data: Buffer): Map<string, string> | undefined {
  const records = new Map<string, string>()
  const sparse: string[] = []
  for (let at = 0; at < data.length;) {
    let length = 0
    let i = at
    for (; i < data.length; i++) {
      const digit = (data[i] ?? 0) - 48
      if (digit < 0 || digit > 9 || i - at > 8) break
      length = length * 10 + digit
    }
    const end = at + length
    if (i === at || data[i] !== 32 || length < 5 || end > data.length || data[end - 1] !== 10)
      return undefined
    const equals = data.indexOf(61, i + 1)
    if (equals <= i + 1 || equals >= end) return undefined
    const key = data.toString('utf8', i + 1, equals)
    const value = data.toString('latin1', equals + 1, end - 1)
    if (!isValid(key, value)) return undefined
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      const expected = sparse.length % 2 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes'
      if (key !== expected || value.includes(',')) return undefined
      sparse.push(value)
    } else {
      records.set(key, value)
    }
    at = end
  }
  if (sparse.length > 0) records.set('GNU.sparse.map', sparse.join(','))
  return records
}

function isValid(key: string, value: string): boolean {
  switch (key) {
    case 'path':
    case 'linkpath':
    case 'uname':
    case 'gname':
    case 'GNU.sparse.name':
      return !value.includes('\0')
    default:
      return !key.includes('\0')
  }
}

/** One record; `value` is a byte string, `key` too. The length counts its own digits. */
export function formatPaxRecord(key: string, value: string): string {
  const rest = key.length + value.length + 3
  let length = rest + String(rest).length
  if (String(length).length > String(rest).length) length++
  return `${length} ${key}=${value}\n`
}

const SCHILY = 'SCHILY.xattr.'
const LIBARCHIVE = 'LIBARCHIVE.xattr.'

/**
 * Extended attributes among the records. star, GNU tar and Go write the raw value; libarchive writes it twice, once raw and once as
 * base64 under a percent-encoded name. GNU tar spells `%` and `=` in a name as `%25` and `%3D`.
 */
export function paxXattrs(records: ReadonlyMap<string, string>): Map<string, Buffer> | undefined {
  let xattrs: Map<string, Buffer> | undefined
  for (const [key, value] of records) {
    if (key.startsWith(SCHILY)) {
      const name = key.slice(SCHILY.length).replaceAll('%3D', '=').replaceAll('%25', '%')
      ;(xattrs ??= new Map()).set(name, Buffer.from(value, 'latin1'))
    } else if (key.startsWith(LIBARCHIVE)) {
      const name = percentDecode(key.slice(LIBARCHIVE.length))
      xattrs ??= new Map()
      if (!xattrs.has(name)) xattrs.set(name, Buffer.from(value, 'base64'))
    }
  }
  return xattrs
}

export function paxXattrKey(name: string): string {
  return SCHILY + name.replaceAll('%', '%25').replaceAll('=', '%3D')
}

function percentDecode(name: string): string {
  if (!name.includes('%')) return name
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}
