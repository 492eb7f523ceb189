import { createHash } from 'node:crypto'
import type { Descriptor } from '../cas/index.ts'
import { TbuildError } from '../errors.ts'
import { isTransient } from './connection-errors.ts'
import { checkDescriptor, hasBlob } from './download.ts'
import { RegistryError, errorParts, redactUrl } from './errors.ts'
import type { Session } from './session.ts'
import { discard, header, resolveLocation } from './transport.ts'
import type { Answer } from './transport.ts'

/** The bytes of the blob from `offset` on. May be called again: after a lost connection, and for each chunk. */
export type OpenBlob = (offset: number) => AsyncIterable<Uint8Array>

export interface UploadOptions {
  /** Repository of the same registry that may hold the blob already. */
  readonly mountFrom?: string
  /** Sends in requests of this many bytes; by default in one piece. */
  readonly chunkBytes?: number
  /** Told how many bytes of the blob are sent; goes back when something is sent again. */
  readonly onProgress?: (sent: number) => void
}

/** Fits the request limits seen in front of registries (nginx's is often 100 MB). */
const DEFAULT_CHUNK = 16 * 1024 * 1024
/** Statuses by which a registry, or a proxy before it, refuses an upload in one piece. */
const MONOLITHIC_REFUSED: ReadonlySet<number> = new Set([405, 411, 413, 415, 501])

interface Upload {
  readonly session: Session
  readonly repository: string
  readonly scopes: readonly string[]
  readonly descriptor: Descriptor
  readonly open: OpenBlob
  readonly onProgress: (sent: number) => void
}

/**
 * Brings a blob into a repository: nothing if it is there, a mount if it is next door, else an upload in one piece or in chunks
 * (distribution-spec, "Pushing blobs"). Throws `DIGEST_MISMATCH` and `SIZE_MISMATCH` when `open` gives other bytes than
 * the descriptor says (nothing is committed then), and `REGISTRY_*`.
 */
export async function putBlob(
  session: Session,
  repository: string,
  descriptor: Descriptor,
  open: OpenBlob,
  how: UploadOptions,
): Promise<'exists' | 'mounted' | 'uploaded'> {
  checkDescriptor(descriptor)
  const scopes = [`repository:${repository}:pull,push`]
  if ((await hasBlob(session, repository, descriptor.digest, 'pull,push')) !== undefined) return 'exists'
  const upload: Upload = {
    session,
    repository,
    scopes,
    descriptor,
    open,
    onProgress: how.onProgress ?? (() => {}),
  }
  let started = how.mountFrom === undefined ? undefined : await mount(upload, how.mountFrom)
  if (started === 'mounted') return 'mounted'
  let chunkBytes = how.chunkBytes
  for (let attempt = 0; ; attempt++) {
    started ??= await start(upload)
    try {
      if (chunkBytes === undefined) await sendWhole(upload, started)
      else await sendChunks(upload, started, chunkBytes)
      return 'uploaded'
    } catch (error) {
      session.transport.signal?.throwIfAborted()
      const refused =
        chunkBytes === undefined &&
        error instanceof RegistryError &&
        MONOLITHIC_REFUSED.has(error.status ?? 0)
      if (!refused && (attempt >= session.transport.retries || !mayRepeat(error))) throw error
      if (!refused) await session.transport.pause(attempt, started.url, errorParts(error).message)
      // A proxy that cuts large bodies off mid-way looks like a lost connection: small pieces from the second time on.
      if (refused || attempt >= 1) chunkBytes ??= DEFAULT_CHUNK
      started = undefined
    }
  }
}

/** An upload session: where the next request goes. The registry may move it with each answer. */
interface Started {
  readonly url: URL
  /** OCI-Chunk-Min-Length. */
  readonly minChunk: number
}

async function start(upload: Upload): Promise<Started> {
  const answer = await upload.session.request({
    method: 'POST',
    asked: 'upload',
    path: `/v2/${upload.repository}/blobs/uploads/`,
    scopes: upload.scopes,
    expect: [202],
  })
  return opened(upload, answer)
}

/** Asks for the blob of another repository; a registry that will not mount opens an upload session instead. */
async function mount(upload: Upload, from: string): Promise<Started | 'mounted' | undefined> {
  if (from === upload.repository) return undefined
  const query = new URLSearchParams({ mount: upload.descriptor.digest, from })
  const answer = await upload.session
    .request({
      method: 'POST',
      asked: 'upload',
      path: `/v2/${upload.repository}/blobs/uploads/?${query.toString()}`,
      scopes: [...upload.scopes, `repository:${from}:pull`],
      expect: [201, 202, 400, 403, 404, 405],
    })
    // We may push here but not read there: then the blob is sent as any other.
    .catch((error: unknown) => {
      if (error instanceof RegistryError && error.code === 'REGISTRY_UNAUTHORIZED') return undefined
      throw error
    })
  if (answer?.status === 202) return opened(upload, answer)
  if (answer !== undefined) await discard(answer)
  return answer?.status === 201 ? 'mounted' : undefined
}

async function opened(upload: Upload, answer: Answer): Promise<Started> {
  await discard(answer)
  return { url: location(upload, answer), minChunk: Number(header(answer, 'oci-chunk-min-length') ?? 0) || 0 }
}

/** May be relative, may be on another host (which then gets no Authorization), may not fall back to plain http. */
function location(upload: Upload, answer: Answer, otherwise?: URL): URL {
  const value = header(answer, 'location')
  if (value !== undefined) return resolveLocation(value, answer.url, upload.session.insecure)
  if (otherwise !== undefined) return otherwise
  throw new RegistryError(
    'REGISTRY_ERROR',
    `${redactUrl(answer.url)} opened an upload but does not say where`,
  )
}

