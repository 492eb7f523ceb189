/** Build contexts that are no path of this machine. */
import type { Store } from '../../cas/index.ts'
import type { ContextRequest } from './context.ts'
import { parseGitSource } from './git.ts'

/**
 * The address of a context that is fetched: http(s), or of a git repository. `github.com/owner/name` is one too, as in docker; who may mean a
 * directory of that name looks for it first. `undefined` for anything else.
 */
export function contextAddress(text: string): string | undefined {
  if (/^https?:\/\/./.test(text) || parseGitSource(text) !== undefined) return text
  const [, path, fragment = ''] = /^(github\.com\/[^#]+?)(?:\.git)?\/?(#.*)?$/.exec(text) ?? []
  return path === undefined ? undefined : `https://${path}.git${fragment}`
}

/** `fetchContext`, loaded only when it is wanted: most builds need none of it. */
export async function loadContext<Request extends ContextRequest>(
  request: Request,
  store: Store,
): Promise<Request> {
  const { fetchContext } = await import('./context.ts')
  return fetchContext(request, store)
}
