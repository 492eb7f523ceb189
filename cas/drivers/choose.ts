/** Which driver a store gets on this machine, and why. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { mountErofs, SysError } from '../../linux/index.ts'
import { writeErofs } from '../erofs/image.ts'
import { LayerTree } from '../layer/tree.ts'
import type { StoreContext } from '../store/context.ts'
import type { DriverChoice } from '../store/layers.ts'
import { streamLayer } from '../store/layer-tar.ts'
import { bootId, createCopyDriver } from './copy.ts'
import { createErofsDriver } from './erofs.ts'
import { rebuildImage } from './rebuild.ts'
import type { Driver, DriverName } from './types.ts'

/** Throws `DRIVER_UNUSABLE` when the wanted one does not work here. */
export function chooseDriver(context: StoreContext, wanted?: DriverName): DriverChoice {
  const refusal = wanted === 'copy' ? undefined : probeErofs(context)
  const name = wanted ?? (refusal === undefined ? 'erofs' : 'copy')
  if (wanted === 'erofs' && refusal !== undefined) {
    throw new TbuildError('DRIVER_UNUSABLE', `The driver erofs cannot be used here: ${refusal}.`, {
      hint: 'Leave the choice to tbuild: --driver and TBUILD_DRIVER override it.',
    })
  }
  const found = refusal === undefined ? 'EROFS images mount from files here' : refusal
  return { driver: create(context, name), reason: wanted === undefined ? found : 'it was asked for' }
}

function create(context: StoreContext, name: DriverName): Driver {
  if (name === 'copy') return createCopyDriver(context, (diffId) => streamLayer(context, diffId))
  const driver: Driver = createErofsDriver(context, (diffId) => rebuildImage(context, driver, diffId))
  return driver
}

/** Mounts the smallest image; the answer holds until the next boot. Why not, or `undefined` when it works. */
function probeErofs(context: StoreContext): string | undefined {
  const { db } = context
  const known = String(db.get("SELECT value FROM meta WHERE key = 'erofs'")?.['value'] ?? '')
  if (known.startsWith(bootId())) return known.slice(bootId().length + 1) || undefined
  const refusal = tryErofs(context)
  db.run("INSERT OR REPLACE INTO meta VALUES ('erofs', ?)", `${bootId()} ${refusal ?? ''}`)
  return refusal
}

function tryErofs(context: StoreContext): string | undefined {
  const path = context.workPath('probe')
  const fd = openSync(path, 'wx+', 0o600)
  try {
    const sink = (chunk: Buffer): void => void writeSync(fd, chunk)
    writeErofs(new LayerTree(), {
      uuid: Buffer.alloc(16),
      devices: [],
      locate: () => ({ device: 0, block: 0 }),
      sink,
    })
    closeSync(mountErofs(fd, []))
    return undefined
  } catch (error) {
    if (!(error instanceof SysError)) throw error
    return `the kernel mounts no EROFS image from a file of this file system (${error.message})`
  } finally {
    closeSync(fd)
    rmSync(path)
  }
}
