import type { Descriptor } from '../cas/index.ts'
import { loadCredentials } from './credentials.ts'
import { getBlob, hasBlob } from './download.ts'
import { createManifests } from './manifests.ts'
import type { Manifests } from './manifests.ts'
import type { RegistryOptions } from './options.ts'
import type { Reference } from './reference.ts'
import { createSession } from './session.ts'
import { putBlob } from './upload.ts'
import type { OpenBlob, UploadOptions } from './upload.ts'

/** One repository in one registry. Its calls may run at the same time. Dispose it: open connections keep Node alive. */
export interface Registry extends Manifests, AsyncDisposable {
  /** The size in bytes, or undefined. */
  hasBlob(digest: string): Promise<number | undefined>
  /**
   * The blob's bytes as stored, at most `descriptor.size` of them; size and sha256 are checked when it ends, so only an
   * ended stream may be believed. Lost connections are taken up by Range.
   */
  getBlob(descriptor: Descriptor): AsyncIterable<Uint8Array>
  putBlob(
    descriptor: Descriptor,
    open: OpenBlob,
    how?: UploadOptions,
  ): Promise<'exists' | 'mounted' | 'uploaded'>
}

export function createRegistry(ref: Reference, options: RegistryOptions): Registry {
  const session = createSession(ref.registry, {
    ...options,
    loadCredentials: () => loadCredentials(ref.registry),
  })
  const { repository } = ref
  return {
    ...createManifests(session, repository),
    hasBlob: (digest) => hasBlob(session, repository, digest, 'pull'),
    getBlob: (descriptor) => getBlob(session, repository, descriptor),
    putBlob: (descriptor, open, how = {}) => putBlob(session, repository, descriptor, open, how),
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  }
}
