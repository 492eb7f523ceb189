/** Which files a COPY or ADD names. */
import { TbuildError } from '../../errors.ts'
import { bytesOf, resolveInTree, show, type Tree } from '../../cas/index.ts'
import { glob, hasWildcard } from './glob.ts'

export interface Selected {
  readonly tree: Tree
  /** Without symlinks; '' is the whole tree. */
  readonly path: string
  /**
   * What it is called in a destination directory: the last part of the name by which it was found, or, with `--parents`, all of it from the
   * pivot (`/./`) on.
   */
  readonly name: string
  /** It came from an address: an archive is one only for `ADD --unpack`, and owners are root's. */
  readonly isRemote?: boolean
}

export interface SelectOptions {
  /** Names keep their directories (`--parents`), and `**` matches any number of them. */
  readonly parents: boolean
  /** The line of an ignore file because of which a path is missing. */
  readonly whyIgnored: (path: string) => string | undefined
}

/**
 * A symlink that is named itself is followed, inside the tree; those found in directories are copied as they are. A pattern that matches nothing
 * names nothing, as in BuildKit (`COPY package.json yarn.* ./` wants the second one if it is there); only the directory that it begins with must be there.
 * Throws `COPY_NOT_FOUND`, with the line of the ignore file if that is why.
 */
export function selectSources(
  tree: Tree,
  pattern: string,
  { parents, whyIgnored }: SelectOptions,
): Selected[] {
  const parts = bytesOf(pattern)
    .split('/')
    .filter((part) => part !== '' && part !== '.')
  const clean = withoutParents(parts)
  const pivot = parents ? pivotOf(bytesOf(pattern)) : 0
  const nameOf = (path: string): string =>
    parents ? path.split('/').slice(pivot).join('/') : path.slice(path.lastIndexOf('/') + 1)
  const wild = clean.findIndex((part) => hasWildcard(part))
  if (wild < 0) {
    const path = clean.map((part) => part.replaceAll(/\\(.)/gs, '$1')).join('/')
    const found = resolveInTree(tree, path)
    if (found.stats === undefined) throw notFound(pattern, whyIgnored(found.path) ?? whyIgnored(path))
    return [{ tree, path: found.path, name: nameOf(path) }]
  }
  const prefix = resolveInTree(tree, clean.slice(0, wild).join('/'))
  if (prefix.stats === undefined) throw notFound(pattern, whyIgnored(prefix.path))
  const found = glob(tree, [escape(prefix.path), ...clean.slice(wild)].join('/'), { doubleStar: parents })
  return found.map((path) => ({
    tree,
    path: resolveInTree(tree, path).path,
    name: nameOf(path),
  }))
}

/** How many components stand before `/./`; a `./` at the beginning is none. */
function pivotOf(pattern: string): number {
  const relative = pattern.replace(/^(\.?\/)+/, '')
  const at = relative.indexOf('/./')
  return at < 0
    ? 0
    : relative
        .slice(0, at)
        .split('/')
        .filter((part) => part !== '' && part !== '.').length
}

/** `..` of the root is the root: nothing outside of the context can be named. */
function withoutParents(parts: readonly string[]): string[] {
  const done: string[] = []
  for (const part of parts) {
    if (part === '..') done.pop()
    else done.push(part)
  }
  return done
}

function escape(path: string): string {
  return path.replaceAll(/[\\*?[]/g, String.raw`\$&`)
}

function notFound(pattern: string, ignored: string | undefined): TbuildError {
  const text = show(bytesOf(pattern))
  return new TbuildError('COPY_NOT_FOUND', `${JSON.stringify(text)} was not found`, {
    hint:
      ignored === undefined
        ? 'paths are relative to the build context; .dockerignore may leave files out'
        : `it is there, but left out by ${ignored}`,
  })
}
