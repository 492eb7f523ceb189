/**
 * Which driver a store gets on this machine, and why: `erofs` where EROFS images mount from files of its file system, else `objects` where overlays take
 * data from elsewhere, else `copy`; of these, one for the kind of contents that the store has.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import {
  inInitialUserNamespace,
  isErrno,
  mountErofs,
  mountOverlay,
  overlayPrefix,
  setXattr,
  SysError,
} from '../../linux/index.ts'
import { contentKind, otherKind, type ContentKind } from '../contents/kind.ts'
import { writeErofs } from '../erofs/image.ts'
import { LayerTree } from '../layer/tree.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database, Row } from '../store/database.ts'
import type { DriverChoice } from '../store/layers.ts'
import { streamLayer } from '../store/layer-tar.ts'
import { segmentPath } from '../store/paths.ts'
import { createCopyDriver } from './copy.ts'
import { createErofsDriver } from './erofs.ts'
import { createObjectsDriver } from './objects.ts'
import { rebuildImage } from './rebuild.ts'
import { bootId } from './trees.ts'
import type { Driver, DriverName } from './types.ts'

const KINDS: Readonly<Record<DriverName, ContentKind>> = {
  erofs: 'segments',
  objects: 'objects',
  copy: 'segments',
}

/** Throws `DRIVER_UNUSABLE` when the wanted one does not work here, or does not fit the store. */
export function chooseDriver(context: StoreContext, wanted?: DriverName): DriverChoice {
  const kind = contentKind(context.db)
  if (wanted !== undefined) {
    if (kind !== undefined && KINDS[wanted] !== kind) throw otherKind(kind)
    const refusal = probe(context, wanted)
    if (refusal !== undefined) throw unusable(`The driver ${wanted} cannot be used here: ${refusal}.`)
    return { driver: create(context, wanted), reason: 'it was asked for' }
  }
  if (kind === 'objects') {
    const refusal = probe(context, 'objects')
    if (refusal === undefined)
      return { driver: create(context, 'objects'), reason: 'the store keeps each content in a file' }
    throw unusable(`This store keeps each content in a file, and ${refusal}.`)
  }
  const noErofs = probe(context, 'erofs')
  if (noErofs === undefined)
    return { driver: create(context, 'erofs'), reason: 'EROFS images mount from files here' }
  if (kind === 'segments')
    return { driver: create(context, 'copy'), reason: `the store keeps contents in segments, and ${noErofs}` }
  const noObjects = probe(context, 'objects')
  if (noObjects === undefined) return { driver: create(context, 'objects'), reason: noErofs }
  return { driver: create(context, 'copy'), reason: `${noErofs}, and ${noObjects}` }
}

function create(context: StoreContext, name: DriverName): Driver {
  if (name === 'copy') return createCopyDriver(context, (diffId) => streamLayer(context, diffId))
  if (name === 'objects') return createObjectsDriver(context)
  const driver: Driver = createErofsDriver(context, (diffId) => rebuildImage(context, driver, diffId))
  return driver
}

/** By mounting something small; the answer holds until the next boot. Why not, or `undefined` when it works. */
function probe(context: StoreContext, name: DriverName): string | undefined {
  if (name === 'copy') return undefined
  const { db } = context
  const known = String(db.get('SELECT value FROM meta WHERE key = ?', name)?.['value'] ?? '')
  const start = `${bootId()} `
  if (known.startsWith(start)) return known.slice(start.length) || undefined
  if (context.isReadOnly && (name === 'objects' || imageOf(db) === undefined))
    return contentKind(db) === 'objects'
      ? undefined
      : 'nothing can be tried on a disk that is mounted read-only'
  const path = context.workDirectory('probe')
  let refusal: string | undefined
  try {
    if (context.isReadOnly) tryImage(context)
    else if (name === 'erofs') tryErofs(path)
    else tryObjects(context, path)
  } catch (error) {
    if (!(error instanceof SysError) || isPassing(error)) throw error
    const what =
      name === 'erofs'
        ? 'mounts no EROFS image from a file of this file system'
        : 'mounts no overlay whose files have their data elsewhere'
    refusal = `the kernel ${what} (${error.message})`
  } finally {
    rmSync(path, { recursive: true })
  }
  db.run('INSERT OR REPLACE INTO meta VALUES (?, ?)', name, start + (refusal ?? ''))
  return refusal
}

