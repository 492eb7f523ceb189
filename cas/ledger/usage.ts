/**
 * What occupies the store's directory, to the byte: `tbuild df`.
 *
 * The total is what du(1) finds, so it is taken like this: (1) what the index says is read; (2) the caller closes the store, which writes SQLite's log back
 * and removes it, if nobody else has the store open; (3) the directory is walked and each file put into a row by its name. Between (1) and (3) others may
 * change the store; then a row may be a little off (`unrecorded`, `rounding`), but never the total.
 *
 * Of segments and objects the files give the blocks, and the index what is in them; what remains between the two is `rounding`.
 */
import { BLOCK } from '../contents/reader.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import type { ImageStore } from '../store/types.ts'
import { walkDisk, type DiskFile } from './disk.ts'
import type { Holdings } from './holdings.ts'
import { readIndex, type Indexed } from './indexed.ts'
import { createOwners, type FileBytes } from './owners.ts'
import type { DiskUsage, RowKind, UsageRow } from './types.ts'

/** What the index said. */
export interface PendingUsage {
  readonly indexed: Indexed
  /** To be called when the store is closed. */
  measure(): DiskUsage
}

export function readUsage(context: StoreContext, images: ImageStore): PendingUsage {
  const { db, paths } = context
  const indexed = readIndex(context, images)
  const names = readNames(db, indexed)
  const places = readPlaces(db, indexed.holdings)
  const steps = Number(db.get('SELECT count(*) AS count FROM steps')?.['count'])
  const stepBytes = pagesOf(db, ['steps', 'aliases', 'builds'])
  return {
    indexed,
    measure: () => {
      const rows = new Rows()
      const bytes: FileBytes = { recipes: new Map(), images: new Map(), trees: new Map(), blobs: new Map() }
      const { contents } = indexed.holdings
      const isObject = (hex: string): boolean => {
        const content = hex.length === 64 ? contents.find(Buffer.from(hex, 'hex')) : undefined
        return content !== undefined && contents.segment(content) === OBJECTS
      }
      const index = { bytes: 0, files: 0 }
      walkDisk(paths.root, (file) => {
        if (INDEX.test(file.path)) {
          index.bytes += file.allocatedBytes
          index.files++
        } else place(file, { names, places, rows, bytes, isObject })
      })
      addContents(rows, indexed.holdings)
      for (const one of places.values()) settle(rows, one)
      const ofSteps = Math.min(stepBytes, index.bytes)
      rows.add('cacheRecords', ofSteps, steps)
      rows.add('database', index.bytes - ofSteps, index.files)
      const owners = createOwners(indexed, bytes)
      const list = rows.list()
      return {
        store: paths.root,
        allocatedBytes: list.reduce((sum, row) => sum + row.allocatedBytes, 0),
        rows: list,
        images: owners.images(),
        layers: owners.layers(),
      }
    },
  }
}

/** SQLite's files, and the copy of the images' names. */
const INDEX = /^(?:index\.db[^/]*|names\.json)$/

/** In the order in which they are shown. */
const KINDS = [
  'layerContents',
  'sharedContents',
  'unusedContents',
  'deadContents',
  'padding',
  'rounding',
  'unfinishedContents',
  'segmentLists',
  'recipes',
  'indexImages',
  'trees',
  'compressedLayers',
  'manifests',
  'otherBlobs',
  'cacheRecords',
  'database',
  'statCaches',
  'cacheMounts',
  'work',
  'leases',
  'directories',
  'unrecorded',
  'other',
] as const satisfies readonly RowKind[]

class Rows {
  readonly #rows = new Map<RowKind, { allocatedBytes: number; count: number }>(
    KINDS.map((kind) => [kind, { allocatedBytes: 0, count: 0 }]),
  )

  add(kind: RowKind, allocatedBytes: number, count = 1): void {
    const row = this.#rows.get(kind)
    if (row === undefined) return
    row.allocatedBytes += allocatedBytes
    row.count += count
  }

  list(): UsageRow[] {
    return [...this.#rows].map(([kind, row]) => ({ kind, ...row }))
  }
}

