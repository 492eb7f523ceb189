import { bytesOf, type ImageView } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { UsageError } from '../arguments/usage-error.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { lookupPath, parseImagePath } from '../image-path.ts'
import { resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const cat = defineCommand({
  usage: 'IMAGE:PATH [PATH...]',
  description: `
Prints files of an image, read without mounting it. PATH begins with a slash; symlinks lead as they would inside the image. What is
printed is verified: damage is an error, for files over 1 MiB after some of it has been printed.`,
  options: STORE_OPTION,
  examples: [
    ['tbuild cat app:/etc/os-release', 'of app:latest'],
    ['tbuild cat app:1:/etc/passwd /etc/group', 'two files'],
  ],
  arguments: { least: 1, most: Number.POSITIVE_INFINITY },
  async run({ options, args: [place = '', ...more] }) {
    const { image, path } = parseImagePath(place)
    if (path === undefined) {
      throw new UsageError('ARGUMENTS', `${JSON.stringify(place)} names no file.`, {
        hint: `a file is named like this: tbuild cat ${image}:/etc/passwd`,
      })
    }
    await interruptible(async (signal) => {
      await using store = await openStoreToRead(options)
      const found = resolveImage(store, image).image
      const view = (await store.ledger()).view(found.config.rootfs.diff_ids)
      for (const one of [path, ...more.map(bytesOf)]) await print(view, one, image, signal)
    })
  },
})

async function print(view: ImageView, path: string, image: string, signal: AbortSignal): Promise<void> {
  const { path: real, node } = lookupPath(view, path, { image })
  const { type } = view.entry(real, node)
  if (type !== 'file') {
    const what = type === 'directory' ? 'a directory' : 'a device or a pipe'
    throw new TbuildError(
      'PATH_NOT_FILE',
      `${JSON.stringify(Buffer.from(path, 'latin1').toString())} is ${what}.`,
    )
  }
  for (const part of view.read(node)) {
    // A copy: the part is written later when the reader of a pipe is slow.
    out(Buffer.from(part))
    await new Promise(setImmediate)
    signal.throwIfAborted()
  }
}
