/**
 * Contents on their way into a layer that may never be: see `Intake`. Small files are taken many at a time, by whichever thread is free: the hash
 * thread has its share as soon as there is more than it takes to start it.
 */
import { closeSync, readSync } from 'node:fs'
import { DIGEST_BYTES } from '../contents/list.ts'
import type { ContentWriter } from '../contents/types.ts'
import {
  digestFiles,
  encodeSeen,
  HAS_HOLES,
  HOLE,
  isZero,
  READ,
  type DigestedFiles,
  type FileBatch,
} from '../hashing/files.ts'
import { readAttributes } from '../tar/attributes.ts'
import type { TarDigest } from '../hashing/tar-digest.ts'
import { FILE_BYTES, type FilesJob, type HashThread } from '../hashing/thread.ts'
import { tarError } from '../tar/entry.ts'
import type { Database } from './database.ts'
import { enterEpoch } from './epoch.ts'
import type { StorePaths } from './paths.ts'
import { TakenFile } from './taken.ts'
import type { Intake, SeenFile, Taken } from './types.ts'

/** Larger ones are taken alone, part by part. */
const SMALL = 128 * 1024
/** There is a batch for each thread and some that wait. */
const BATCH_FILES = 48
/** What one thread takes in the time in which another starts. */
const ALONE = 8 * 1024 * 1024

let block: Buffer | undefined
let ownBuffer: Uint8Array | undefined

interface Failed {
  readonly failure: unknown
}

/** A file of which more is known when its batch is done. */
class Waiting implements Taken {
  readonly file: SeenFile
  readonly #settle: () => void
  #outcome: Taken | Failed | undefined

  constructor(file: SeenFile, settle: () => void) {
    this.file = file
    this.#settle = settle
  }

  get digest(): Buffer {
    return this.#taken.digest
  }
  get isPlain(): boolean {
    return this.#taken.isPlain
  }
  get isNew(): boolean {
    return this.#taken.isNew
  }
  copyDigest(into: Uint32Array, at: number): void {
    this.#taken.copyDigest(into, at)
  }

  end(outcome: Taken | Failed): void {
    this.#outcome = outcome
  }

