/**
 * Extended attributes. They stand behind their inode, each with a number for the well-known start of its name; or, where several inodes have the same set, once
 * in an area of their own, to which the inodes point with 4 bytes for each.
 */
import { LayerTree } from '../layer/tree.ts'
import { layerError } from './errors.ts'
import type { ImageOutput } from './output.ts'

const HEADER = 12
const ENTRY = 4
const POINTER = 4
/** The inode has 16 bits for how many units of 4 bytes follow it. */
const MOST_BODY = HEADER + (0xffff - 1) * 4
const MOST_SHARED = 0xff
const MOST_VALUE = 0xffff
const MOST_NAME = 0xff
const OPAQUE = ['trusted.overlay.opaque', Buffer.from('y')] as const
/**
 * Where the kernel merges a directory with nothing, it shows what is deleted in it, unless it may have been copied up: then it looks at each name. Empty: from
 * nobody knows where (fs/overlayfs/inode.c, ovl_get_inode).
 */
const ORIGIN = ['trusted.overlay.origin', Buffer.alloc(0)] as const
const PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
]
/** These have numbers of their own, and no name behind them. */
const WHOLE_NAMES: ReadonlyMap<string, number> = new Map([
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
])

type Attributes = readonly (readonly [name: string, value: Buffer])[]

/** First every inode is counted, then `share` decides, and only then there are sizes. */
export class XattrTable {
  readonly #tree: LayerTree
  /** By set and which of ours come with it; in the order of their first inodes, so that equal trees give equal images. */
  readonly #uses = new Map<number, { count: number; readonly inode: number }>()
  /** What stands behind an inode, of sets that are shared. */
  readonly #bodies = new Map<number, Buffer>()
  readonly #sharedIds = new Map<string, number>()
  readonly #shared: Buffer[] = []
  #sharedBytes = 0

  constructor(tree: LayerTree) {
    this.#tree = tree
  }

  count(inode: number): void {
    const key = this.#key(inode)
    if (key === 0) return
    const uses = this.#uses.get(key)
    if (uses === undefined) this.#uses.set(key, { count: 1, inode })
    else uses.count++
  }

  /** Returns the bytes of the shared area. */
  share(): number {
    for (const [key, { count, inode }] of this.#uses) {
      const attributes = this.#attributes(inode)
      const entries = attributes.map(([name, value]) => encodeEntry(this.#tree, inode, name, value))
      const alone = entries.reduce((sum, entry) => sum + entry.length, HEADER)
      if (count > 1 || alone > MOST_BODY) this.#bodies.set(key, this.#shareEntries(inode, entries))
    }
    this.#uses.clear()
    return this.#sharedBytes
  }

  writeShared(out: ImageOutput): void {
    for (const entry of this.#shared) out.bytes(entry)
  }

  /** What stands behind the inode; empty when it has no attributes. A multiple of 4 bytes. */
  body(inode: number): Buffer {
    const key = this.#key(inode)
    if (key === 0) return NOTHING
    return (
      this.#bodies.get(key) ??
      Buffer.concat([
        Buffer.alloc(HEADER),
        ...this.#attributes(inode).map(([name, value]) => encodeEntry(this.#tree, inode, name, value)),
      ])
    )
  }

  #shareEntries(inode: number, entries: readonly Buffer[]): Buffer {
    const shared = entries.slice(0, MOST_SHARED)
    const pointers = Buffer.alloc(HEADER + shared.length * POINTER)
    pointers.writeUInt8(shared.length, 4)
    for (const [i, entry] of shared.entries())
      pointers.writeUInt32LE(this.#sharedId(entry), HEADER + i * POINTER)
    const body = Buffer.concat([pointers, ...entries.slice(MOST_SHARED)])
    if (body.length > MOST_BODY) {
      throw layerError(
        'LAYER_XATTR',
        this.#tree,
        inode,
        `${entries.length} extended attributes are too large`,
      )
    }
    return body
  }

  /** Where the entry stands in the shared area, in units of 4 bytes. */
  #sharedId(entry: Buffer): number {
    const key = entry.toString('latin1')
    let id = this.#sharedIds.get(key)
    if (id === undefined) {
      id = this.#sharedBytes / 4
      this.#sharedIds.set(key, id)
      this.#shared.push(entry)
      this.#sharedBytes += entry.length
    }
    return id
  }

  #key(inode: number): number {
    const own = this.#own(inode)
    return this.#tree.xattrSet(inode) * 4 + (own.includes(OPAQUE) ? 1 : 0) + (own.includes(ORIGIN) ? 2 : 0)
  }

  /** A layer's root is merged in any case, and never opaque. */
  #own(inode: number): Attributes {
    if (inode === LayerTree.ROOT || !this.#tree.isDirectory(inode)) return NONE
    const isOpaque = this.#tree.isOpaque(inode)
    const hasWhiteouts = this.#tree.holdsWhiteouts(inode)
    if (!isOpaque && !hasWhiteouts) return NONE
    return [...(isOpaque ? [OPAQUE] : []), ...(hasWhiteouts ? [ORIGIN] : [])]
  }

  #attributes(inode: number): Attributes {
    const own = this.#own(inode)
    const others = [...this.#tree.xattrs(inode)].filter(([name]) => own.every(([one]) => one !== name))
    return [...others, ...own]
  }
}

const NOTHING = Buffer.alloc(0)
const NONE: Attributes = []

function encodeEntry(tree: LayerTree, inode: number, name: string, value: Buffer): Buffer {
  const [index, text] = splitName(name) ?? []
  const rest = Buffer.from(text ?? '')
  if (index === undefined || rest.length > MOST_NAME || rest.includes(0)) {
    throw layerError(
      'LAYER_XATTR',
      tree,
      inode,
      `no layer can have the extended attribute ${JSON.stringify(name)}`,
    )
  }
  if (value.length > MOST_VALUE) {
    throw layerError('LAYER_XATTR', tree, inode, `extended attribute ${name} has ${value.length} bytes`)
  }
  const entry = Buffer.alloc(Math.ceil((ENTRY + rest.length + value.length) / 4) * 4)
  entry.writeUInt8(rest.length, 0)
  entry.writeUInt8(index, 1)
  entry.writeUInt16LE(value.length, 2)
  rest.copy(entry, ENTRY)
  value.copy(entry, ENTRY + rest.length)
  return entry
}

function splitName(name: string): readonly [index: number, rest: string] | undefined {
  const whole = WHOLE_NAMES.get(name)
  if (whole !== undefined) return [whole, '']
  const known = PREFIXES.find(([prefix]) => name.startsWith(prefix) && name.length > prefix.length)
  return known === undefined ? undefined : [known[1], name.slice(known[0].length)]
}
