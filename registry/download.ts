import { createHash } from 'node:crypto'
import type { Descriptor } from '../cas/index.ts'
import { isTransient, transportError } from './connection-errors.ts'
import { RegistryError, redactUrl } from './errors.ts'
import type { Session } from './session.ts'
import { discard, header } from './transport.ts'
import type { Answer } from './transport.ts'

/** Progress that earns fresh tries: a server that drops each connection after a few bytes must not keep us for ever. */
const PROGRESS = 1024 * 1024

/**
 * The bytes of a blob, as they are stored (never decompressed). At most `size` bytes come out. After the last of them their
 * count and sha256 are checked: only a stream that *ends* was the blob. A lost connection is taken up again by Range.
 * Throws `SIZE_MISMATCH`, `DIGEST_MISMATCH`, `BLOB_UNKNOWN`, `REGISTRY_*`.
 */
export async function* getBlob(
  session: Session,
  repository: string,
  descriptor: Descriptor,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { digest, size } = checkDescriptor(descriptor)
  const hash = createHash('sha256')
  let received = 0
  let attempt = 0
  let restartedAt = 0
  for (;;) {
    const answer = await request(session, repository, digest, received)
    try {
      for await (const chunk of wanted(answer, descriptor, received)) {
        received += chunk.length
        hash.update(chunk)
        yield chunk
      }
      break
    } catch (error) {
      session.transport.signal?.throwIfAborted()
      if (received - restartedAt >= PROGRESS) attempt = 0
      if (attempt >= session.transport.retries || !isTransient(error, true))
        throw transportError(error, answer.url)
      await session.transport.pause(attempt, answer.url, 'the connection was lost')
      attempt++
      restartedAt = received
    } finally {
      // Also when the reader has had enough: an open body would hold its connection.
      answer.body.destroy()
    }
  }
  if (received !== size) throw sizeMismatch(descriptor, received)
  const found = `sha256:${hash.digest('hex')}`
  if (found !== digest) {
    throw new RegistryError(
      'DIGEST_MISMATCH',
      `the blob ${digest} from ${session.host} has the digest ${found}`,
      {
        hint: 'the registry, or something on the way, has damaged or replaced it',
      },
    )
  }
}

/** The size of a blob, or undefined if the registry has none. Throws `REGISTRY_*`. */
export async function hasBlob(
  session: Session,
  repository: string,
  digest: string,
  actions: string,
): Promise<number | undefined> {
  checkDigestText(digest)
  const answer = await session.request({
    method: 'HEAD',
    asked: 'blob',
    path: `/v2/${repository}/blobs/${digest}`,
    scopes: [`repository:${repository}:${actions}`],
    expect: [200, 404],
  })
  await discard(answer)
  return answer.status === 200 ? Number(header(answer, 'content-length') ?? 0) : undefined
}

/** Descriptors come from manifests, that is from anybody. */
export function checkDescriptor(descriptor: Descriptor): Descriptor {
  checkDigestText(descriptor.digest)
  if (!Number.isSafeInteger(descriptor.size) || descriptor.size < 0) {
    throw new RegistryError(
      'MANIFEST_INVALID',
      `the blob ${descriptor.digest} is said to have ${String(descriptor.size)} bytes`,
    )
  }
  return descriptor
}

function checkDigestText(digest: string): void {
  if (!/^sha256:[a-f0-9]{64}$/.test(digest)) {
    throw new RegistryError(
      'MANIFEST_INVALID',
      `${JSON.stringify(digest).slice(0, 100)} is not a sha256 digest`,
    )
  }
}

async function request(session: Session, repository: string, digest: string, from: number): Promise<Answer> {
  return session.request({
    method: 'GET',
    asked: 'blob',
    path: `/v2/${repository}/blobs/${digest}`,
    scopes: [`repository:${repository}:pull`],
    headers: from === 0 ? {} : { range: `bytes=${from}-` },
    expect: from === 0 ? [200] : [200, 206],
  })
}

/** The part of an answer that is still missing, never more than the descriptor's size. */
async function* wanted(
  answer: Answer,
  descriptor: Descriptor,
  received: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const start = answer.status === 206 ? rangeStart(answer) : 0
  if (start > received) {
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${redactUrl(answer.url)} was asked for byte ${received} and answered from ${start}`,
    )
  }
  const length = header(answer, 'content-length')
  if (length !== undefined && start + Number(length) !== descriptor.size)
    throw sizeMismatch(descriptor, start + Number(length))
  let skip = received - start
  let left = descriptor.size - received
  for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
    const fresh = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length))
    skip -= chunk.length - fresh.length
    if (fresh.length > left) throw sizeMismatch(descriptor, `more than ${descriptor.size}`)
    left -= fresh.length
    if (fresh.length > 0) yield fresh
  }
}

function rangeStart(answer: Answer): number {
  const match = /^bytes (\d+)-\d+\//.exec(header(answer, 'content-range') ?? '')
  if (match === null)
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${redactUrl(answer.url)} answered a part but does not say which`,
    )
  return Number(match[1])
}

function sizeMismatch(descriptor: Descriptor, found: number | string): RegistryError {
  return new RegistryError(
    'SIZE_MISMATCH',
    `the blob ${descriptor.digest} should have ${descriptor.size} bytes, but has ${found}`,
  )
}
