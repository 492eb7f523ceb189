import type { RegistryOptions } from '../registry/index.ts'
import { say } from './output.ts'
import { packageVersion } from './version.ts'

/** How commands reach a registry: waits and retries are said aloud. */
export function registryOptions(
  options: { readonly insecure: boolean },
  signal: AbortSignal,
): RegistryOptions {
  return {
    insecure: options.insecure,
    signal,
    userAgent: `tbuild/${packageVersion()}`,
    onRetry: ({ reason, delay }) => say(`tbuild: ${reason}; trying again in ${(delay / 1000).toFixed(1)} s`),
  }
}
