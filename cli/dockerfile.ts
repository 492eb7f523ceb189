/** The text of a Dockerfile that is not built: it is checked, or asked about. */
import { readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { loadContext } from '../builder/index.ts'
import { TbuildError } from '../errors.ts'
import { contextSource } from './contexts.ts'
import { openStoreToRead } from './store.ts'

export interface DockerfileText {
  readonly text: Buffer
  /** For messages. */
  readonly file: string
  /** `Dockerfile.dockerignore` wins over `.dockerignore`. */
  readonly ignore: { readonly name: string; readonly text: Buffer } | undefined
}

export interface DockerfileRequest {
  /** A directory; `-`: the Dockerfile is on standard input and there is no context; or an address, which is fetched into the store's work directory. */
  readonly context: string
  /** `-` is standard input. Default: the context's own. */
  readonly file: string | undefined
  /** `--store`. */
  readonly store: string | undefined
}

/** @throws TbuildError `CONTEXT_NOT_FOUND`, `CONTEXT_UNSUPPORTED`, `DOCKERFILE_NOT_FOUND`, and what fetching throws */
export async function readDockerfile({
  context,
  file,
  store: option,
}: DockerfileRequest): Promise<DockerfileText> {
  if (context === '-' || file === '-') {
    if (context !== '-') contextSource(context, undefined)
    const text = readFile('-')
    if (text.includes(0))
      throw new TbuildError('CONTEXT_UNSUPPORTED', 'What is on standard input is no Dockerfile.', {
        hint: 'of a tar, unpack it first and give its directory',
      })
    return { text, file: 'Dockerfile', ignore: context === '-' ? undefined : ignoreFile(context, '') }
  }
  const source = contextSource(context, file)
  // As it was given: it stands in every message.
  if (source.context.startsWith('/')) {
    const path = file ?? join(context, 'Dockerfile')
    return { text: readFile(path), file: path, ignore: ignoreFile(context, path) }
  }
  await using store = await openStoreToRead({ store: option })
  const fetched = await loadContext(source, store)
  const { dockerfile } = fetched
  return {
    text: readFile(dockerfile),
    file: basename(dockerfile),
    ignore: ignoreFile(fetched.context, dockerfile),
  }
}

function readFile(path: string): Buffer {
  try {
    return readFileSync(path === '-' ? 0 : path)
  } catch (error) {
    throw new TbuildError('DOCKERFILE_NOT_FOUND', `The Dockerfile ${JSON.stringify(path)} cannot be read.`, {
      hint: 'Name it with -f, or name the directory that holds it.',
      cause: error,
    })
  }
}

function ignoreFile(context: string, dockerfile: string): DockerfileText['ignore'] {
  const path = [`${dockerfile}.dockerignore`, join(context, '.dockerignore')].find(
    (one) => statSync(one, { throwIfNoEntry: false })?.isFile() === true,
  )
  return path === undefined ? undefined : { name: basename(path), text: readFileSync(path) }
}

/** Those without a value take the environment's, and are not given when it has none. */
export function filledArgs(buildArgs: ReadonlyMap<string, string | undefined>): ReadonlyMap<string, string> {
  const known = new Map<string, string>()
  for (const [name, given] of buildArgs) {
    const value = given ?? process.env[name]
    if (value !== undefined) known.set(name, value)
  }
  return known
}
