/** The reader as an async iterable, for who wants the entries and reads small contents whole or not at all. */
import { TAR_LIMITS, tarError, type TarEntry, type TarLimits } from './entry.ts'
import { TarReader } from './reader.ts'

export interface ReadTarOptions {
  readonly limits?: Partial<TarLimits>
  /** Which files' contents to hold (bytes, at most `maxContents`); by default none. */
  readonly wants?: (entry: TarEntry) => boolean
  /** Default 64 MiB; a larger wanted file is `TAR_TOO_LARGE`. */
  readonly maxContents?: number
}

/** Entries in the archive's order, with the contents of those that are wanted (holes filled with zeros). */
export async function* readTar(
  source: AsyncIterable<Buffer> | Iterable<Buffer>,
  options: ReadTarOptions = {},
): AsyncGenerator<{ readonly entry: TarEntry; readonly contents: Buffer | undefined }> {
  const ready: { entry: TarEntry; contents: Buffer | undefined }[] = []
  const maxContents = options.maxContents ?? 64 * 1024 * 1024
  let current: { entry: TarEntry; contents: Buffer | undefined } | undefined
  const reader = new TarReader(
    {
      entry(entry) {
        const wanted = entry.type === 'file' && options.wants?.(entry) === true
        if (wanted && entry.size > maxContents) {
          const name = entry.path.toString('latin1')
          throw tarError('TAR_TOO_LARGE', `${entry.size} bytes, at most ${maxContents} can be held`, { name })
        }
        current = { entry, contents: wanted ? Buffer.alloc(entry.size) : undefined }
      },
      data(chunk, offset) {
        if (current?.contents !== undefined) chunk.copy(current.contents, offset)
      },
      end() {
        if (current !== undefined) ready.push(current)
      },
    },
    { ...TAR_LIMITS, ...options.limits },
  )
  for await (const chunk of source) {
    reader.feed(chunk)
    yield* ready.splice(0)
  }
  reader.finish()
}
