import { eraseCredentials, storeCredentials } from './credentials.ts'
import type { Credentials } from './credentials.ts'
import type { RegistryOptions } from './options.ts'
import { createSession } from './session.ts'
import { discard } from './transport.ts'

/** Proves credentials against `/v2/` and keeps them only if they hold. Throws `REGISTRY_UNAUTHORIZED`, `REGISTRY_*`, `CONFIG_INVALID`. */
export async function login(
  registry: string,
  credentials: Credentials,
  options: RegistryOptions = {},
): Promise<void> {
  await using session = createSession(registry, {
    ...options,
    credentials,
    loadCredentials: async () => credentials,
  })
  await discard(
    await session.request({ method: 'GET', asked: 'ping', path: '/v2/', scopes: [], expect: [200] }),
  )
  await storeCredentials(registry, credentials)
}

/** Forgets a registry's credentials. False if there were none. */
export async function logout(registry: string): Promise<boolean> {
  return eraseCredentials(registry)
}
