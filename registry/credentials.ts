import { runHelper } from './credential-helper.ts'
import { readConfig, section, writeConfig } from './docker-config.ts'
import type { DockerConfig } from './docker-config.ts'
import { isRecord } from './errors.ts'

/** Who we are to a registry: a name and its password (or access token), or an identity token from an earlier login. */
export type Credentials =
  | { readonly username: string; readonly password: string }
  | { readonly identityToken: string }

const HUB = 'https://index.docker.io/v1/'
/** Docker's sign, in place of a user name, that the secret is an identity token. */
const TOKEN_USER = '<token>'

/**
 * What docker's configuration holds for a registry (`host[:port]`): its own helper (`credHelpers`), the store for all
 * (`credsStore`), then `auths`. Throws `CONFIG_INVALID`, `CREDENTIAL_HELPER_FAILED`.
 */
export async function loadCredentials(registry: string): Promise<Credentials | undefined> {
  const config = await readConfig()
  const helper = helperFor(config, registry)
  if (helper !== undefined) {
    const found = await fromHelper(helper, configKey(registry))
    if (found !== undefined) return found
  }
  return fromAuths(config, registry)
}

/** Keeps credentials where `loadCredentials` looks first. The plain file holds them in base64, as docker's does. */
export async function storeCredentials(registry: string, credentials: Credentials): Promise<void> {
  const config = await readConfig()
  const key = configKey(registry)
  const helper = helperFor(config, registry)
  const auths = { ...section(config, 'auths') }
  for (const old of matchingKeys(auths, registry)) delete auths[old]
  if (helper === undefined) {
    auths[key] =
      'identityToken' in credentials
        ? { auth: encode(TOKEN_USER, ''), identitytoken: credentials.identityToken }
        : { auth: encode(credentials.username, credentials.password) }
  } else {
    const [Username, Secret] =
      'identityToken' in credentials
        ? [TOKEN_USER, credentials.identityToken]
        : [credentials.username, credentials.password]
    await runHelper(helper, 'store', JSON.stringify({ ServerURL: key, Username, Secret }))
    // Docker leaves an empty entry behind: other tools list it as "logged in".
    auths[key] = {}
  }
  await writeConfig({ ...config, auths })
}

/** Forgets them. True if there was something to forget. */
export async function eraseCredentials(registry: string): Promise<boolean> {
  const config = await readConfig()
  const helper = helperFor(config, registry)
  const auths = { ...section(config, 'auths') }
  const keys = matchingKeys(auths, registry)
  for (const key of keys) delete auths[key]
  const key = configKey(registry)
  const held = helper === undefined ? undefined : await fromHelper(helper, key)
  if (helper !== undefined && held !== undefined) await runHelper(helper, 'erase', key)
  if (keys.length > 0) await writeConfig({ ...config, auths })
  return keys.length > 0 || held !== undefined
}

/** Docker Hub is filed under the address of its first API. */
function configKey(registry: string): string {
  return hostOf(registry) === 'docker.io' ? HUB : registry
}

/** `https://host/v1/` and the like say `host`; a key with another path is for a part of a registry, and not used. */
function hostOf(key: string): string | undefined {
  const match = /^(?:https?:\/\/)?([^/]+)(?:\/(?:v[12]\/?)?)?$/.exec(key)
  const host = match?.[1]
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host
}

function matchingKeys(record: Readonly<Record<string, unknown>>, registry: string): string[] {
  const host = hostOf(registry)
  const exact = configKey(registry)
  // The exact key first: it is what `login` writes.
  return Object.keys(record)
    .filter((key) => hostOf(key) === host)
    .toSorted((a, b) => Number(b === exact) - Number(a === exact))
}

function helperFor(config: DockerConfig, registry: string): string | undefined {
  const helpers = section(config, 'credHelpers')
  const [key] = matchingKeys(helpers, registry)
  const name = key === undefined ? config['credsStore'] : helpers[key]
  return typeof name === 'string' && name !== '' ? name : undefined
}

async function fromHelper(helper: string, key: string): Promise<Credentials | undefined> {
  const output = await runHelper(helper, 'get', key)
  if (output === undefined) return undefined
  const { Username: username, Secret: secret } = output
  if (typeof username !== 'string' || typeof secret !== 'string' || secret === '') return undefined
  return username === TOKEN_USER ? { identityToken: secret } : { username, password: secret }
}

function fromAuths(config: DockerConfig, registry: string): Credentials | undefined {
  const auths = section(config, 'auths')
  for (const key of matchingKeys(auths, registry)) {
    const entry = auths[key]
    if (!isRecord(entry)) continue
    if (typeof entry['identitytoken'] === 'string' && entry['identitytoken'] !== '') {
      return { identityToken: entry['identitytoken'] }
    }
    const { username, password } = entry
    if (typeof username === 'string' && typeof password === 'string' && username !== '')
      return { username, password }
    const decoded = typeof entry['auth'] === 'string' ? decode(entry['auth']) : undefined
    if (decoded !== undefined) return decoded
  }
  return undefined
}

function encode(username: string, password: string): string {
  return Buffer.from(`${username}:${password}`).toString('base64')
}

function decode(auth: string): Credentials | undefined {
  const text = Buffer.from(auth, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon <= 0) return undefined
  // Old docker versions padded the password with NUL.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') }
}
