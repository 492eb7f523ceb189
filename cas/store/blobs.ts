/** Configs, manifests and compressed layers as files. */
import { createHash, hash } from 'node:crypto'
import { createReadStream, readFileSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import type { BlobDigest, Digest } from '../oci.ts'
import type { StoreContext } from './context.ts'
import { blobPath } from './paths.ts'
import { syncDirectory, type Spool } from './spool.ts'
import type { BlobStore } from './types.ts'

export function createBlobStore(context: StoreContext): BlobStore {
  const { db, paths } = context
  const size = (digest: BlobDigest): number | undefined => {
    const row = db.get('SELECT size FROM blobs WHERE digest = ?', digest)
    return row === undefined ? undefined : Number(row['size'])
  }
  const known = (digest: BlobDigest): number => {
    const found = size(digest)
    if (found === undefined) throw new TbuildError('BLOB_UNKNOWN', `The store has no blob ${digest}.`)
    return found
  }
  const commit = (spool: Spool, digest: BlobDigest): void =>
    db.transaction(() => {
      context.hold([digest])
      if (size(digest) !== undefined) return
      spool.moveTo(blobPath(paths, digest))
      syncDirectory(paths.blobs)
      db.run('INSERT INTO blobs VALUES (?, ?)', digest, spool.size)
    })
  return {
    size,
    read: (digest) => {
      known(digest)
      const bytes = readStored(blobPath(paths, digest), digest)
      if (`sha256:${hash('sha256', bytes)}` !== digest) throw corrupt(digest)
      return bytes
    },
    stream: (digest) => {
      known(digest)
      return streamVerified(blobPath(paths, digest), digest)
    },
    write: (bytes) => {
      const digest = `sha256:${hash('sha256', bytes)}` as BlobDigest
      if (size(digest) !== undefined) {
        db.transaction(() => context.hold([digest]))
        // Pruned between the two: written again.
        if (size(digest) !== undefined) return digest
      }
      using spool = context.spool()
      spool.write(bytes)
      spool.finishSync()
      commit(spool, digest)
      return digest
    },
    ingest: async (source, expected, ready) => {
      using spool = context.spool()
      for await (const chunk of source) {
        if (spool.size + chunk.length > expected.size) throw wrongSize(expected, `more than ${expected.size}`)
        spool.write(chunk)
      }
      if (spool.size !== expected.size) throw wrongSize(expected, spool.size)
      const digest = await spool.finish()
      if (digest !== expected.digest) throw wrongDigest(expected.digest, digest)
      await ready?.()
      commit(spool, expected.digest)
    },
    origins: (digest) =>
      db
        .all('SELECT repository FROM origins WHERE digest = ? ORDER BY repository', digest)
        .map((row) => String(row['repository'])),
    rememberOrigin: (digest, repository) => {
      db.run('INSERT OR IGNORE INTO origins VALUES (?, ?)', digest, repository)
    },
  }
}

/** The bytes of a file of the store; `STORE_CORRUPT` at the end when they are not what the digest says. */
export async function* streamVerified(path: string, digest: Digest): AsyncGenerator<Buffer, void, undefined> {
  const found = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
      found.update(chunk as Buffer)
      yield chunk as Buffer
    }
  } catch (error) {
    throw isErrno(error, 'ENOENT') ? corrupt(digest) : error
  }
  if (`sha256:${found.digest('hex')}` !== digest) throw corrupt(digest)
}

function readStored(path: string, digest: Digest): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw isErrno(error, 'ENOENT') ? corrupt(digest) : error
  }
}

export function corrupt(digest: Digest, cause?: unknown): TbuildError {
  return new TbuildError('STORE_CORRUPT', `The stored contents of ${digest} are missing or damaged.`, {
    hint: 'tbuild fsck tells what else is, and --repair mends it; build or pull again what it names.',
    cause,
  })
}

export function wrongDigest(expected: Digest, found: Digest): TbuildError {
  return new TbuildError(
    'DIGEST_MISMATCH',
    `${expected} was expected, but the contents have the digest ${found}.`,
  )
}

function wrongSize(expected: { digest: Digest; size: number }, found: number | string): TbuildError {
  return new TbuildError(
    'SIZE_MISMATCH',
    `${expected.digest} should have ${expected.size} bytes, but has ${found}.`,
  )
}
