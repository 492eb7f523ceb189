/**
 * Names are bytes, not text. Inside this folder they are *byte strings*: one character (0 to 255) for each byte, as
 * 'latin1' decodes. They join, compare and serve as map keys like any string, and their order is the order of the bytes.
 */

/** A byte string in the form a system call takes: itself when ASCII, so that the usual name costs no copy. */
export function pathOf(name: string): string | Buffer {
  return isAscii(name) ? name : Buffer.from(name, 'latin1')
}

export function isAscii(name: string): boolean {
  for (let i = 0; i < name.length; i++) if (name.charCodeAt(i) > 127) return false
  return true
}

/** `name` in the directory that `fd` is open on, for calls that take no descriptor. The last component is not resolved by it. */
export function inDirectory(fd: number, name: string): string | Buffer {
  return pathOf(`/proc/self/fd/${fd}/${name}`)
}

/** Drop leading and trailing `/`, empty and `.` components. `..` stays. */
export function cleanPath(name: string): string {
  if (isClean(name)) return name
  return name
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')
}

/** True for most names that are clean already; false costs only time. */
function isClean(name: string): boolean {
  const first = name.charCodeAt(0)
  if (first === 47 || first === 46 || name.endsWith('/')) return false
  return !name.includes('//') && !name.includes('/.')
}

/** The longest component's length. */
export function longestComponent(path: string): number {
  let longest = 0
  for (let start = 0; start <= path.length;) {
    const slash = path.indexOf('/', start)
    const end = slash < 0 ? path.length : slash
    if (end - start > longest) longest = end - start
    start = end + 1
  }
  return longest
}