  get #taken(): Taken {
    if (this.#outcome === undefined) this.#settle()
    if (this.#outcome === undefined) throw new Error('the file was not taken')
    if ('failure' in this.#outcome) throw this.#outcome.failure
    return this.#outcome
  }
}

interface Batch {
  readonly files: readonly Waiting[]
  readonly job: FilesJob
}

export class IntakeState implements Intake {
  readonly #epoch: Disposable
  readonly contents: ContentWriter
  /** Of the layer that it is for. */
  readonly digest: TarDigest
  readonly #thread: () => HashThread
  #isUsed = false
  /** One for all files. */
  readonly #settleAll = (): void => this.#settle()
  /** Of one tree. */
  #files: Waiting[] = []
  #bytes = 0
  /** With the thread, oldest first. */
  #batches: Batch[] = []
  #taken = 0

  constructor(epoch: Disposable, contents: ContentWriter, digest: TarDigest, thread: () => HashThread) {
    this.#epoch = epoch
    this.contents = contents
    this.digest = digest
    this.#thread = thread
  }

  take(file: SeenFile): Taken {
    const { size } = file.stats
    if (size > SMALL) return this.#takeAlone(file)
    const isOther = this.#files[0] !== undefined && this.#files[0].file.root !== file.root
    if (this.#bytes + size > FILE_BYTES || this.#files.length === BATCH_FILES || isOther) this.#endBatch()
    const waiting = new Waiting(file, this.#settleAll)
    this.#files.push(waiting)
    this.#bytes += size
    return waiting
  }

  /** Gives the batch to the thread, or, when that has enough, does it here. */
  #endBatch(): void {
    const files = this.#files
    const isSharing = (this.#taken += this.#bytes) > ALONE
    this.#files = []
    this.#bytes = 0
    for (let next = this.#batches[0]; next?.job.isDone === true; next = this.#batches[0]) this.#endJob()
    const batch: FileBatch = {
      root: files[0]?.file.root ?? -1,
      paths: files.map(({ file }) => `${file.path}\0`).join(''),
      seen: encodeSeen(files.map(({ file }) => file.stats)),
    }
    const job = isSharing ? this.#thread().files(batch) : undefined
    if (job !== undefined) {
      this.#batches.push({ files, job })
      return
    }
    ownBuffer ??= new Uint8Array(FILE_BYTES)
    this.#keep(files, digestFiles(batch, ownBuffer), ownBuffer)
  }

  /** Of the oldest batch. */
  #endJob(): void {
    const batch = this.#batches.shift()
    if (batch === undefined) return
    using job = batch.job
    const result = job.result()
    this.#keep(batch.files, result, result.buffer)
  }

  #settle(): void {
    if (this.#files.length > 0) this.#endBatch()
    while (this.#batches.length > 0) this.#endJob()
  }

  #keep(files: readonly Waiting[], { outcomes, plain, digests }: DigestedFiles, buffer: Uint8Array): void {
    const all = Buffer.from(digests.buffer, digests.byteOffset, digests.length)
    let at = 0
    for (const [i, waiting] of files.entries()) {
      const { size } = waiting.file.stats
      const outcome = outcomes[i] ?? 0
      if ((outcome & READ) === 0) waiting.end(this.#tryAgain(waiting.file))
      else {
        const digest = all.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)
        // With holes it is several contents: it is read again when it is needed.
        const isNew =
          (outcome & HAS_HOLES) !== 0 ||
          this.contents.isOwn(this.contents.put(digest, buffer.subarray(at, at + size)))
        waiting.end(new TakenFile(all, i * DIGEST_BYTES, plain[i] === 1, isNew))
      }
      at += size
    }
  }

  /** To find out why. */
  #tryAgain(file: SeenFile): Taken | Failed {
    try {
      return this.#takeAlone(file)
    } catch (failure) {
      return { failure }
    }
  }

  #takeAlone(file: SeenFile): Taken {
    const fd = file.open()
    try {
      const isPlain = readAttributes(fd).layer.size === 0
      const { digest, isNew } = this.#takeFrom(fd, file.stats.size)
      return new TakenFile(digest, 0, isPlain, isNew)
    } finally {
      closeSync(fd)
    }
  }

  #takeFrom(fd: number, size: number): Pick<Taken, 'digest' | 'isNew'> {
    const { contents } = this
    const bytes = (block ??= Buffer.allocUnsafeSlow(HOLE))
    contents.begin()
    let read = 0
    let hasHoles = false
    while (read < size) {
      const count = readSync(fd, bytes, 0, Math.min(HOLE, size - read), read)
      if (count === 0) break
      const part = bytes.subarray(0, count)
      hasHoles ||= count === HOLE && isZero(part)
      contents.append(part)
      read += count
    }
    if (read < size) {
      contents.drop()
      throw tarError('TAR_FILE_CHANGED', 'it is shorter than it was when it was opened')
    }
    if (hasHoles) return { digest: contents.drop(), isNew: true }
    const content = contents.end()
    return { digest: Buffer.from(contents.list.digest(content)), isNew: contents.isOwn(content) }
  }

  has(digest: Uint8Array): boolean {
    this.#settle()
    return this.contents.find(digest) !== undefined
  }

  /** From now on the contents and the digest are the user's, and so is the epoch. */
  use(): Disposable {
    if (this.#isUsed) throw new Error('this intake was used before')
    this.#settle()
    this.#isUsed = true
    this.contents.flush()
    return this.#epoch
  }

  [Symbol.dispose](): void {
    if (this.#isUsed) return
    this.#isUsed = true
    // Each of them, also when one fails; the epoch last.
    using all = new DisposableStack()
    all.use(this.#epoch)
    all.use(this.contents)
    all.use(this.digest)
    for (const { job } of this.#batches) all.use(job)
  }
}

export function createIntake(
  paths: StorePaths,
  db: Database,
  open: () => { readonly contents: ContentWriter; readonly digest: TarDigest },
  thread: () => HashThread,
): Intake {
  const epoch = enterEpoch(paths, db)
  try {
    const { contents, digest } = open()
    return new IntakeState(epoch, contents, digest, thread)
  } catch (error) {
    epoch[Symbol.dispose]()
    throw error
  }
}