/** A segment; all objects together are one, too. */
interface Place {
  /** Bytes of contents, and what pads them. */
  live: number
  padding: number
  dead: number
  deadCount: number
  /** What the index has of it. */
  readonly length: number
  /** Its contents have been copied elsewhere. */
  readonly isRetired: boolean
  /** Of the file; none when it is not there. */
  size: number
  allocated: number
}

const OBJECTS = 0

function readPlaces(db: Database, { contents }: Holdings): Map<number, Place> {
  const places = new Map([[OBJECTS, newPlace(0)]])
  for (const row of db.all('SELECT id, length, retired FROM segments')) {
    places.set(Number(row['id']), newPlace(Number(row['length']), row['retired'] === 1))
  }
  const at = (segment: number): Place => {
    let known = places.get(segment)
    if (known === undefined) places.set(segment, (known = newPlace(0)))
    return known
  }
  for (let content = 0; content < contents.count; content++) {
    const segment = contents.segment(content)
    const size = contents.size(content)
    const one = at(segment)
    one.live += size
    if (segment !== OBJECTS) one.padding += padded(size) - size
  }
  for (const row of db.all('SELECT segment, size FROM dead')) {
    const one = at(Number(row['segment']))
    one.dead += padded(Number(row['size']))
    one.deadCount++
  }
  return places
}

function newPlace(length: number, isRetired = false): Place {
  return { live: 0, padding: 0, dead: 0, deadCount: 0, length, isRetired, size: 0, allocated: 0 }
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK
}

function addContents(rows: Rows, { groups }: Holdings): void {
  for (const { layers, bytes, contents } of groups) {
    const kind =
      layers.length === 0 ? 'unusedContents' : layers.length === 1 ? 'layerContents' : 'sharedContents'
    rows.add(kind, bytes, contents)
  }
}

/** All of its blocks but those of the contents, which have been added. */
function settle(rows: Rows, one: Place): void {
  const { live, padding, dead, deadCount, length, size, allocated } = one
  let rest = allocated - live
  // Freed dead places may still be in the index.
  const take = (kind: RowKind, bytes: number, count: number): void => {
    const taken = Math.max(0, Math.min(bytes, rest))
    rest -= taken
    if (taken > 0) rows.add(kind, taken, count)
  }
  take('padding', padding, 0)
  take('deadContents', one.isRetired ? rest : dead, deadCount)
  if (length > 0 || size > 0) take('unfinishedContents', size - length, 0)
  rows.add('rounding', rest, 0)
}

/** What the index calls files: all others are nobody's. */
interface Names {
  /** Index images and trees by file name, with the layer. */
  readonly images: ReadonlyMap<string, string>
  readonly trees: ReadonlyMap<string, string>
  /** In hex. */
  readonly layers: ReadonlySet<string>
  readonly deadObjects: ReadonlySet<string>
  readonly blobs: ReadonlyMap<string, 'compressedLayers' | 'manifests' | 'otherBlobs'>
}

function readNames(db: Database, { layers, images }: Indexed): Names {
  const manifests = new Set(images.flatMap(({ id, manifestDigest }) => [id, manifestDigest] as string[]))
  const compressed = new Set(
    layers.flatMap((layer) => layer.compressed.map(({ digest }) => digest as string)),
  )
  const pairs = (sql: string): Map<string, string> =>
    new Map(db.all(sql).map((row) => [String(row['name']), String(row['diff_id'])]))
  return {
    images: pairs('SELECT image AS name, diff_id FROM layers WHERE image IS NOT NULL'),
    trees: pairs('SELECT name, diff_id FROM trees'),
    deadObjects: new Set(
      db.all('SELECT hex(digest) AS hex FROM dead_objects').map((row) => String(row['hex']).toLowerCase()),
    ),
    layers: new Set(layers.map(({ diffId }) => hexOf(diffId))),
    blobs: new Map(
      db.all('SELECT digest FROM blobs').map((row) => {
        const digest = String(row['digest'])
        const kind = manifests.has(digest)
          ? 'manifests'
          : compressed.has(digest)
            ? 'compressedLayers'
            : 'otherBlobs'
        return [hexOf(digest), kind]
      }),
    ),
  }
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length)
}