/** It says nothing of what the kernel can do; kept, it would until the next boot. */
function isPassing(error: SysError): boolean {
  return isErrno(error, 'EIO', 'ENOSPC', 'EDQUOT', 'ENOMEM', 'EMFILE', 'ENFILE', 'EINTR')
}

/** The smallest image. */
function tryErofs(directory: string): void {
  const fd = openSync(join(directory, 'image'), 'wx+', 0o600)
  try {
    const sink = (chunk: Buffer): void => void writeSync(fd, chunk)
    writeErofs(new LayerTree(), {
      uuid: Buffer.alloc(16),
      devices: [],
      locate: () => ({ device: 0, block: 0 }),
      sink,
    })
    closeSync(mountErofs(fd, []))
  } finally {
    closeSync(fd)
  }
}

/** One that is there, where none can be written. */
function tryImage({ db, paths }: StoreContext): void {
  const row = imageOf(db)
  const sql = 'SELECT segment FROM layer_segments WHERE diff_id = ? ORDER BY device'
  const segments = db
    .all(sql, row?.['diff_id'] ?? null)
    .map(({ segment }) => segmentPath(paths, Number(segment)))
  const opened: number[] = []
  try {
    for (const path of [join(paths.layers, String(row?.['image'])), ...segments])
      opened.push(openSync(path, 'r'))
    const [image = -1, ...devices] = opened
    opened.push(mountErofs(image, devices))
  } finally {
    for (const fd of opened) closeSync(fd)
  }
}

function imageOf(db: Database): Row | undefined {
  return db.get('SELECT diff_id, image FROM layers WHERE image IS NOT NULL ORDER BY stored_at LIMIT 1')
}

/** A file whose data is elsewhere, not in the bottommost layer, and an upper that it could be copied up to. */
function tryObjects(context: StoreContext, directory: string): void {
  const opened = new Map<string, number>()
  try {
    for (const name of ['data', 'lower', 'bottom', 'upper', 'work']) {
      mkdirSync(join(directory, name))
      opened.set(name, context.openDirectory(join(directory, name)))
    }
    const [text, file] = ['probe', join(directory, 'lower/file')]
    writeFileSync(join(directory, 'data/object'), text)
    writeFileSync(file, '')
    truncateSync(file, text.length)
    setXattr(file, `${overlayPrefix()}metacopy`, Buffer.alloc(0))
    setXattr(file, `${overlayPrefix()}redirect`, Buffer.from('/object'))
    const fd = (name: string): number => opened.get(name) ?? -1
    const upper = { upper: fd('upper'), work: fd('work') }
    if (inInitialUserNamespace()) {
      opened.set('mount', mountOverlay({ lowers: [fd('lower'), fd('bottom')], data: fd('data'), upper }))
    } else {
      opened.set('shown', mountOverlay({ lowers: [fd('lower')], data: fd('data') }))
      opened.set('mount', mountOverlay({ lowers: [fd('shown'), fd('bottom')], upper }))
    }
    const found = readFileSync(`/proc/self/fd/${fd('mount')}/file`, 'utf8')
    if (found !== text) throw new SysError('read', ENODATA, 'the data was not found')
  } finally {
    for (const fd of opened.values()) closeSync(fd)
  }
}

const ENODATA = 61

function unusable(message: string): TbuildError {
  return new TbuildError('DRIVER_UNUSABLE', message, {
    hint: 'Leave the choice to tbuild (without --driver and TBUILD_DRIVER), or choose another store with --store.',
  })
}
