/**
 * The OCI distribution client: references, credentials, and one repository in one registry with its manifests, tags and
 * blobs. Whatever a registry says is checked here: sizes, digests, redirects, tokens.
 *
 * Imports `cas` only (its types and media types). Cheap to import: everything that talks is loaded when it is called.
 */
import type { Credentials } from './credentials.ts'
import type { RegistryOptions } from './options.ts'
import type { Reference } from './reference.ts'
import type { Registry } from './registry.ts'

export {
  DEFAULT_REGISTRY,
  familiarReference,
  formatReference,
  parseReference,
  type Reference,
} from './reference.ts'
export { RegistryError, type Diagnostic } from './errors.ts'
export type { Credentials } from './credentials.ts'
export type { FetchedManifest } from './manifests.ts'
export type { RegistryOptions } from './options.ts'
export type { Registry } from './registry.ts'
export type { RetryEvent } from './transport.ts'
export type { OpenBlob, UploadOptions } from './upload.ts'

/** Opens a repository. Nothing is sent before the first call on it; then it authenticates as the registry asks. */
export async function openRegistry(ref: Reference, options: RegistryOptions = {}): Promise<Registry> {
  const { createRegistry } = await import('./registry.ts')
  return createRegistry(ref, options)
}

/**
 * Proves credentials against the registry (`host[:port]`) and keeps them in docker's configuration, or in the helper named
 * there. Throws `REGISTRY_UNAUTHORIZED`, `REGISTRY_*`, `CONFIG_INVALID`, `CREDENTIAL_HELPER_FAILED`.
 */
export async function login(
  registry: string,
  credentials: Credentials,
  options: RegistryOptions = {},
): Promise<void> {
  const module = await import('./login.ts')
  await module.login(registry, credentials, options)
}

/** Forgets a registry's credentials. False if there were none. */
export async function logout(registry: string): Promise<boolean> {
  const module = await import('./login.ts')
  return module.logout(registry)
}

/** What docker's configuration holds for a registry (`host[:port]`), helpers included. */
export async function loadCredentials(registry: string): Promise<Credentials | undefined> {
  const module = await import('./credentials.ts')
  return module.loadCredentials(registry)
}
