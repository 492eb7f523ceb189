/** What two images have in common: layers by their DiffIds, files by their contents. */
import type { DiffId } from '../oci.ts'
import type { Database } from '../store/database.ts'
import type { Image } from '../store/types.ts'
import type { DifferingFile, FileCount, Reuse, ReuseSide, SharedLayer } from './types.ts'
import { absolute, contentKey, digestOf, isOfPieces, type ImageView, type ViewNode } from './view.ts'

export interface Compared {
  readonly name: string
  readonly image: Image
  readonly view: ImageView
}

const MOST_DIFFERING = 50

export function compareImages(db: Database, a: Compared, b: Compared): Reuse {
  const layers = compareLayers(db, a.image.config.rootfs.diff_ids, b.image.config.rootfs.diff_ids)
  const [filesA, filesB] = filesOfBoth(a.view, b.view)
  const differing: DifferingFile[] = []
  const samePath = newCount()
  const sides = [
    { files: filesA, other: filesB },
    { files: filesB, other: filesA },
  ].map(({ files, other }, side) => {
    const counts = { total: newCount(), elsewhere: newCount(), changed: newCount(), only: newCount() }
    for (const [path, { key, size }] of files.byPath) {
      count(counts.total, size)
      const there = other.byPath.get(path)
      if (there?.key === key) {
        if (side === 0) count(samePath, size)
      } else if (other.keys.has(key)) count(counts.elsewhere, size)
      else if (there !== undefined) count(counts.changed, size)
      else count(counts.only, size)
      if (there === undefined) {
        const kind = side === 0 ? 'onlyA' : 'onlyB'
        differing.push({ path, kind, bytesA: side === 0 ? size : 0, bytesB: side === 0 ? 0 : size })
      } else if (side === 0 && there.key !== key) {
        differing.push({ path, kind: 'changed', bytesA: size, bytesB: there.size })
      }
    }
    return counts
  })
  const largest = differing
    .toSorted(
      (x, y) => Math.max(y.bytesA, y.bytesB) - Math.max(x.bytesA, x.bytesB) || (x.path < y.path ? -1 : 1),
    )
    .slice(0, MOST_DIFFERING)
  const [countsA, countsB] = sides
  return {
    a: sideOf(db, a, countsA),
    b: sideOf(db, b, countsB),
    layers,
    sharedLayerBytes: layers
      .filter((layer) => layer.a !== null && layer.b !== null)
      .reduce((sum, layer) => sum + layer.tarBytes, 0),
    samePath,
    differing: largest.map((file) => ({ ...file, path: absolute(file.path) })),
  }
}

type Counts = Pick<ReuseSide, 'total' | 'elsewhere' | 'changed' | 'only'>

function sideOf(db: Database, { name, image }: Compared, counts: Counts | undefined): ReuseSide {
  const chain = image.config.rootfs.diff_ids
  return {
    name,
    layers: chain.length,
    tarBytes: chain.reduce((sum, diffId) => sum + tarBytes(db, diffId), 0),
    ...(counts ?? { total: newCount(), elsewhere: newCount(), changed: newCount(), only: newCount() }),
  }
}

function compareLayers(db: Database, a: readonly DiffId[], b: readonly DiffId[]): SharedLayer[] {
  const same = a.findIndex((diffId, i) => diffId !== b[i])
  const common = same < 0 ? a.length : same
  const ids = [...new Set([...a, ...b])]
  return ids.map((diffId) => {
    const [atA, atB] = [a.indexOf(diffId), b.indexOf(diffId)]
    return {
      diffId,
      tarBytes: tarBytes(db, diffId),
      a: atA < 0 ? null : atA,
      b: atB < 0 ? null : atB,
      sameChain: atA >= 0 && atA < common,
      pinnedBy: pinsOf(db, diffId),
      cacheRecords: Number(db.get('SELECT count(*) AS n FROM steps WHERE diff_id = ?', diffId)?.['n']),
    }
  })
}

function tarBytes(db: Database, diffId: DiffId): number {
  return Number(db.get('SELECT size FROM layers WHERE diff_id = ?', diffId)?.['size'] ?? 0)
}

/** Names of the images that have the layer; of one without a name its manifest's digest. */
function pinsOf(db: Database, diffId: DiffId): string[] {
  return db
    .all(
      `SELECT coalesce(name, image_layers.manifest) AS label
       FROM image_layers LEFT JOIN names USING (manifest) WHERE diff_id = ? ORDER BY label`,
      diffId,
    )
    .map((row) => String(row['label']))
}

interface File {
  key: string
  /** 0 for further names of an inode: its bytes count once. */
  readonly size: number
  readonly node: ViewNode
}

interface Files {
  readonly byPath: ReadonlyMap<string, File>
  readonly keys: ReadonlySet<string>
}

/** Of both images. Files that came in pieces are read where a file of the other image may be the same. */
function filesOfBoth(a: ImageView, b: ImageView): [Files, Files] {
  const [filesA, filesB] = [filesOf(a), filesOf(b)]
  const [readA, readB] = [sizesToRead(filesA, filesB), sizesToRead(filesB, filesA)]
  const unclear = new Set([...readA, ...readB])
  return [resolved(a, filesA, unclear), resolved(b, filesB, unclear)]
}

const sizeOf = ({ node: { layer, inode } }: File): number => layer.tree.size(inode)

/** Of files whose pieces the other image does not have, while it has files as large. */
function sizesToRead(files: Files, other: Files): Set<number> {
  const sizes = new Set([...other.byPath.values()].map(sizeOf))
  const unclear = [...files.byPath.values()].filter(({ key }) => isOfPieces(key) && !other.keys.has(key))
  return new Set(unclear.map(sizeOf).filter((size) => sizes.has(size)))
}

function resolved(view: ImageView, { byPath, keys }: Files, sizes: ReadonlySet<number>): Files {
  if (sizes.size === 0) return { byPath, keys }
  const digests = new Map<string, string>()
  for (const file of byPath.values()) {
    if (!isOfPieces(file.key) || !sizes.has(sizeOf(file))) continue
    const digest = digests.get(file.key) ?? digestOf(view.read(file.node))
    digests.set(file.key, digest)
    file.key = digest
  }
  return { byPath, keys: new Set([...byPath.values()].map(({ key }) => key)) }
}

function filesOf(view: ImageView): Files {
  const byPath = new Map<string, File>()
  const keys = new Set<string>()
  const linked = new Map<object, Set<number>>()
  const isFirstName = ({ layer, inode }: ViewNode): boolean => {
    if (layer.tree.links(inode) === 1) return true
    const seen = linked.get(layer) ?? new Set()
    linked.set(layer, seen)
    return seen.size !== seen.add(inode).size
  }
  view.walk(view.root, '', (path, node) => {
    if (node.layer.tree.type(node.inode) !== 'file') return true
    const key = contentKey(node)
    keys.add(key)
    byPath.set(path, { key, size: isFirstName(node) ? node.layer.tree.size(node.inode) : 0, node })
    return true
  })
  return { byPath, keys }
}

function newCount(): { files: number; bytes: number } {
  return { files: 0, bytes: 0 }
}

function count(to: { -readonly [K in keyof FileCount]: FileCount[K] }, bytes: number): void {
  to.files++
  to.bytes += bytes
}
