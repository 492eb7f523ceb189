/** The directories of one build that files are copied from: the build context, and those of `--build-context`. */
import { resolve } from 'node:path'
import type { StatCache, Store } from '../../cas/index.ts'
import type { ContextDirectory } from '../contexts.ts'
import type { BuildRequest } from '../types.ts'
import { openContext, readIgnoreFile, type BuildContext } from './context.ts'

export interface Contexts extends Disposable {
  /** Each is opened once, and stays open. */
  open(named?: ContextDirectory): BuildContext
  /** What was seen is saved when all is closed. `undefined` where it would be of no use to a later build. */
  statCache(named?: ContextDirectory): StatCache | undefined
}

export function openContexts(request: BuildRequest, store: Store): Contexts {
  const opened = new Map<ContextDirectory | undefined, BuildContext>()
  const caches = new Map<ContextDirectory | undefined, StatCache>()
  const statCache = (named?: ContextDirectory): StatCache | undefined => {
    if (request.noStatCache === true || named?.isFetched === true) return undefined
    let cache = caches.get(named)
    if (cache === undefined) {
      cache = store.statCache(resolve(named?.directory ?? request.context))
      caches.set(named, cache)
    }
    return cache
  }
  return {
    open(named) {
      let context = opened.get(named)
      if (context === undefined) {
        const directory = named?.directory ?? request.context
        context = openContext(directory, () => ignoreFile(request, named), statCache(named))
        opened.set(named, context)
      }
      return context
    },
    statCache,
    [Symbol.dispose]() {
      for (const cache of caches.values()) cache.save()
      for (const context of opened.values()) context[Symbol.dispose]()
    },
  }
}

/** Of a named directory its own; a repository or a file from an address has none, as in BuildKit. */
function ignoreFile(request: BuildRequest, named: ContextDirectory | undefined) {
  if (named === undefined) return readIgnoreFile(request.context, request.dockerfile)
  return named.isFetched ? undefined : readIgnoreFile(named.directory)
}
