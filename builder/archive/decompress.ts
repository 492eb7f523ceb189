/**
 * How a layer or an archive is compressed, told by its first bytes, and the bounded way to its contents. gzip and zstd in this process;
 * xz and bzip2 (which only `import` meets) through the system's tools.
 */
import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { TbuildError } from '../../errors.ts'
import { cutAtFrames } from './zstd-frames.ts'

export type Codec = 'none' | 'gzip' | 'zstd' | 'xz' | 'bzip2'

export interface DecompressOptions {
  /** Those that may come; another one that is recognised is refused. Default: gzip, zstd and none. */
  readonly accept?: readonly Codec[]
  /** Begins the messages: `layer sha256:...`. */
  readonly what: string
  /** Zeros cost the reader time, and no room: more of them may come. */
  readonly dropsZeros?: boolean
  readonly signal?: AbortSignal | undefined
}

/** A highly compressed stream may be a bomb once more than this came out of it ... */
const FREE_BYTES = 64 * 1024 * 1024
/** ... and each byte of it has become so many. deflate ends at 1032, zstd at about 40,000. */
const MAX_RATIO = 1000
/**
 * Zeros are not counted up to here, where a store drops them: a swap file or a disk's image that was never written to is honest, and grows 1030-fold with
 * gzip and 30,000-fold with zstd. So many take 3 s of CPU time, and no room.
 */
const FREE_ZEROS = 1024 * 1024 * 1024
const ZEROS = Buffer.alloc(64 * 1024)
/** What an engine's thread gives at a time, and gets. */
const CHUNK = 2 * 1024 * 1024
const BATCH = 1024 * 1024
/** The longest of the magic numbers. */
const HEAD = 10
const USUAL: readonly Codec[] = ['none', 'gzip', 'zstd']

/** What the first ten bytes say (fewer, if there are no more). */
export function detectCodec(head: Uint8Array): Codec {
  const hex = Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, HEAD)).toString('hex')
  if (hex.startsWith('1f8b08')) return 'gzip'
  // The second: a stream that begins with a skippable frame, as pzstd writes it.
  if (hex.startsWith('28b52ffd') || /^5.2a4d18/.test(hex)) return 'zstd'
  if (hex.startsWith('fd377a585a00')) return 'xz'
  // With the size of its blocks and how the first one begins, or its end: a tar's first name may begin with BZh.
  if (/^425a683[1-9](?:314159265359|177245385090)/.test(hex)) return 'bzip2'
  return 'none'
}

/**
 * The contents of `source`, decompressed if need be. It ends only after the source has ended, so whatever the source checks at its end has
 * been checked. Throws `LAYER_BOMB`, `COMPRESSION_UNEXPECTED` (the codec is not among `accept`), `COMPRESSION_INVALID`, `TOOL_MISSING`.
 */
export async function* decompress(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions,
): AsyncGenerator<Buffer> {
  const accept = options.accept ?? USUAL
  await using input = await peek(source)
  const codec = detectCodec(input.head)
  if (!accept.includes(codec)) {
    const found = codec === 'none' ? 'not compressed' : `compressed with ${codec}`
    throw new TbuildError(
      'COMPRESSION_UNEXPECTED',
      `${options.what} is ${found}; expected here: ${accept.join(', ')}`,
    )
  }
  if (codec === 'none') {
    for await (const chunk of input.rest) {
      options.signal?.throwIfAborted()
      yield toBuffer(chunk)
    }
    return
  }
  let taken = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of input.rest) {
      // Here as well: a stream may go on and on and nothing come out.
      options.signal?.throwIfAborted()
      taken += chunk.length
      yield chunk
    }
  }
  let given = 0
  let zeros = 0
  for await (const chunk of run(codec, counted(), options.what)) {
    options.signal?.throwIfAborted()
    given += chunk.length
    if (options.dropsZeros === true) zeros += zerosIn(chunk)
    const suspect = zeros > FREE_ZEROS ? given : given - zeros
    if (suspect > FREE_BYTES && suspect > taken * MAX_RATIO) throw bomb(options.what, taken, given)
    yield chunk
  }
}

function zerosIn(chunk: Buffer): number {
  let zeros = 0
  for (const part of partsOf(chunk)) if (part.isZero) zeros += part.length
  return zeros
}

/** Of 64 KiB and the rest, as what a store drops. A look at one that is not zero ends at its first byte that is not. */
export function* partsOf(chunk: Buffer): Generator<{ at: number; length: number; isZero: boolean }> {
  for (let at = 0; at < chunk.length; at += ZEROS.length) {
    const length = Math.min(ZEROS.length, chunk.length - at)
    yield { at, length, isZero: chunk.compare(ZEROS, 0, length, at, at + length) === 0 }
  }
}

