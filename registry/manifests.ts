import { createHash } from 'node:crypto'
import { MEDIA, parseJson } from '../cas/index.ts'
import type { BlobDigest, Descriptor } from '../cas/index.ts'
import { RegistryError, isRecord, redactUrl } from './errors.ts'
import { checkTagOrDigest } from './reference.ts'
import { routesFor } from './routes.ts'
import type { Routes } from './routes.ts'
import { requestWhole } from './session.ts'
import type { Session, SessionRequest } from './session.ts'
import { discard, header, resolveLocation } from './transport.ts'
import type { Answer } from './transport.ts'

/** Bytes as they came, and what they are. */
export interface FetchedManifest {
  readonly bytes: Uint8Array
  readonly mediaType: string
  readonly digest: BlobDigest
}

/** Manifests and tags of one repository. */
export interface Manifests {
  getManifest(tagOrDigest: string, accept?: readonly string[]): Promise<FetchedManifest>
  hasManifest(tagOrDigest: string): Promise<Descriptor | undefined>
  putManifest(tagOrDigest: string, bytes: Uint8Array, mediaType: string): Promise<BlobDigest>
  deleteManifest(digest: string): Promise<void>
  listTags(): Promise<readonly string[]>
}

/** The limit that distribution-spec asks registries to keep. */
const MAX_MANIFEST = 4 * 1024 * 1024
const MAX_TAG_PAGE = 4 * 1024 * 1024
const MAX_TAG_PAGES = 1000
const DEFAULT_ACCEPT = [MEDIA.index, MEDIA.manifest, MEDIA.dockerIndex, MEDIA.dockerManifest]

export function createManifests(session: Session, repository: string): Manifests {
  const scope = (actions: string): string[] => [`repository:${repository}:${actions}`]
  const path = (tagOrDigest: string): string => `/v2/${repository}/manifests/${tagOrDigest}`

  /** One call of the package: `more` is what it does not know (scope, Accept, which statuses are fine). */
  const call = async <T>(
    more: Pick<SessionRequest, 'asked' | 'scopes' | 'expect' | 'headers'>,
    limit: number,
    use: (routes: Routes) => Promise<T>,
  ): Promise<{ value: T; answer: Answer; bytes: Uint8Array }> => {
    let last: { answer: Answer; bytes: Uint8Array } | undefined
    const routes = await routesFor(repository, async (route) => {
      const headers = { ...route.headers, ...more.headers }
      last = await requestWhole(session, { ...route, ...more, headers }, limit)
      return last
    })
    const value = await use(routes)
    if (last === undefined) throw new Error('the route sent nothing')
    return { value, ...last }
  }

  const getManifest: Manifests['getManifest'] = async (tagOrDigest, accept = DEFAULT_ACCEPT) => {
    checkTagOrDigest(tagOrDigest)
    const more = {
      asked: 'manifest',
      scopes: scope('pull'),
      expect: [200],
      headers: { accept: accept.join(', ') },
    } as const
    const { value, answer, bytes } = await call(more, MAX_MANIFEST, (routes) =>
      routes.getManifest({ ref: tagOrDigest }),
    )
    const digest = sha256(bytes)
    checkDigest(tagOrDigest, digest, answer)
    return { bytes, mediaType: manifestType(value.manifest, answer), digest }
  }

  return {
    getManifest,

    async hasManifest(tagOrDigest) {
      checkTagOrDigest(tagOrDigest)
      const answer = await session.request({
        method: 'HEAD',
        asked: 'manifest',
        path: path(tagOrDigest),
        scopes: scope('pull'),
        headers: { accept: DEFAULT_ACCEPT.join(', ') },
        expect: [200, 404, 405],
      })
      await discard(answer)
      if (answer.status === 404) return undefined
      const digest = sha256Header(answer)
      const size = header(answer, 'content-length')
      const mediaType = contentType(answer)
      if (answer.status === 200 && digest !== undefined && size !== undefined && mediaType !== undefined) {
        checkDigest(tagOrDigest, digest, answer)
        return { mediaType, digest, size: Number(size) }
      }
      // The headers are optional in the specification: then only the manifest itself can tell.
      const got = await getManifest(tagOrDigest)
      return { mediaType: got.mediaType, digest: got.digest, size: got.bytes.length }
    },

    async putManifest(tagOrDigest, bytes, mediaType) {
      checkTagOrDigest(tagOrDigest)
      const digest = sha256(bytes)
      if (tagOrDigest.includes(':') && tagOrDigest !== digest)
        throw mismatch(tagOrDigest, digest, 'the manifest to be sent')
      const more = {
        asked: 'manifest',
        scopes: scope('pull,push'),
        expect: [200, 201, 202],
        headers: {},
      } as const
      const { answer } = await call(more, MAX_MANIFEST, (routes) =>
        routes.putManifest({ ref: tagOrDigest, manifestData: bytes, mediaType }),
      )
      checkDigest(digest, sha256Header(answer) ?? digest, answer)
      return digest
    },

    async deleteManifest(digest) {
      checkTagOrDigest(digest)
      const more = {
        asked: 'manifest',
        scopes: scope('pull,push,delete'),
        expect: [200, 202],
        headers: {},
      } as const
      await call(more, MAX_MANIFEST, (routes) => routes.deleteManifest({ ref: digest }))
    },

    async listTags() {
      const more = { asked: 'tags', scopes: scope('pull'), expect: [200], headers: {} } as const
      const first = await call(more, MAX_TAG_PAGE, (routes) => routes.listTags())
      const tags = [...readTags(first.value, first.answer)]
      const seen = new Set<string>()
      let answer = first.answer
      for (
        let next = nextPage(answer, session.insecure);
        next !== undefined;
        next = nextPage(answer, session.insecure)
      ) {
        if (seen.has(next.href) || seen.size >= MAX_TAG_PAGES) {
          throw new RegistryError('REGISTRY_ERROR', `${redactUrl(next)}: the list of tags does not end`)
        }
        seen.add(next.href)
        const page = await requestWhole(session, { method: 'GET', url: next, ...more }, MAX_TAG_PAGE)
        answer = page.answer
        tags.push(...readTags(readJson(page.bytes, answer), answer))
      }
      return tags
    },
  }
}

