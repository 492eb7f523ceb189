/** A file from an http(s) address, streamed into a file of ours. */
import { createHash } from 'node:crypto'
import { closeSync, openSync, utimesSync, writeSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'

export interface FetchedFile {
  /** `sha256:...` of what came. */
  readonly digest: string
  readonly etag: string | undefined
}

export interface FetchFileOptions {
  /** Answers with undefined when the server says that what has this ETag is unchanged. */
  readonly etag?: string | undefined
  readonly signal: AbortSignal
}

/** More is refused: an address that never ends must not fill the disk. */
const MAX_BYTES = 16 * 1024 ** 3

/**
 * GET `url` into a new file at `path`, mode 0600, its time that of Last-Modified or 1970, as in BuildKit. Redirects are followed, to http(s) only. Throws
 * `FETCH_FAILED`, `FETCH_TOO_LARGE`, or the signal's reason.
 */
export async function fetchFile(
  url: string,
  path: string,
  { etag, signal }: FetchFileOptions,
): Promise<FetchedFile | undefined> {
  const response = await request(url, etag, signal)
  if (response.status === 304 && etag !== undefined) {
    await response.body?.cancel()
    return undefined
  }
  if (!response.ok) {
    await response.body?.cancel()
    throw failed(url, `the server answered ${response.status} ${response.statusText}`.trimEnd())
  }
  const hash = createHash('sha256')
  const fd = openSync(path, 'wx', 0o600)
  try {
    let size = 0
    for await (const chunk of response.body ?? []) {
      size += chunk.length
      if (size > MAX_BYTES)
        throw new TbuildError('FETCH_TOO_LARGE', `${shown(url)} has more than ${MAX_BYTES / 1024 ** 3} GiB`)
      hash.update(chunk)
      for (let done = 0; done < chunk.length;) done += writeSync(fd, chunk, done)
    }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof TbuildError) throw error
    throw failed(url, `the connection broke: ${reasonOf(error)}`, error)
  } finally {
    closeSync(fd)
  }
  const modified = Date.parse(response.headers.get('last-modified') ?? '')
  const time = Number.isNaN(modified) ? 0 : modified / 1000
  utimesSync(path, time, time)
  return { digest: `sha256:${hash.digest('hex')}`, etag: response.headers.get('etag') ?? undefined }
}

/** Without the password that an address may hold. */
export function shown(url: string): string {
  return url.replace(/^([a-z+]+:\/\/)[^/@]*@/i, '$1')
}

async function request(url: string, etag: string | undefined, signal: AbortSignal): Promise<Response> {
  // As it is: fetch would undo a Content-Encoding, and a .tar.gz is wanted as a .tar.gz.
  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (etag !== undefined) headers['if-none-match'] = etag
  let address = url
  const { username, password } = URL.parse(url) ?? {}
  if (username) {
    // fetch refuses addresses with a name in them.
    const login = `${decodeURIComponent(username)}:${decodeURIComponent(password ?? '')}`
    headers['authorization'] = `Basic ${Buffer.from(login).toString('base64')}`
    address = shown(url)
  }
  try {
    return await fetch(address, { headers, signal })
  } catch (error) {
    signal.throwIfAborted()
    throw failed(url, reasonOf(error), error)
  }
}

function failed(url: string, why: string, cause?: unknown): TbuildError {
  return new TbuildError('FETCH_FAILED', `${shown(url)} cannot be fetched: ${why}`, {
    hint: 'this machine fetches it, before the step; see that it can reach the address',
    cause,
  })
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.cause.message !== '' ? error.cause.message : error.message
}
