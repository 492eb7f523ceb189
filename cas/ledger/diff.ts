/** What changed between two images' files. */
import type { FileEntry, Change, ChangedAspect } from './types.ts'
import { sameContents, absolute, type ImageView, type ViewNode } from './view.ts'

/** In the order of paths. @param times whether a modification time alone is a change */
export function diffViews(before: ImageView, after: ImageView, { times = false } = {}): Change[] {
  const changes: Change[] = []
  const compare = (path: string, a: ViewNode, b: ViewNode): void => {
    const [old, now] = [before.entry(path, a), after.entry(path, b)]
    const what = aspects(old, now, () => sameContents(before, a, after, b), times)
    if (what.length > 0) {
      const kind = what.some((aspect) => OTHER_CONTENTS.has(aspect)) ? 'C' : 'M'
      changes.push({ kind, path: absolute(path), what, ...sizes(old, now) })
    }
    if (old.type === 'directory' && now.type === 'directory') {
      if (!sameParts(a, b)) descend(path, a, b)
    } else if (now.type === 'directory') {
      for (const [name, child] of after.children(b)) add(join(path, name), child)
    }
  }
  const add = (path: string, node: ViewNode): void =>
    after.walk(node, path, (at, one) => {
      changes.push({ kind: 'A', path: absolute(at), what: [], ...sizes(undefined, after.entry(at, one)) })
      return true
    })
  const descend = (path: string, a: ViewNode, b: ViewNode): void => {
    const old = before.children(a)
    const now = after.children(b)
    for (let i = 0, j = 0; i < old.length || j < now.length;) {
      const [oldName, oldChild] = old[i] ?? []
      const [newName, newChild] = now[j] ?? []
      if (oldChild !== undefined && (newName === undefined || (oldName ?? '') < newName)) {
        const at = join(path, oldName ?? '')
        changes.push({
          kind: 'D',
          path: absolute(at),
          what: [],
          ...sizes(before.entry(at, oldChild), undefined),
        })
        i++
      } else if (newChild !== undefined && (oldName === undefined || (newName ?? '') < oldName)) {
        add(join(path, newName ?? ''), newChild)
        j++
      } else if (oldChild !== undefined && newChild !== undefined) {
        compare(join(path, oldName ?? ''), oldChild, newChild)
        i++
        j++
      }
    }
  }
  compare('', before.root, after.root)
  return changes
}

const OTHER_CONTENTS: ReadonlySet<ChangedAspect> = new Set(['type', 'content', 'target', 'device'])

function aspects(
  a: FileEntry,
  b: FileEntry,
  hasSameContents: () => boolean,
  times: boolean,
): ChangedAspect[] {
  const found: ChangedAspect[] = []
  if (a.type !== b.type) found.push('type')
  else if (a.type === 'file') {
    if (!hasSameContents()) found.push('content')
  } else if (a.type === 'symlink') {
    if (a.target !== b.target) found.push('target')
  } else if ((a.type === 'char' || a.type === 'block') && a.device.join() !== b.device.join())
    found.push('device')
  if (a.mode !== b.mode) found.push('mode')
  if (a.uid !== b.uid || a.gid !== b.gid) found.push('owner')
  if (!sameXattrs(a.xattrs, b.xattrs)) found.push('xattrs')
  if (times && (a.mtimeSeconds !== b.mtimeSeconds || a.mtimeNanoseconds !== b.mtimeNanoseconds))
    found.push('mtime')
  return found
}

function sameXattrs(a: ReadonlyMap<string, Buffer>, b: ReadonlyMap<string, Buffer>): boolean {
  return (
    a === b || (a.size === b.size && [...a].every(([name, value]) => b.get(name)?.equals(value) === true))
  )
}

/** The same directories of the same layers: nothing below differs. */
function sameParts({ parts: a }: ViewNode, { parts: b }: ViewNode): boolean {
  return (
    a.length === b.length && a.every(({ layer, inode }, i) => layer === b[i]?.layer && inode === b[i].inode)
  )
}

function sizes(before: FileEntry | undefined, after: FileEntry | undefined) {
  return { bytesBefore: fileSize(before), bytesAfter: fileSize(after) }
}

function fileSize(entry: FileEntry | undefined): number {
  return entry?.type === 'file' ? entry.size : 0
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}/${name}`
}
