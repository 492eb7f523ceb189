/**
 * Which driver a store gets on this machine, and why: `erofs` where EROFS images mount from files of its file system, else `objects` where overlays take
 * data from elsewhere, else `copy`, which does without overlays where there are none; of these, one for the kind of contents that the store has.
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
  mayMountNothing,
  mountErofs,
  mountOverlay,
  overlayPrefix,
  setXattr,
  SysError,
  unlinkat,
  type OverlaySpec,
} from '../../linux/index.ts'
import { contentKind, otherKind, type ContentKind } from '../contents/kind.ts'
import { writeErofs } from '../erofs/image.ts'
import { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
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
    return choice(context, wanted, 'it was asked for')
  }
  if (kind === 'objects') {
    const refusal = probe(context, 'objects')
    if (refusal === undefined) return choice(context, 'objects', 'the store keeps each content in a file')
    throw unusable(`This store keeps each content in a file, and ${refusal}.`)
  }
  const noErofs = probe(context, 'erofs')
  if (noErofs === undefined) return choice(context, 'erofs', 'EROFS images mount from files here')
  if (kind === 'segments')
    return choice(context, 'copy', `the store keeps contents in segments, and ${noErofs}`)
  const noObjects = probe(context, 'objects')
  if (noObjects === undefined) return choice(context, 'objects', noErofs)
  return choice(context, 'copy', [...new Set([noErofs, noObjects])].join(', and '))
}

function choice(context: StoreContext, name: DriverName, reason: string): DriverChoice {
  if (name === 'objects') return { driver: createObjectsDriver(context), reason }
  if (name === 'erofs') {
    const driver: Driver = createErofsDriver(context, (diffId) => rebuildImage(context, driver, diffId))
    return { driver, reason }
  }
  // Where nothing can be written no root is made of either kind.
  const refusal = context.isReadOnly ? undefined : probe(context, 'overlay')
  const tar = (diffId: DiffId): AsyncIterable<Buffer> => streamLayer(context, diffId)
  const driver = createCopyDriver(context, tar, refusal === undefined)
  if (refusal === undefined) return { driver, reason }
  const why = reason.includes(refusal) ? reason : `${reason}, and ${refusal}`
  return { driver, reason: `${why}: whole directories are copied` }
}

const TRIED = {
  erofs: 'mounts no EROFS image from a file of this file system',
  objects: 'mounts no overlay whose files have their data elsewhere',
  overlay: 'mounts no overlay with an upper directory on this file system',
}

/** By mounting something small; the answer holds until the next boot. Why not, or `undefined` when it works. */
function probe(context: StoreContext, name: keyof typeof TRIED | 'copy'): string | undefined {
  if (name === 'copy') return undefined
  // Of this process only: the next one may be allowed more, or less.
  if (mayMountNothing()) return 'this process may mount nothing (it lacks CAP_SYS_ADMIN)'
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
    if (name === 'overlay') tryOverlay(context, path)
    else if (context.isReadOnly) tryImage(context)
    else if (name === 'erofs') tryErofs(path)
    else tryObjects(context, path)
  } catch (error) {
    if (!(error instanceof SysError) || isPassing(error)) throw error
    refusal = `the kernel ${TRIED[name]} (${error.message})`
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
  using opened = openAll(context, directory, ['data', 'lower', 'bottom', 'upper', 'work'])
  const { fd } = opened
  const [text, file] = ['probe', join(directory, 'lower/file')]
  writeFileSync(join(directory, 'data/object'), text)
  writeFileSync(file, '')
  truncateSync(file, text.length)
  setXattr(file, `${overlayPrefix()}metacopy`, Buffer.alloc(0))
  setXattr(file, `${overlayPrefix()}redirect`, Buffer.from('/object'))
  const upper = { upper: fd('upper'), work: fd('work') }
  using mounts = new DisposableStack()
  const mounted = (spec: OverlaySpec): number => mounts.adopt(mountOverlay(spec), closeSync)
  const mount = inInitialUserNamespace()
    ? mounted({ lowers: [fd('lower'), fd('bottom')], data: fd('data'), upper })
    : mounted({ lowers: [mounted({ lowers: [fd('lower')], data: fd('data') }), fd('bottom')], upper })
  const found = readFileSync(`/proc/self/fd/${mount}/file`, 'utf8')
  if (found !== text) throw new SysError('read', ENODATA, 'the data was not found')
}

/** An upper that can be written to: a mount that it is no good for is read-only. */
function tryOverlay(context: StoreContext, directory: string): void {
  using opened = openAll(context, directory, ['lower', 'upper', 'work'])
  const { fd } = opened
  writeFileSync(join(directory, 'lower/file'), '')
  const mount = mountOverlay({ lowers: [fd('lower')], upper: { upper: fd('upper'), work: fd('work') } })
  try {
    unlinkat(mount, 'file')
  } finally {
    closeSync(mount)
  }
}

/** Directories that it makes. */
function openAll(
  context: StoreContext,
  directory: string,
  names: readonly string[],
): Disposable & { readonly fd: (name: string) => number } {
  const opened = new Map<string, number>()
  const close = (): void => {
    for (const fd of opened.values()) closeSync(fd)
  }
  try {
    for (const name of names) {
      mkdirSync(join(directory, name))
      opened.set(name, context.openDirectory(join(directory, name)))
    }
  } catch (error) {
    close()
    throw error
  }
  return { fd: (name) => opened.get(name) ?? -1, [Symbol.dispose]: close }
}

const ENODATA = 61

function unusable(message: string): TbuildError {
  return new TbuildError('DRIVER_UNUSABLE', message, {
    hint: 'Leave the choice to tbuild (without --driver and TBUILD_DRIVER), or choose another store with --store.',
  })
}