async function sendWhole(upload: Upload, { url }: Started): Promise<void> {
  const { size } = upload.descriptor
  await commit(upload, url, {
    headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
    body: () => verified(upload),
  })
}

async function commit(
  upload: Upload,
  url: URL,
  sent: { headers: Record<string, string>; body: Uint8Array | (() => AsyncIterable<Uint8Array>) },
): Promise<void> {
  const { digest } = upload.descriptor
  const target = new URL(url)
  target.searchParams.set('digest', digest)
  const answer = await upload.session.request({
    method: 'PUT',
    asked: 'upload',
    url: target,
    scopes: upload.scopes,
    ...sent,
    // The session's state after a failure is unknown: a repetition starts a new one.
    retry: false,
    expect: [201],
  })
  await discard(answer)
  const stored = header(answer, 'docker-content-digest')
  if (stored !== undefined && stored.startsWith('sha256:') && stored !== digest) {
    throw new RegistryError('DIGEST_MISMATCH', `${upload.session.host} stored ${digest} as ${stored}`)
  }
}

/** The whole blob, its last piece held back until size and digest are known to be right: a wrong blob is never complete. */
async function* verified(upload: Upload): AsyncGenerator<Uint8Array, void, undefined> {
  const { digest, size } = upload.descriptor
  const hash = createHash('sha256')
  let sent = 0
  let held: Uint8Array | undefined
  for await (const chunk of upload.open(0)) {
    if (held !== undefined) {
      yield held
      upload.onProgress(sent)
    }
    hash.update(chunk)
    sent += chunk.length
    if (sent > size) throw wrongSource('SIZE_MISMATCH', upload, `has more than ${size} bytes`)
    held = chunk
  }
  if (sent !== size) throw wrongSource('SIZE_MISMATCH', upload, `has ${sent} bytes, not ${size}`)
  const found = `sha256:${hash.digest('hex')}`
  if (found !== digest) throw wrongSource('DIGEST_MISMATCH', upload, `has the digest ${found}`)
  if (held !== undefined) yield held
  upload.onProgress(sent)
}

function wrongSource(code: string, upload: Upload, why: string): TbuildError {
  return new TbuildError(code, `the stored blob ${upload.descriptor.digest} ${why}`, {
    hint: 'the local store is damaged',
  })
}

/** One PATCH for each chunk. The registry's Range says how much it has; what it has not is sent again from there. */
async function sendChunks(upload: Upload, started: Started, chunkBytes: number): Promise<void> {
  const { size } = upload.descriptor
  const step = Math.max(1, chunkBytes, started.minChunk)
  let { url } = started
  let offset = 0
  let stuck = 0
  while (offset < size) {
    const length = Math.min(step, size - offset)
    const answer = await sendChunk(upload, url, offset, length)
    await discard(answer)
    url = location(upload, answer, url)
    const end = rangeEnd(answer, offset + length)
    if (end < 0 || end > offset + length) throw outOfStep(upload, url)
    // It may take less than was sent, but not go back and forth for ever.
    stuck = end > offset ? 0 : stuck + 1
    if (stuck > 3) throw outOfStep(upload, url)
    offset = end
    upload.onProgress(offset)
  }
  await commit(upload, url, { headers: { 'content-length': '0' }, body: new Uint8Array() })
}

async function sendChunk(upload: Upload, url: URL, offset: number, length: number): Promise<Answer> {
  const { session: to, scopes } = upload
  try {
    return await to.request({
      method: 'PATCH',
      asked: 'upload',
      url,
      scopes,
      headers: {
        'content-type': 'application/octet-stream',
        'content-length': String(length),
        // No unit before it: distribution-spec differs from HTTP here.
        'content-range': `${offset}-${offset + length - 1}`,
      },
      body: () => take(upload, offset, length),
      retry: false,
      expect: [202],
    })
  } catch (error) {
    to.transport.signal?.throwIfAborted()
    const lost = isTransient(error, true) || (error instanceof RegistryError && error.status === 416)
    if (!lost) throw error
    // The registry says how far it came; if it does not know either, the error goes up and a new session starts.
    const state = await to
      .request({ method: 'GET', asked: 'upload', url, scopes, expect: [204] })
      .catch(() => undefined)
    if (state === undefined) throw error
    return state
  }
}

async function* take(
  upload: Upload,
  offset: number,
  length: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let left = length
  for await (const chunk of upload.open(offset)) {
    const part = chunk.length > left ? chunk.subarray(0, left) : chunk
    left -= part.length
    yield part
    if (left === 0) return
  }
  throw wrongSource('SIZE_MISMATCH', upload, `ends ${left} bytes early`)
}

/** The `N` of `Range: 0-N` as a count of bytes. Registries say `0-0` for nothing as well as for one byte. */
function rangeEnd(answer: Answer, expected: number): number {
  const match = /^(?:bytes=)?0-(\d+)$/.exec(header(answer, 'range') ?? '')
  if (match === null) return answer.status === 202 ? expected : 0
  const last = Number(match[1])
  return last === 0 && expected !== 1 ? 0 : last + 1
}

function outOfStep(upload: Upload, url: URL): RegistryError {
  return new RegistryError(
    'REGISTRY_ERROR',
    `${redactUrl(url)} does not say how much of ${upload.descriptor.digest} it has`,
  )
}

/** A new upload session may cure a lost connection, a busy server and a session that was forgotten. */
function mayRepeat(error: unknown): boolean {
  if (isTransient(error, true)) return true
  const status = error instanceof RegistryError ? (error.status ?? 0) : 0
  return (
    status === 404 || status === 408 || status === 416 || status === 429 || (status >= 500 && status !== 501)
  )
}
