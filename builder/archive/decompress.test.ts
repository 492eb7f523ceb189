import { describe, expect, test } from '@jest/globals'
import { array, assert, asyncProperty, constantFrom, integer, nat } from 'fast-check'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { decompress, detectCodec } from './decompress.ts'
import { collect, pieces } from './testing.ts'
import { cutAtFrames } from './zstd-frames.ts'

/** Compressible, and not the same everywhere. */
function contents(size: number, seed: number): Buffer {
  return Buffer.from(Array.from({ length: size }, (_, i) => ((i * seed) >> 4) & 0xff))
}

/** One frame in every form of header: with and without checksum and content size, raw, RLE and compressed blocks. */
const frames = [
  Buffer.alloc(0),
  Buffer.from('x'),
  contents(300, 7),
  contents(70_000, 11),
  Buffer.alloc(300_000),
].flatMap((plain) =>
  [0, 1].flatMap((checksumFlag) =>
    [0, 1].map((contentSizeFlag) => {
      const params = {
        [constants.ZSTD_c_checksumFlag]: checksumFlag,
        [constants.ZSTD_c_contentSizeFlag]: contentSizeFlag,
      }
      return { plain, packed: zstdCompressSync(plain, { params }) }
    }),
  ),
)
const skippable = { plain: Buffer.alloc(0), packed: Buffer.from('5f2a4d180500000068656c6c6f', 'hex') }
const emptySkippable = { plain: Buffer.alloc(0), packed: Buffer.from('502a4d1800000000', 'hex') }

describe('zstd', () => {
  test('frames one after the other, in chunks of any size', async () => {
    const streams = asyncProperty(
      array(constantFrom(...frames, skippable, emptySkippable), { minLength: 1, maxLength: 6 }),
      integer({ min: 1, max: 200_000 }),
      async (parts, size) => {
        const packed = Buffer.concat(parts.map((part) => part.packed))
        const cut: Uint8Array[] = []
        for await (const chunk of cutAtFrames(pieces(packed, size))) cut.push(chunk)
        if (!Buffer.concat(cut).equals(packed)) throw new Error('bytes were lost')
        const plain = await collect(decompress(pieces(packed, size), { what: 'it' }))
        if (!plain.equals(Buffer.concat(parts.map((part) => part.plain))))
          throw new Error('contents were lost')
      },
    )
    await expect(assert(streams, { numRuns: 60 })).resolves.toBeUndefined()
  })

  test('rubbish, wherever it stands, ends in an error and not in silence', async () => {
    const [one, two] = [frames[4]?.packed ?? Buffer.alloc(0), Buffer.from('rubbish after the frame')]
    for (const size of [1, 7, 1_000_000])
      await expect(
        collect(decompress(pieces(Buffer.concat([one, two]), size), { what: 'it' })),
      ).rejects.toMatchObject({ code: 'COMPRESSION_INVALID' })
  })

  test('random damage is an error or other contents, never a hang', async () => {
    const packed = Buffer.concat(frames.map((frame) => frame.packed))
    const damage = asyncProperty(nat(packed.length - 1), nat(255), async (at, byte) => {
      const hurt = Buffer.from(packed)
      hurt[at] = byte
      await collect(decompress(pieces(hurt, 1000), { what: 'it' })).catch(() => undefined)
    })
    await expect(assert(damage, { numRuns: 60 })).resolves.toBeUndefined()
  })
})

describe('what it is, by its first bytes', () => {
  test.each([
    ['gzip', gzipSync('x')],
    ['zstd', zstdCompressSync('x')],
    ['zstd', skippable.packed],
    ['xz', Buffer.from('fd377a585a0000', 'hex')],
    ['bzip2', Buffer.from('BZh91AY&SY')],
    ['none', Buffer.from('BZh9-is-the-name-of-a-file')],
    ['none', Buffer.from('BZ')],
    ['none', Buffer.alloc(0)],
    ['none', Buffer.alloc(512)],
  ] as const)('%s', (codec, bytes) => {
    expect(detectCodec(bytes)).toBe(codec)
  })

  test('also when they come one by one', async () => {
    const plain = await collect(decompress(pieces(gzipSync('hello'), 1), { what: 'it' }))
    expect(plain.toString()).toBe('hello')
    expect((await collect(decompress(pieces(Buffer.from('hi'), 1), { what: 'it' }))).toString()).toBe('hi')
  })
})

async function* failing(): AsyncGenerator<Uint8Array> {
  yield gzipSync('x'.repeat(1000))
  throw new Error('not what was promised')
}

describe('the source', () => {
  test('its error is passed on as it is', async () => {
    await expect(collect(decompress(failing(), { what: 'it' }))).rejects.toThrow('not what was promised')
  })

  test('is let go of when the reader stops', async () => {
    for (const bytes of [gzipSync(contents(3_000_000, 3)), contents(3_000_000, 3)]) {
      let released = false
      const source = async function* (): AsyncGenerator<Uint8Array> {
        try {
          yield* pieces(bytes, 1000)
        } finally {
          released = true
        }
      }
      for await (const chunk of decompress(source(), { what: 'it' })) {
        expect(chunk.length).toBeGreaterThan(0)
        break
      }
      await new Promise((resolve) => setImmediate(resolve))
      expect(released).toBe(true)
    }
  })
})

describe('a bomb', () => {
  const MIB = 1024 * 1024
  /** Letters or zeros, 16 MiB to a frame. */
  async function* frame(byte: number, count: number): AsyncGenerator<Uint8Array> {
    const packed = zstdCompressSync(Buffer.alloc(16 * MIB, byte))
    for (let i = 0; i < count; i++) yield packed
  }
  async function given(source: AsyncIterable<Uint8Array>, dropsZeros: boolean): Promise<number | string> {
    let bytes = 0
    try {
      for await (const chunk of decompress(source, { what: 'it', dropsZeros })) bytes += chunk.length
    } catch (error) {
      return String((error as { readonly code: unknown }).code)
    }
    return bytes / MIB
  }

  test('what is no zeros is counted, also between zeros', async () => {
    expect(await given(frame(97, 4), true)).toBe(64)
    expect(await given(frame(97, 5), true)).toBe('LAYER_BOMB')
    const mixed = async function* (): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < 6; i++) {
        yield* frame(0, 2)
        yield* frame(97, 1)
      }
    }
    expect(await given(mixed(), true)).toBe('LAYER_BOMB')
  })

  test('zeros are not, up to 1 GiB, where the reader drops them', async () => {
    expect(await given(frame(0, 5), false)).toBe('LAYER_BOMB')
    expect(await given(frame(0, 64), true)).toBe(1024)
    expect(await given(frame(0, 65), true)).toBe('LAYER_BOMB')
  })
})