interface Placing {
  readonly names: Names
  readonly places: ReadonlyMap<number, Place>
  readonly rows: Rows
  readonly bytes: FileBytes
  isObject(hex: string): boolean
}

function place(file: DiskFile, placing: Placing): void {
  const { names, places, rows, bytes } = placing
  const { path, allocatedBytes, isDirectory } = file
  const [top = '', second = '', third = ''] = path.split('/', 3)
  const isOfStore = isDirectory && (path === top || /^(?:blobs\/sha256|objects\/[0-9a-f]{2})$/.test(path))
  if (path === '' || (isOfStore && STORE_DIRECTORIES.has(top))) {
    rows.add('directories', allocatedBytes)
    return
  }
  /** To a row, and to the layer or blob that has it. */
  const owned = (kind: RowKind, to: Map<string, number>, key: string): void => {
    rows.add(kind, allocatedBytes)
    to.set(key, (to.get(key) ?? 0) + allocatedBytes)
  }
  switch (top) {
    case 'blobs': {
      const kind = path === `blobs/sha256/${third}` ? names.blobs.get(third) : undefined
      if (kind === undefined) rows.add('unrecorded', allocatedBytes)
      else owned(kind, bytes.blobs, `sha256:${third}`)
      return
    }
    case 'layers': {
      const recipeOf = second.endsWith('.recipe') ? second.slice(0, -'.recipe'.length) : undefined
      const imageOf = names.images.get(second)
      if (recipeOf !== undefined && names.layers.has(recipeOf))
        owned('recipes', bytes.recipes, `sha256:${recipeOf}`)
      else if (imageOf !== undefined) owned('indexImages', bytes.images, imageOf)
      else rows.add('unrecorded', allocatedBytes)
      return
    }
    case 'segments': {
      const [, id = '', list] = /^(\d+)(\.list)?$/.exec(second) ?? []
      const segment = id === '' ? undefined : places.get(Number(id))
      if (segment === undefined) rows.add('unrecorded', allocatedBytes)
      else if (list !== undefined) rows.add('segmentLists', allocatedBytes)
      else {
        segment.size = file.size
        segment.allocated = allocatedBytes
      }
      return
    }
    case 'objects': {
      const objects = places.get(OBJECTS)
      if (names.deadObjects.has(second + third)) rows.add('deadContents', allocatedBytes)
      else if (objects === undefined || !placing.isObject(second + third))
        rows.add('unrecorded', allocatedBytes)
      else objects.allocated += allocatedBytes
      return
    }
    case 'trees': {
      const treeOf = names.trees.get(second)
      if (treeOf === undefined) rows.add('unrecorded', allocatedBytes)
      else owned('trees', bytes.trees, treeOf)
      return
    }
    default:
      rows.add(SIMPLE.get(top) ?? 'other', allocatedBytes)
  }
}

const STORE_DIRECTORIES = new Set([
  'blobs',
  'layers',
  'segments',
  'objects',
  'trees',
  'contexts',
  'cache-mounts',
  'work',
  'leases',
])

const SIMPLE: ReadonlyMap<string, RowKind> = new Map([
  ['contexts', 'statCaches'],
  ['cache-mounts', 'cacheMounts'],
  ['work', 'work'],
  ['leases', 'leases'],
  ['collection', 'leases'],
  ['epoch-0', 'leases'],
  ['epoch-1', 'leases'],
  ['migration', 'leases'],
])

/** What tables take of the index's file. */
function pagesOf(db: Database, tables: readonly string[]): number {
  const sql = 'SELECT sum(pgsize) AS bytes FROM dbstat WHERE aggregate = 1 AND name = ?'
  return tables.reduce((sum, table) => sum + Number(db.get(sql, table)?.['bytes'] ?? 0), 0)
}
