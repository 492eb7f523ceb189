/** The build context as a tree from which what .dockerignore names is missing. */
import { closeSync, constants, openSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { openTree, show, type Stat, type StatCache, type Tree, type TreeEntry } from '../../cas/index.ts'
import {
  createIgnoreMatcher,
  parseIgnoreFile,
  type IgnoreMatcher,
  type IgnorePattern,
} from '../../dockerfile-parser/index.ts'

export interface BuildContext extends Disposable {
  readonly tree: Tree
  /** Why a path is missing, when it is because of the ignore file: `.dockerignore:3: *.log`. */
  whyIgnored(path: string): string | undefined
}

/**
 * `readIgnore`: its ignore file, if it has one; `names`: what is known of its directories. Throws `CONTEXT_INVALID`, and `DockerfileError` for a malformed
 * ignore file.
 */
export function openContext(
  directory: string,
  readIgnore: () => IgnoreFile | undefined,
  names?: StatCache,
): BuildContext {
  let fd: number
  try {
    fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    throw new TbuildError(
      'CONTEXT_INVALID',
      `The build context ${JSON.stringify(directory)} is not a directory.`,
      {
        hint: 'Name the directory that holds what is to be copied, e.g. "tbuild -t app ."',
        cause: error,
      },
    )
  }
  const ignore = readIgnore()
  const files = openTree(fd, names)
  const tree = remembered(ignore === undefined ? files : withoutIgnored(files, ignore.matcher))
  return {
    tree,
    whyIgnored: (path) => {
      const pattern = ignore?.matcher.why(show(path))
      return pattern && `${basename(ignore?.path ?? '')}:${pattern.line}: ${pattern.pattern}`
    },
    [Symbol.dispose]: () => {
      files[Symbol.dispose]()
      closeSync(fd)
    },
  }
}

export interface IgnoreFile {
  readonly path: string
  readonly patterns: readonly IgnorePattern[]
  readonly matcher: IgnoreMatcher
}

/**
 * `Dockerfile.dockerignore` wins over `.dockerignore`; a context that is not the Dockerfile's has only the latter. Throws `IGNORE_FILE_INVALID`,
 * and `DockerfileError` for a malformed one.
 */
export function readIgnoreFile(directory: string, dockerfile?: string): IgnoreFile | undefined {
  const own = dockerfile === undefined ? [] : [`${dockerfile}.dockerignore`]
  for (const path of [...own, `${directory}/.dockerignore`]) {
    const stats = statSync(path, { throwIfNoEntry: false })
    // A fifo would be waited for; and what it says is not to be left out without a word.
    if (stats !== undefined && !stats.isFile())
      throw new TbuildError('IGNORE_FILE_INVALID', `${JSON.stringify(path)} is not a regular file.`)
    let text: Buffer
    try {
      text = readFileSync(path)
    } catch {
      continue
    }
    const patterns = parseIgnoreFile(text)
    return patterns.length === 0 ? undefined : { path, patterns, matcher: createIgnoreMatcher(patterns) }
  }
  return undefined
}

function withoutIgnored(tree: Tree, matcher: IgnoreMatcher): Tree {
  const isIgnored = (path: string): boolean => {
    if (path === '') return false
    const text = show(path)
    // A directory that is ignored, but below which something is not, is there after all.
    return matcher.ignores(text) && !(matcher.mayReinclude(text) && holdsIncluded(path))
  }
  const holdsIncluded = (path: string): boolean => {
    if (tree.lstat(path)?.isDirectory() !== true) return false
    return tree.list(path).some((name) => !isIgnored(`${path}/${name}`))
  }
  return {
    ...tree,
    lstat: (path) => (isIgnored(path) ? undefined : tree.lstat(path)),
    list: (path) => tree.list(path).filter((name) => !isIgnored(join(path, name))),
    entries: (path) => tree.entries(path).filter(({ name }) => !isIgnored(join(path, name))),
  }
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}/${name}`
}

/** What a COPY has looked at, for its key, is what its layer has, and what the next COPY sees. */
function remembered(tree: Tree): Tree {
  const lists = new Map<string, readonly string[]>()
  const entries = new Map<string, readonly TreeEntry[]>()
  const stats = new Map<string, Stat>()
  const links = new Map<string, string>()
  const xattrs = new Map<string, ReadonlyMap<string, Buffer>>()
  return {
    ...tree,
    lstat: (path) => {
      const seen = stats.get(path) ?? tree.lstat(path)
      if (seen !== undefined) stats.set(path, seen)
      return seen
    },
    list: (path) => kept(lists, path, () => tree.list(path)),
    entries: (path) => kept(entries, path, () => tree.entries(path)),
    readlink: (path) => kept(links, path, () => tree.readlink(path)),
    xattrs: (file) =>
      typeof file === 'number' ? tree.xattrs(file) : kept(xattrs, file, () => tree.xattrs(file)),
  }
}

function kept<T>(all: Map<string, T>, path: string, look: () => T): T {
  const seen = all.get(path) ?? look()
  all.set(path, seen)
  return seen
}