function bomb(what: string, taken: number, given: number): TbuildError {
  return new TbuildError(
    'LAYER_BOMB',
    `${what}: ${taken} compressed bytes have become more than ${given}; it is refused at ${MAX_RATIO} to 1`,
  )
}

function run(
  codec: Exclude<Codec, 'none'>,
  source: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  if (codec === 'gzip') return through(createGunzip({ chunkSize: CHUNK }), batched(source), what)
  if (codec === 'zstd') return through(createZstdDecompress({ chunkSize: CHUNK }), cutAtFrames(source), what)
  return throughTool(codec, source, what)
}

async function* through(
  engine: ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress>,
  source: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  let sourceError: { readonly error: unknown } | undefined
  const watched = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield* source
    } catch (error) {
      sourceError = { error }
      throw error
    }
  }
  const pump = pipeline(watched(), engine)
  // Awaited below; a failure must not count as unhandled before.
  pump.catch(() => {})
  try {
    for await (const chunk of engine as AsyncIterable<Buffer>) yield chunk
    await pump
  } catch (error) {
    if (sourceError !== undefined) throw sourceError.error
    const why = error instanceof Error ? error.message : String(error)
    throw new TbuildError('COMPRESSION_INVALID', `${what} cannot be decompressed: ${why}`, { cause: error })
  } finally {
    engine.destroy()
  }
}

/** For gzip: in parts that keep the engine's thread busy while this one writes what came out before. */
async function* batched(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = []
  let length = 0
  for await (const part of source) {
    parts.push(part)
    length += part.length
    if (length < BATCH) continue
    yield Buffer.concat(parts)
    parts = []
    length = 0
  }
  if (length > 0) yield Buffer.concat(parts)
}

const PACKAGES = { xz: 'xz-utils', bzip2: 'bzip2' } as const

async function* throughTool(
  tool: 'xz' | 'bzip2',
  source: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  // Only here: it takes 2 ms to load.
  const { spawn } = await import('node:child_process')
  // In English, for the message.
  const env = { ...process.env, LC_ALL: 'C' }
  const child = spawn(tool, ['-dc'], { stdio: ['pipe', 'pipe', 'pipe'], env })
  const ended = Promise.withResolvers<number | null>()
  ended.promise.catch(() => {})
  child.on('error', (error) => ended.reject(missing(tool, what, error)))
  child.on('close', (code) => ended.resolve(code))
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    if (said.length < 500) said += chunk.toString('utf8')
  })
  const pump = pipeline(source, child.stdin)
  pump.catch(() => {})
  try {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) yield chunk
    const code = await ended.promise
    if (code !== 0) {
      const why = said.trim().replaceAll(/\p{Cc}+/gu, ' ')
      throw new TbuildError('COMPRESSION_INVALID', `${what} cannot be decompressed: ${why}`)
    }
    await pump
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined)
      await once(child, 'close')
  }
}

function missing(tool: 'xz' | 'bzip2', what: string, cause: Error): TbuildError {
  return new TbuildError(
    'TOOL_MISSING',
    `${what} is compressed with ${tool}, and ${tool} cannot be run here`,
    {
      hint: `install it (Debian: apt-get install ${PACKAGES[tool]}), or decompress the archive first`,
      cause,
    },
  )
}

interface Peeked extends AsyncDisposable {
  readonly head: Buffer
  /** The whole of it, the head included. */
  readonly rest: AsyncIterable<Uint8Array>
}

async function peek(source: AsyncIterable<Uint8Array>): Promise<Peeked> {
  const iterator = source[Symbol.asyncIterator]()
  const parts: Uint8Array[] = []
  let length = 0
  let over = false
  while (length < HEAD && !over) {
    const next = await iterator.next()
    over = next.done === true
    if (next.done === true) break
    parts.push(next.value)
    length += next.value.length
  }
  const rest = async function* (): AsyncGenerator<Uint8Array> {
    yield* parts
    while (!over) {
      const next = await iterator.next()
      if (next.done === true) over = true
      else yield next.value
    }
  }
  return {
    head: Buffer.concat(parts).subarray(0, HEAD),
    rest: rest(),
    // When the reader stops early, the source must let go of its connection or file.
    async [Symbol.asyncDispose]() {
      if (!over) await iterator.return?.()
    },
  }
}

function toBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
}
