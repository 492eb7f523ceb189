import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { BlobDigest, Descriptor } from '../cas/index.ts'
import type { RegistryOptions } from './options.ts'

/** For tests only: a server that does what a test tells it, and keeps what it was asked. */
export interface Hostile extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string
  readonly origin: string
  readonly requests: readonly SeenRequest[]
  /** Those but the first look at `/v2/`. */
  seen(method: string, part: string): SeenRequest[]
}

export interface SeenRequest {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export type Handler = (request: SeenRequest, response: ServerResponse, raw: IncomingMessage) => unknown

/** Answers `/v2/` with 200 by itself when the handler leaves it alone (returns `undefined` without an answer is a hang). */
export async function startHostile(
  handler: Handler,
  tls?: { readonly key: string; readonly cert: string },
): Promise<Hostile> {
  const requests: SeenRequest[] = []
  const listener = async (raw: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    try {
      for await (const chunk of raw as AsyncIterable<Buffer>) chunks.push(chunk)
    } catch {
      // The client broke off; what came is still seen.
    }
    const request = {
      method: raw.method ?? '',
      url: raw.url ?? '',
      headers: raw.headers,
      body: Buffer.concat(chunks),
    }
    requests.push(request)
    response.on('error', () => {})
    await handler(request, response, raw)
  }
  const onRequest = (raw: IncomingMessage, response: ServerResponse): void => void listener(raw, response)
  const server = tls === undefined ? createServer(onRequest) : createTlsServer(tls, onRequest)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    host: `127.0.0.1:${port}`,
    origin: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    requests,
    seen: (method, part) => requests.filter((one) => one.method === method && one.url.includes(part)),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** An answer in one call; `body` as JSON unless it is bytes or a string. */
export function reply(
  response: ServerResponse,
  status: number,
  body: unknown = '',
  headers: Record<string, string> = {},
): void {
  const bytes = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body)
  response.writeHead(status, { 'content-length': String(Buffer.byteLength(bytes)), ...headers }).end(bytes)
}

export function digestOf(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as BlobDigest
}

export function describeBlob(bytes: Uint8Array): Descriptor {
  return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(bytes), size: bytes.length }
}

/** What `putBlob` reads from. */
export function opener(bytes: Uint8Array, piece = 65_536): (offset: number) => AsyncGenerator<Uint8Array> {
  return async function* pieces(offset) {
    for (let at = offset; at < bytes.length; at += piece)
      yield bytes.subarray(at, Math.min(at + piece, bytes.length))
  }
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** A small manifest over the given layers. */
export function manifestOf(...layers: readonly Descriptor[]): Buffer {
  const config = { ...describeBlob(Buffer.from('{}')), mediaType: 'application/vnd.oci.image.config.v1+json' }
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers }))
}

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

/** Fails fast: one retry after a millisecond, short time-outs. */
export const QUICK: RegistryOptions = {
  retries: 1,
  retryDelay: 1,
  maxRetryDelay: 20,
  timeouts: { connect: 5000, headers: 1000, body: 1000 },
}
