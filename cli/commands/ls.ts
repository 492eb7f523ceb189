import type { FileEntry, ImageView } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { jsonName, lookupPath, nameForOutput, parseImagePath } from '../image-path.ts'
import { resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const ls = defineCommand({
  usage: '[OPTIONS] IMAGE[:PATH]',
  description: `
Reads the layers without mounting them. PATH begins with a slash; symlinks lead as they would inside the image. Owners are numbers,
times UTC.`,
  options: {
    long: { kind: 'flag', short: 'l', help: 'Mode, links, owner, group, size, time; a symlink itself' },
    recursive: { kind: 'flag', short: 'R', help: 'All that is below, too' },
    json: { kind: 'flag', help: 'Print JSON: docs/ledger.md' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild ls app', "the image's root"],
    ['tbuild ls -l app:1:/usr/bin', 'as ls -l inside it'],
    ['tbuild ls -R --json app:/etc', 'everything below /etc, for a script'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [place = ''] }) {
    const { image, path = '/' } = parseImagePath(place)
    const listings = await interruptible(async () => {
      await using store = await openStoreToRead(options)
      const found = resolveImage(store, image).image
      const view = (await store.ledger()).view(found.config.rootfs.diff_ids)
      const followLast = !options.long || path.endsWith('/')
      return list(view, lookupPath(view, path, { image, followLast }), options.recursive)
    })
    if (options.json) {
      out(
        `${JSON.stringify(
          listings.flatMap(({ entries }) => entries.map(jsonOf)),
          undefined,
          2,
        )}\n`,
      )
      return
    }
    for (const [i, { directory, entries }] of listings.entries()) {
      if (listings.length > 1 && directory !== undefined) {
        out(
          Buffer.concat([
            Buffer.from(i === 0 ? '' : '\n'),
            nameForOutput(`/${directory}`),
            Buffer.from(':\n'),
          ]),
        )
      }
      out(options.long ? longLines(entries) : shortLines(entries))
    }
  },
})

interface Listing {
  /** Without a leading `/`; `undefined`: the entry that was asked for is no directory. */
  readonly directory: string | undefined
  readonly entries: readonly FileEntry[]
}

type Place = ReturnType<typeof lookupPath>

function list(view: ImageView, { path, node }: Place, recursive: boolean): Listing[] {
  if (node.parts.length === 0) return [{ directory: undefined, entries: [view.entry(path, node)] }]
  const listings: Listing[] = []
  view.walk(node, path, (at, directory) => {
    if (directory.parts.length === 0) return false
    const prefix = at === '' ? '' : `${at}/`
    listings.push({
      directory: at,
      entries: view.children(directory).map(([name, child]) => view.entry(prefix + name, child)),
    })
    return recursive
  })
  return listings
}

function nameOf({ path }: FileEntry): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

const LINE = Buffer.from('\n')

function shortLines(entries: readonly FileEntry[]): Buffer {
  return Buffer.concat(entries.flatMap((entry) => [nameForOutput(nameOf(entry)), LINE]))
}

function longLines(entries: readonly FileEntry[]): Buffer {
  const rows = entries.map((entry) => [
    modeText(entry),
    String(entry.links),
    String(entry.uid),
    String(entry.gid),
    entry.type === 'char' || entry.type === 'block' ? entry.device.join(', ') : String(entry.size),
    timeText(entry).replace('T', ' ').slice(0, 16),
  ])
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  return Buffer.concat(
    entries.flatMap((entry, i) => {
      const cells = (rows[i] ?? []).map((cell, column) => cell.padStart(widths[column] ?? 0))
      const target = entry.type === 'symlink' ? [Buffer.from(' -> '), nameForOutput(entry.target)] : []
      return [Buffer.from(`${cells.join(' ')} `), nameForOutput(nameOf(entry)), ...target, LINE]
    }),
  )
}

const TYPES: Readonly<Record<FileEntry['type'], string>> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  char: 'c',
  block: 'b',
  fifo: 'p',
}

function modeText({ type, mode }: FileEntry): string {
  return (
    TYPES[type] +
    triple(mode >> 6, (mode & 0o4000) !== 0, 's') +
    triple(mode >> 3, (mode & 0o2000) !== 0, 's') +
    triple(mode, (mode & 0o1000) !== 0, 't')
  )
}

/** Of three bits; `special` is setuid, setgid or sticky. */
function triple(bits: number, special: boolean, letter: string): string {
  const isExecutable = (bits & 1) !== 0
  const plain = isExecutable ? 'x' : '-'
  const execute = !special ? plain : isExecutable ? letter : letter.toUpperCase()
  return `${(bits & 4) === 0 ? '-' : 'r'}${(bits & 2) === 0 ? '-' : 'w'}${execute}`
}

/** RFC 3339 with nanoseconds; seconds since 1970 where that ends. */
function timeText({ mtimeSeconds, mtimeNanoseconds }: FileEntry): string {
  const date = new Date(mtimeSeconds * 1000)
  if (Number.isNaN(date.getTime())) return `@${mtimeSeconds}`
  return `${date.toISOString().slice(0, -'.000Z'.length)}.${String(mtimeNanoseconds).padStart(9, '0')}Z`
}

function jsonOf(entry: FileEntry) {
  const { type, mode, uid, gid, size, links, device, xattrs } = entry
  const [major, minor] = device
  return {
    ...jsonName('path', `/${entry.path}`),
    type,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    size,
    links,
    mtime: timeText(entry),
    ...(type === 'symlink' ? jsonName('target', entry.target) : {}),
    ...(type === 'char' || type === 'block' ? { major, minor } : {}),
    xattrs: Object.fromEntries([...xattrs].map(([name, value]) => [name, value.toString('base64')])),
  }
}
