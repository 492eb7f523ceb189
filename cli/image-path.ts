/** Places in images as a person names them, `IMAGE:PATH`, and names of files as they may be shown. */
import { isUtf8 } from 'node:buffer'
import { bytesOf, show, type ImageView, type ViewNode } from '../cas/index.ts'
import { TbuildError } from '../errors.ts'
import { didYouMean } from './arguments/suggest.ts'

export interface ImagePath {
  readonly image: string
  /** A byte string beginning with `/`; `undefined` when there is none. */
  readonly path: string | undefined
}

/** No image's name contains `:/`, so the first one ends it: `app:/etc`, `host:5000/app:1:/etc`. */
export function parseImagePath(text: string): ImagePath {
  const at = text.indexOf(':/')
  return at < 0
    ? { image: text, path: undefined }
    : { image: text.slice(0, at), path: bytesOf(text.slice(at + 1)) }
}

/** A file's name (a byte string) for stdout: on a terminal nothing in it can steer it, elsewhere its very bytes. */
export function nameForOutput(name: string, isTerminal: boolean = process.stdout.isTTY): Buffer {
  return isTerminal ? Buffer.from(escapedName(name)) : Buffer.from(name, 'latin1')
}

/** Control characters and what is no UTF-8 as backslash escapes. */
export function escapedName(name: string): string {
  const bytes = Buffer.from(name, 'latin1')
  const text = isUtf8(bytes) ? show(name) : name.replaceAll(/[\x80-\xff]/g, octal)
  // eslint-disable-next-line no-control-regex -- they are what is looked for
  return text.replaceAll(/[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) =>
    character.charCodeAt(0) < 0x80
      ? octal(character)
      : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** For JSON: text, and the bytes where they are no text. */
export function jsonName(key: string, name: string): Record<string, string> {
  const bytes = Buffer.from(name, 'latin1')
  return { [key]: show(name), ...(isUtf8(bytes) ? {} : { [`${key}Base64`]: bytes.toString('base64') }) }
}

function octal(character: string): string {
  return `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`
}

/**
 * What is at a path of an image, as chroot(2) would have it; the path returned has no symlinks on it.
 * @throws TbuildError `PATH_NOT_FOUND`, `PATH_NOT_DIRECTORY`, `PATH_LOOP`
 */
export function lookupPath(
  view: ImageView,
  path: string,
  { image, followLast = true }: { readonly image: string; readonly followLast?: boolean },
): { readonly path: string; readonly node: ViewNode } {
  const { path: real, node } = view.resolve(path, followLast)
  if (node !== undefined && path.endsWith('/') && node.layer.tree.type(node.inode) !== 'directory')
    throw new TbuildError('PATH_NOT_DIRECTORY', `/${show(real)} is not a directory.`)
  if (node !== undefined) return { path: real, node }
  const isLink = followLast && view.resolve(path, false).node !== undefined
  throw new TbuildError('PATH_NOT_FOUND', `There is no ${JSON.stringify(show(path))} in ${image}.`, {
    hint: isLink
      ? 'it is a symbolic link that leads nowhere'
      : (nearPath(view, real) ?? `tbuild ls ${image}:/ shows what there is`),
  })
}

/** A hint from the names in the last directory that exists. `real` has no symlinks as far as it exists. */
function nearPath(view: ImageView, real: string): string | undefined {
  let node = view.root
  let above = ''
  for (const name of real.split('/')) {
    const next = view.lookup(node, name)
    if (next === undefined) {
      const names = view.children(node).map(([child]) => `${above}/${show(child)}`)
      return didYouMean(`${above}/${show(name)}`, names)
    }
    node = next
    above += `/${show(name)}`
  }
  return undefined
}
