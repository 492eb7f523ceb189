/**
 * What one layer says, as a tree in memory: inodes, and the names that lead to them. Columns of numbers and not an object for each, so that a million
 * files fit in 150 MB. Built by applying a layer's entries in their order (apply.ts); read by what makes a lower of it.
 *
 * Names are byte strings (one character a byte). Inode 0 is the root. Contents are numbers, of whoever keeps the list.
 */

import { hash as digestOf } from 'node:crypto'
import { TbuildError } from '../../errors.ts'
import { splitTime } from '../tar/number.ts'

export type NodeType = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'whiteout'

/** A span of a file that holds data; what no piece covers is a hole. */
export interface Piece {
  /** Bytes, in the file. */
  readonly offset: number
  readonly length: number
  /** Number of the content, see `cas/contents/list.ts`. */
  readonly content: number
}

export interface Attributes {
  /** 07777. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeNs: bigint
  readonly xattrs: ReadonlyMap<string, Buffer>
}

export interface NewInode extends Attributes {
  readonly type: NodeType
  /** Of a symlink, verbatim, as a byte string. */
  readonly target?: string
  /** Of a device. */
  readonly major?: number
  readonly minor?: number
}

const TYPES: readonly NodeType[] = ['file', 'directory', 'symlink', 'char', 'block', 'fifo', 'whiteout']
const DIRECTORY = TYPES.indexOf('directory')
const OPAQUE = 1
const EXPLICIT = 2
const WHITEOUTS = 4
const NONE = 0xffff_ffff
const WHOLE = 0xffff_ffff
const LONG_KEY = 1024
/** What `#nameEnd` can say. One layer comes nowhere near (apply.ts); many merged might. */
const MOST_NAME_BYTES = 0xffff_ffff
// Looked up once: under jest each look-up of a global costs 100 ns, and this is called for each byte of a name.
const { imul } = Math

export class LayerTree {
  static readonly ROOT = 0

  #inodes = 0
  #type = new Uint8Array(64)
  #flags = new Uint8Array(64)
  #mode = new Uint16Array(64)
  #uid = new Uint32Array(64)
  #gid = new Uint32Array(64)
  #seconds = new Float64Array(64)
  #nanoseconds = new Uint32Array(64)
  #size = new Float64Array(64)
  #nlink = new Uint32Array(64)
  /** Of a directory: its latest name. Of a file: its first piece, or, of one in a single piece, the content. */
  #first = new Uint32Array(64)
  /** `WHOLE`: one piece, all of the file. */
  #pieceCount = new Uint32Array(64)
  #xattrs = new Uint32Array(64)
  readonly #targets = new Map<number, string>()
  readonly #devices = new Map<number, readonly [major: number, minor: number]>()

  #names = 0
  /** All names, one after the other; each ends where the next begins. */
  #nameBytes = Buffer.from(new ArrayBuffer(1024))
  #nameEnd = new Uint32Array(64)
  #nameDirectory = new Uint32Array(64)
  /** `NONE` of a name that was removed; the record stays, for the name may come again. */
  #nameInode = new Uint32Array(64)
  /** The directory's name before this one. */
  #nameNext = new Uint32Array(64)
  /** Open addressing over (directory, name): number of the name + 1. */
  #table = new Uint32Array(128)

  #pieces = 0
  #pieceOffset = new Float64Array(64)
  #pieceLength = new Float64Array(64)
  #pieceContent = new Uint32Array(64)

  readonly #xattrSets: ReadonlyMap<string, Buffer>[] = [new Map()]
  readonly #xattrIds = new Map<string, number>()

  constructor() {
    this.create({ type: 'directory', mode: 0o755, uid: 0, gid: 0, mtimeNs: 0n, xattrs: new Map() })
    this.#nlink[LayerTree.ROOT] = 1
  }

  /** Numbers given out; those without a link are of removed files. */
  get inodes(): number {
    return this.#inodes
  }

