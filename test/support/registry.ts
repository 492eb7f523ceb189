import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Debian's docker-registry on a free port of loopback, for tests. It dies with the test process, however that ends. */

const run = promisify(execFile)

export interface RealRegistryOptions {
  /** Asks for this name and password (htpasswd, bcrypt). */
  readonly user?: { readonly name: string; readonly password: string }
  /** Speaks TLS with a certificate of a CA made for it. */
  readonly tls?: boolean
  /** More lines of its configuration, YAML at top level. */
  readonly extraConfig?: string
}

export interface RealRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string
  readonly port: number
  /** PEM file of the CA, and its text, with `tls`. */
  readonly caFile?: string
  readonly ca?: string
  /** Where its blobs are. */
  readonly storage: string
}

/** Starts one; dispose it to stop it and remove what it stored. */
export async function startRegistry(options: RealRegistryOptions = {}): Promise<RealRegistry> {
  await need('docker-registry', 'docker-registry')
  const directory = await mkdtemp(join(tmpdir(), 'tbuild-registry-'))
  const storage = join(directory, 'storage')
  try {
    const tls = options.tls === true ? await makeCertificates(directory) : undefined
    const htpasswd = options.user === undefined ? undefined : await makeHtpasswd(directory, options.user)
    const config = join(directory, 'config.yml')
    await writeFile(config, configuration(storage, tls, htpasswd) + (options.extraConfig ?? ''))
    const { child, port } = await start(config)
    return {
      host: `127.0.0.1:${port}`,
      port,
      storage,
      ...(tls === undefined ? {} : { caFile: tls.ca, ca: await readFile(tls.ca, 'utf8') }),
      async [Symbol.asyncDispose]() {
        await stop(child)
        await rm(directory, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw error
  }
}

async function start(config: string): Promise<{ child: ChildProcess; port: number }> {
  // setpriv (util-linux): the kernel kills the registry when its parent goes, even by SIGKILL.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'docker-registry', 'serve', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', OTEL_TRACES_EXPORTER: 'none' },
  })
  const said: string[] = []
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const lines = createInterface({ input: child.stderr })
  lines.on('line', (line) => {
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(line)?.[1]
    if (port !== undefined) resolve(Number(port))
    else if (said.length < 20) said.push(line)
  })
  child.on('error', reject)
  child.on('exit', (code) =>
    reject(new Error(`docker-registry ended with ${String(code)}:\n${said.join('\n')}`)),
  )
  try {
    return { child, port: await promise }
  } catch (error) {
    await stop(child)
    throw error
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const { promise, resolve } = Promise.withResolvers<void>()
  child.on('exit', () => resolve())
  child.kill('SIGKILL')
  await promise
}

function configuration(storage: string, tls: Certificates | undefined, htpasswd: string | undefined): string {
  const lines = [
    'version: 0.1',
    'log: { level: info, accesslog: { disabled: true } }',
    'storage:',
    `  filesystem: { rootdirectory: ${storage} }`,
    '  delete: { enabled: true }',
    'http:',
    '  addr: 127.0.0.1:0',
    '  secret: not-a-secret',
  ]
  if (tls !== undefined) lines.push('  tls:', `    certificate: ${tls.cert}`, `    key: ${tls.key}`)
  if (htpasswd !== undefined) lines.push('auth:', `  htpasswd: { realm: test, path: ${htpasswd} }`)
  return `${lines.join('\n')}\n`
}

async function makeHtpasswd(directory: string, user: { name: string; password: string }): Promise<string> {
  await need('htpasswd', 'apache2-utils')
  const file = join(directory, 'htpasswd')
  const { stdout } = await run('htpasswd', ['-nbB', '-C', '4', user.name, user.password])
  await writeFile(file, stdout)
  return file
}

export interface Certificates {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** A CA and a certificate for localhost and 127.0.0.1, as PEM files in a directory. */
export async function makeCertificates(directory: string): Promise<Certificates> {
  await need('openssl', 'openssl')
  const path = (name: string): string => join(directory, name)
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1'
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  await run('openssl', [
    'req',
    '-x509',
    ...ec,
    '-subj',
    '/CN=test CA',
    '-keyout',
    path('ca.key'),
    '-out',
    path('ca.pem'),
  ])
  await run('openssl', [
    'req',
    ...ec.slice(0, 5),
    '-subj',
    '/CN=localhost',
    '-keyout',
    path('tls.key'),
    '-out',
    path('tls.csr'),
  ])
  await writeFile(path('ext'), `${names}\n`)
  const signing = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '2']
  const request = ['-req', '-in', path('tls.csr'), '-extfile', path('ext'), '-out', path('tls.pem')]
  await run('openssl', ['x509', ...request, ...signing])
  return { ca: path('ca.pem'), cert: path('tls.pem'), key: path('tls.key') }
}

async function need(program: string, debianPackage: string): Promise<void> {
  await run('sh', ['-c', 'command -v "$1"', 'sh', program]).catch(() => {
    throw new Error(`this test needs ${program}; install Debian's package: apt-get install ${debianPackage}`)
  })
}