function sha256(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as BlobDigest
}

/** Docker-Content-Digest, if it is there and is a sha256. */
function sha256Header(answer: Answer): BlobDigest | undefined {
  const value = header(answer, 'docker-content-digest')
  return value !== undefined && /^sha256:[a-f0-9]{64}$/.test(value) ? (value as BlobDigest) : undefined
}

function checkDigest(asked: string, found: BlobDigest, answer: Answer): void {
  const claimed = sha256Header(answer)
  if (asked.includes(':') && asked !== found) throw mismatch(asked, found, redactUrl(answer.url))
  if (claimed !== undefined && claimed !== found) throw mismatch(claimed, found, redactUrl(answer.url))
}

function mismatch(expected: string, found: string, what: string): RegistryError {
  return new RegistryError('DIGEST_MISMATCH', `${what} has the digest ${found}, but ${expected} was expected`)
}

function contentType(answer: Answer): string | undefined {
  return header(answer, 'content-type')?.split(';')[0]?.trim().toLowerCase()
}

/**
 * The header and the document must agree (image-spec, manifest.md: `mediaType`), and a document may not be an index and a
 * manifest at once: else two readers could take it for two things (CVE-2021-41190).
 */
function manifestType(manifest: unknown, answer: Answer): string {
  const url = redactUrl(answer.url)
  const invalid = (why: string): RegistryError =>
    new RegistryError('MANIFEST_INVALID', `the manifest at ${url} ${why}`, { url })
  if (!isRecord(manifest)) throw invalid('is not an object')
  if ('manifests' in manifest && ('layers' in manifest || 'config' in manifest))
    throw invalid('is an index and an image at once')
  const said = typeof manifest['mediaType'] === 'string' ? manifest['mediaType'] : undefined
  const sent = contentType(answer)
  const generic = sent === undefined || !sent.startsWith('application/vnd.')
  if (!generic && said !== undefined && said.toLowerCase() !== sent)
    throw invalid(`says it is ${said}, but was sent as ${sent}`)
  const type = generic ? said : sent
  return type ?? ('manifests' in manifest ? MEDIA.index : MEDIA.manifest)
}

function readJson(bytes: Uint8Array, answer: Answer): unknown {
  try {
    return parseJson(bytes)
  } catch {
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${redactUrl(answer.url)} answered with something that is not JSON`,
    )
  }
}

function readTags(value: unknown, answer: Answer): string[] {
  // A repository whose last tag was deleted answers `null`.
  const tags = isRecord(value) ? (value['tags'] ?? []) : undefined
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === 'string')) {
    throw new RegistryError('REGISTRY_ERROR', `${redactUrl(answer.url)} answered without a list of tags`)
  }
  return tags
}

/** `Link: </v2/x/tags/list?last=b&n=2>; rel="next"` (RFC 5988), on the same origin only. */
function nextPage(answer: Answer, insecure: boolean): URL | undefined {
  const link = header(answer, 'link')
  const match = link === undefined ? null : /^\s*<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(link)
  if (match === null) return undefined
  const next = resolveLocation(match[1] ?? '', answer.url, insecure)
  if (next.origin !== answer.url.origin) {
    throw new RegistryError(
      'REGISTRY_REDIRECT',
      `${redactUrl(answer.url)}: the list of tags goes on at ${next.host}, another server`,
    )
  }
  return next
}
