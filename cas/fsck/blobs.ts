/** Manifests, configs and compressed layers: is each file what its name says? */
import { rmSync, statSync } from 'node:fs'
import type { BlobDigest } from '../oci.ts'
import { blobPath } from '../store/paths.ts'
import { digestOfFile } from './bytes.ts'
import { VALID } from './rows.ts'
import type { Pass } from './types.ts'

const PAGE = 256

export async function checkBlobs(pass: Pass): Promise<void> {
  const { db } = pass.context
  let after = ''
  for (;;) {
    const page = db.all(
      `SELECT digest, size FROM blobs WHERE digest > ? AND ${VALID.blobs.rule} ORDER BY digest LIMIT ${PAGE}`,
      after,
    )
    for (const row of page) await checkBlob(pass, String(row['digest']) as BlobDigest)
    if (page.length < PAGE) return
    after = String(page.at(-1)?.['digest'])
  }
}

async function checkBlob(pass: Pass, digest: BlobDigest): Promise<void> {
  const { context, findings, quick } = pass
  const { db, paths } = context
  const path = blobPath(paths, digest)
  /** As the index and the directory are in this moment; `undefined`: it is not recorded any more. */
  const look = () => {
    const row = db.get('SELECT size FROM blobs WHERE digest = ?', digest)
    const stats = statSync(path, { throwIfNoEntry: false })
    return row && { recorded: Number(row['size']), size: stats?.size, inode: stats?.ino }
  }
  for (;;) {
    const seen = look()
    if (seen === undefined) return
    if (quick && seen.size === seen.recorded) return
    const found = seen.size === undefined ? undefined : await digestOfFile(path, pass.breathe, pass.read)
    if (found?.digest === digest && found.size === seen.recorded) return
    // A file with this name is never written to: it is this one, or one that came in its place.
    const now = db.transaction(look)
    if (now === undefined) return
    if (now.inode !== seen.inode || now.recorded !== seen.recorded) continue
    const where = `blobs/sha256/${digest.slice('sha256:'.length)}`
    if (found?.digest === digest) {
      findings.push({
        code: 'BLOB_SIZE_WRONG',
        what: `The index says that a blob has ${seen.recorded} bytes; it has ${found.size}.`,
        where: `index.db: blobs ${digest}`,
        repair: 'record its size',
        affects: { blob: digest },
        mend: () => void db.run('UPDATE blobs SET size = ? WHERE digest = ?', found.size, digest),
      })
      return
    }
    findings.push({
      code: seen.size === undefined ? 'BLOB_MISSING' : 'BLOB_DAMAGED',
      what:
        seen.size === undefined ? 'A blob is not there.' : 'The bytes of a blob are others than were stored.',
      where,
      repair:
        'forget it; a compressed layer is made or fetched again when it is needed, an image without its manifest or config is lost',
      affects: { blob: digest },
      mend: () =>
        db.transaction(() => {
          db.run('DELETE FROM blobs WHERE digest = ?', digest)
          rmSync(path, { force: true, recursive: true })
        }),
    })
    return
  }
}
