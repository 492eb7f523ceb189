/** A tar of plain files and directories, the same bytes for the same entries: no times, no owners. */
import { once } from 'node:events'
import { pack, type Pack } from 'tar-stream'

export interface ArchiveFile {
  /** A directory's ends with `/`. */
  readonly name: string
  /** Bytes that `open` gives. */
  readonly size: number
  readonly open: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

/** The archive, its files in the order given. */
export async function* tarOf(
  files: readonly ArchiveFile[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const archive = pack()
  // It comes out of the iteration.
  archive.on('error', () => {})
  let failure: { readonly error: unknown } | undefined
  const filling = fill(archive, files, signal).catch((error: unknown) => {
    failure = { error }
    archive.destroy(error instanceof Error ? error : new Error(String(error)))
  })
  try {
    for await (const chunk of archive as AsyncIterable<Uint8Array>) yield chunk
  } catch (error) {
    throw failure === undefined ? error : failure.error
  } finally {
    // When the reader has had enough, the file that is being read is let go of.
    archive.destroy()
    await filling
  }
}

const EPOCH = new Date(0)

async function fill(
  archive: Pack,
  files: readonly ArchiveFile[],
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { name, size, open } of files) {
    signal?.throwIfAborted()
    if (name.endsWith('/')) {
      archive.entry({ name, type: 'directory', mode: 0o755, mtime: EPOCH })
      continue
    }
    const { promise: ended, resolve, reject } = Promise.withResolvers<undefined>()
    ended.catch(() => {})
    const entry = archive.entry({ name, size, mode: 0o644, mtime: EPOCH })
    entry.on('error', () => {})
    entry.on('finish', () => resolve(undefined))
    entry.on('close', () => reject(new Error('the archive was closed')))
    for await (const chunk of open()) {
      signal?.throwIfAborted()
      if (!entry.write(chunk)) await Promise.race([once(entry, 'drain'), ended])
    }
    entry.end(null)
    await ended
  }
  archive.finalize()
}
