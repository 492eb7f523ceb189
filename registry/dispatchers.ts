import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Dispatcher } from 'undici'
import { RegistryError, errorParts, redactUrl } from './errors.ts'
import { proxyFor } from './hosts.ts'

export interface DispatcherOptions {
  /** Hostname (no port) whose certificate is not verified. */
  readonly unverified?: string | undefined
  /** PEM, trusted besides the usual roots. */
  readonly ca?: string | undefined
  /** Default `/etc/docker/certs.d`. */
  readonly certsDirectory?: string | undefined
  /** Milliseconds. */
  readonly connectTimeout: number
  readonly headersTimeout: number
  readonly bodyTimeout: number
}

/** One undici agent for each origin: certificates and proxy belong to an origin, and must not serve another. */
export interface Dispatchers extends AsyncDisposable {
  forOrigin(url: URL): Promise<Dispatcher>
}

/** A hostile registry may redirect to a new origin each time; the oldest agents go first. */
const MAX_ORIGINS = 32
/** Node trusts its own list of roots only; Debian's holds what update-ca-certificates added. 6 ms to read, so https only. */
const SYSTEM_ROOTS = '/etc/ssl/certs/ca-certificates.crt'

export function createDispatchers(options: DispatcherOptions): Dispatchers {
  const known = new Map<string, Promise<Dispatcher>>()
  const drop = async (origin: string): Promise<void> => {
    const agent = known.get(origin)
    known.delete(origin)
    await agent?.then((one) => one.destroy()).catch(() => {})
  }
  return {
    async forOrigin(url) {
      let agent = known.get(url.origin)
      if (agent === undefined) {
        const oldest = [...known.keys()][1]
        if (known.size >= MAX_ORIGINS && oldest !== undefined) await drop(oldest)
        agent = create(url, options)
        known.set(url.origin, agent)
      }
      return agent
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...known.keys()].map(drop))
    },
  }
}

async function create(url: URL, options: DispatcherOptions): Promise<Dispatcher> {
  const { Agent, ProxyAgent } = await import('./packages.ts')
  const tls = url.protocol === 'https:' ? await tlsOptions(url, options) : {}
  const common = {
    connectTimeout: options.connectTimeout,
    headersTimeout: options.headersTimeout,
    bodyTimeout: options.bodyTimeout,
    allowH2: false,
    maxHeaderSize: 64 * 1024,
  }
  const proxy = proxyFor(url, process.env)
  if (proxy === undefined)
    return new Agent({ ...common, connect: { ...tls, timeout: options.connectTimeout } })
  if (!URL.canParse(proxy) || !/^https?:/.test(proxy)) {
    throw new RegistryError(
      'REGISTRY_UNREACHABLE',
      `the proxy set for ${redactUrl(url)} is not an http address`,
      {
        hint: 'check HTTPS_PROXY and HTTP_PROXY',
      },
    )
  }
  return new ProxyAgent({ ...common, uri: proxy, requestTls: { ...tls, timeout: options.connectTimeout } })
}

interface TlsOptions {
  readonly ca?: string[]
  readonly cert?: string
  readonly key?: string
  readonly rejectUnauthorized?: boolean
}

async function tlsOptions(url: URL, options: DispatcherOptions): Promise<TlsOptions> {
  const found = await hostCertificates(url, options.certsDirectory ?? '/etc/docker/certs.d')
  const extra = [...found.ca, ...(options.ca === undefined ? [] : [options.ca])]
  const { getCACertificates } = await import('node:tls')
  const system = await readFile(SYSTEM_ROOTS, 'utf8').catch(() => undefined)
  // `ca` replaces the defaults, NODE_EXTRA_CA_CERTS among them, so they are named again.
  const ca = [...getCACertificates('default'), ...(system === undefined ? [] : [system]), ...extra]
  return {
    ca,
    ...(found.cert !== undefined && found.key !== undefined ? { cert: found.cert, key: found.key } : {}),
    ...(options.unverified === url.hostname ? { rejectUnauthorized: false } : {}),
  }
}

interface HostCertificates {
  readonly ca: readonly string[]
  readonly cert?: string
  readonly key?: string
}

/** Docker's layout: `certs.d/HOST[:PORT]/` with `*.crt` (roots) and `*.cert` beside `*.key` (client). */
async function hostCertificates(url: URL, directory: string): Promise<HostCertificates> {
  const names = [url.host, ...(url.port === '' ? [`${url.host}:443`] : [])]
  if (url.hostname === 'registry-1.docker.io') names.push('docker.io')
  const ca: string[] = []
  let pair: { cert: string; key: string } | undefined
  for (const name of names) {
    const folder = join(directory, name)
    const files = (await readdir(folder).catch(() => [] as string[])).toSorted()
    for (const file of files) {
      if (file.endsWith('.crt')) ca.push(await read(join(folder, file)))
      const key = file.replace(/\.cert$/, '.key')
      if (pair !== undefined || key === file) continue
      if (!files.includes(key)) throw unreadable(join(folder, file), `its key ${key} is missing`)
      pair = { cert: await read(join(folder, file)), key: await read(join(folder, key)) }
    }
  }
  return { ca, ...pair }
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw unreadable(file, errorParts(error).message)
  }
}

function unreadable(file: string, why: string): RegistryError {
  return new RegistryError('REGISTRY_CERTIFICATE', `cannot use the certificate ${file}: ${why}`)
}