  /** A new inode, which no name leads to yet. */
  create(inode: NewInode): number {
    const number = this.#inodes++
    if (number === this.#type.length) this.#growInodes()
    this.#type[number] = TYPES.indexOf(inode.type)
    this.#first[number] = NONE
    this.setAttributes(number, inode)
    if (inode.target !== undefined) this.#targets.set(number, inode.target)
    if (inode.type === 'char' || inode.type === 'block') {
      this.#devices.set(number, [inode.major ?? 0, inode.minor ?? 0])
    }
    return number
  }

  setAttributes(inode: number, { mode, uid, gid, mtimeNs, xattrs }: Attributes): void {
    this.#mode[inode] = mode
    this.#uid[inode] = uid
    this.#gid[inode] = gid
    const { seconds, nanoseconds } = splitTime(mtimeNs)
    this.#seconds[inode] = seconds
    this.#nanoseconds[inode] = nanoseconds
    this.#xattrs[inode] = xattrs.size === 0 ? 0 : this.#intern(xattrs)
  }

  type(inode: number): NodeType {
    return TYPES[this.#type[inode] ?? 0] ?? 'file'
  }
  isDirectory(inode: number): boolean {
    return this.#type[inode] === DIRECTORY
  }
  mode(inode: number): number {
    return this.#mode[inode] ?? 0
  }
  uid(inode: number): number {
    return this.#uid[inode] ?? 0
  }
  gid(inode: number): number {
    return this.#gid[inode] ?? 0
  }
  /** Whole seconds since 1970, rounded down; may be negative. */
  mtimeSeconds(inode: number): number {
    return this.#seconds[inode] ?? 0
  }
  mtimeNanoseconds(inode: number): number {
    return this.#nanoseconds[inode] ?? 0
  }
  xattrs(inode: number): ReadonlyMap<string, Buffer> {
    return this.#xattrSets[this.#xattrs[inode] ?? 0] ?? new Map()
  }
  /** Equal for inodes whose attributes are equal; 0: none. */
  xattrSet(inode: number): number {
    return this.#xattrs[inode] ?? 0
  }
  /** Bytes of a file, holes included. */
  size(inode: number): number {
    return this.#size[inode] ?? 0
  }
  setSize(inode: number, size: number): void {
    this.#size[inode] = size
  }
  target(inode: number): string {
    return this.#targets.get(inode) ?? ''
  }
  device(inode: number): readonly [major: number, minor: number] {
    return this.#devices.get(inode) ?? [0, 0]
  }
  /** Names that lead to it; for a directory 1, or 0 when it was removed. */
  links(inode: number): number {
    return this.#nlink[inode] ?? 0
  }
  /** The lower layers' directory of this name is hidden. */
  isOpaque(inode: number): boolean {
    return ((this.#flags[inode] ?? 0) & OPAQUE) !== 0
  }
  setOpaque(inode: number): void {
    this.#flags[inode] = (this.#flags[inode] ?? 0) | OPAQUE
  }
  /** Names in it are deleted, or were until something else took them. */
  holdsWhiteouts(inode: number): boolean {
    return ((this.#flags[inode] ?? 0) & WHITEOUTS) !== 0
  }
  /** The layer has an entry for this directory: it was not just made for what is below it. */
  isExplicit(inode: number): boolean {
    return ((this.#flags[inode] ?? 0) & EXPLICIT) !== 0
  }
  setExplicit(inode: number): void {
    this.#flags[inode] = (this.#flags[inode] ?? 0) | EXPLICIT
  }

  /** Pieces of one file are added one after another, in order, when its size is set. */
  addPiece(inode: number, offset: number, length: number, content: number): void {
    if (this.#pieceCount[inode] === 0 && offset === 0 && length === this.#size[inode]) {
      this.#first[inode] = content
      this.#pieceCount[inode] = WHOLE
      return
    }
    const number = this.#pieces++
    if (number === this.#pieceOffset.length) this.#growPieces()
    this.#pieceOffset[number] = offset
    this.#pieceLength[number] = length
    this.#pieceContent[number] = content
    if (this.#pieceCount[inode] === 0) this.#first[inode] = number
    this.#pieceCount[inode] = (this.#pieceCount[inode] ?? 0) + 1
  }
  pieces(inode: number): Piece[] {
    const first = this.#first[inode] ?? 0
    if (this.#pieceCount[inode] === WHOLE) return [{ offset: 0, length: this.size(inode), content: first }]
    return Array.from({ length: this.#pieceCount[inode] ?? 0 }, (_, i) => ({
      offset: this.#pieceOffset[first + i] ?? 0,
      length: this.#pieceLength[first + i] ?? 0,
      content: this.#pieceContent[first + i] ?? 0,
    }))
  }

  lookup(directory: number, name: string): number | undefined {
    const inode = this.#nameInode[this.#find(directory, name)]
    return inode === undefined || inode === NONE ? undefined : inode
  }

  /** The name must be free. */
  link(directory: number, name: string, inode: number): void {
    const slot = this.#slot(directory, name)
    let number = (this.#table[slot] ?? 0) - 1
    if (number < 0) number = this.#addName(directory, name, slot)
    this.#nameInode[number] = inode
    this.#nlink[inode] = (this.#nlink[inode] ?? 0) + 1
    if (this.type(inode) === 'whiteout') this.#flags[directory] = (this.#flags[directory] ?? 0) | WHITEOUTS
  }

  /** Removes a name, and all below it; nothing happens when it is not there. An inode whose last name goes cannot come back. */
  unlink(directory: number, name: string): void {
    const pending: [directory: number, name: string][] = [[directory, name]]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const number = this.#find(...next)
      const inode = this.#nameInode[number]
      if (inode === undefined || inode === NONE) continue
      this.#nameInode[number] = NONE
      this.#nlink[inode] = (this.#nlink[inode] ?? 0) - 1
      // An archive may replace one name over and over: its long targets are not to add up.
      if (this.#nlink[inode] === 0) this.#targets.delete(inode)
      if (this.isDirectory(inode)) for (const [child] of this.#list(inode)) pending.push([inode, child])
    }
  }

  /** In the order of their bytes. */
  children(directory: number): [name: string, inode: number][] {
    const found = this.#list(directory).toReversed()
    // Those of a layer that was made here came in that order.
    const isSorted = found.every(([name], i) => i === 0 || (found[i - 1]?.[0] ?? '') < name)
    return isSorted ? found : found.toSorted(([a], [b]) => (a < b ? -1 : 1))
  }

  /** The latest first. */
  #list(directory: number): [name: string, inode: number][] {
    const found: [string, number][] = []
    for (let name = this.#first[directory] ?? NONE; name !== NONE; name = this.#nameNext[name] ?? NONE) {
      const inode = this.#nameInode[name] ?? NONE
      if (inode !== NONE) found.push([this.#nameText(name), inode])
    }
    return found
  }

  /** `slot` is where it will be found. */
  #addName(directory: number, name: string, slot: number): number {
    const number = this.#names++
    if (number === this.#nameInode.length) {
      this.#nameEnd = grown(this.#nameEnd)
      this.#nameDirectory = grown(this.#nameDirectory)
      this.#nameInode = grown(this.#nameInode)
      this.#nameNext = grown(this.#nameNext)
    }
    const start = this.#nameStart(number)
    if (start + name.length > MOST_NAME_BYTES)
      throw new TbuildError('LAYER_TOO_LARGE', 'layers of so many names are not held in memory')
    while (start + name.length > this.#nameBytes.length) this.#nameBytes = Buffer.from(twice(this.#nameBytes))
    for (let i = 0; i < name.length; i++) this.#nameBytes[start + i] = name.charCodeAt(i)
    this.#nameEnd[number] = start + name.length
    this.#nameDirectory[number] = directory
    this.#nameNext[number] = this.#first[directory] ?? NONE
    this.#first[directory] = number
    this.#table[slot] = number + 1
    if (this.#names * 2 > this.#table.length) this.#growTable()
    return number
  }

  #nameStart(number: number): number {
    return number === 0 ? 0 : (this.#nameEnd[number - 1] ?? 0)
  }
  #nameText(number: number): string {
    return this.#nameBytes.toString('latin1', this.#nameStart(number), this.#nameEnd[number])
  }
  #isNamed(number: number, name: string): boolean {
    const start = this.#nameStart(number)
    if ((this.#nameEnd[number] ?? 0) - start !== name.length) return false
    for (let i = 0; i < name.length; i++) if (this.#nameBytes[start + i] !== name.charCodeAt(i)) return false
    return true
  }

  /** Number of the name, or -1. */
  #find(directory: number, name: string): number {
    return (this.#table[this.#slot(directory, name)] ?? 0) - 1
  }

  /** Where the name stands in the table, or the free slot that it would take. */
  #slot(directory: number, name: string): number {
    const mask = this.#table.length - 1
    for (let slot = hashOf(directory, name) & mask; ; slot = (slot + 1) & mask) {
      const number = (this.#table[slot] ?? 0) - 1
      if (number < 0) return slot
      if (this.#nameDirectory[number] === directory && this.#isNamed(number, name)) return slot
    }
  }

  #growTable(): void {
    this.#table = new Uint32Array(this.#table.length * 2)
    const mask = this.#table.length - 1
    for (let number = 0; number < this.#names; number++) {
      // They differ, all of them: the next free slot it is.
      let slot = hashOf(this.#nameDirectory[number] ?? 0, this.#nameText(number)) & mask
      while (this.#table[slot] !== 0) slot = (slot + 1) & mask
      this.#table[slot] = number + 1
    }
  }

  #growInodes(): void {
    this.#type = grown(this.#type)
    this.#flags = grown(this.#flags)
    this.#mode = grown(this.#mode)
    this.#uid = grown(this.#uid)
    this.#gid = grown(this.#gid)
    this.#seconds = grown(this.#seconds)
    this.#nanoseconds = grown(this.#nanoseconds)
    this.#size = grown(this.#size)
    this.#nlink = grown(this.#nlink)
    this.#first = grown(this.#first)
    this.#pieceCount = grown(this.#pieceCount)
    this.#xattrs = grown(this.#xattrs)
  }

  #growPieces(): void {
    this.#pieceOffset = grown(this.#pieceOffset)
    this.#pieceLength = grown(this.#pieceLength)
    this.#pieceContent = grown(this.#pieceContent)
  }

  #intern(xattrs: ReadonlyMap<string, Buffer>): number {
    const sorted = [...xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1))
    const text = JSON.stringify(sorted.map(([name, value]) => [name, value.toString('latin1')]))
    // Large sets are made to be kept once, not twice.
    const key = text.length > LONG_KEY ? digestOf('sha256', text) : text
    const known = this.#xattrIds.get(key)
    if (known !== undefined) return known
    const id = this.#xattrSets.push(new Map(sorted)) - 1
    this.#xattrIds.set(key, id)
    return id
  }
}

/** So that nobody can make up names that fall into one slot. */
const SEED = Math.floor(Math.random() * 0x7fff_ffff)

function hashOf(directory: number, name: string): number {
  let hash = imul(directory + SEED, 0x9e3779b1)
  for (let i = 0; i < name.length; i++) hash = imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash ^ (hash >>> 15)
}

/** Twice as long. The memory of the old one is given back at once, not when it is collected. */
function twice(column: { readonly buffer: ArrayBufferLike; readonly byteLength: number }): ArrayBuffer {
  return (column.buffer as ArrayBuffer).transfer(column.byteLength * 2)
}

function grown<T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(column: T): T {
  return new (column.constructor as new (buffer: ArrayBuffer) => T)(twice(column))
}
