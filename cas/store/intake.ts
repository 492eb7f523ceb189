/** Contents on their way into a layer that may never be: see `Intake`. */
import { readSync } from 'node:fs'
import type { ContentWriter } from '../contents/types.ts'
import { tarError } from '../tar/entry.ts'
import type { Database } from './database.ts'
import { enterEpoch } from './epoch.ts'
import type { StorePaths } from './paths.ts'
import { HOLE, isZero } from './ingest.ts'
import type { Intake } from './types.ts'

let buffer: Buffer | undefined

export class IntakeState implements Intake {
  readonly #epoch: Disposable
  readonly contents: ContentWriter
  #isUsed = false

  constructor(epoch: Disposable, contents: ContentWriter) {
    this.#epoch = epoch
    this.contents = contents
  }

  take(fd: number, size: number): Buffer {
    const { contents } = this
    contents.begin()
    const { read, hasHoles } =
      size < HOLE ? { read: contents.appendFrom(fd, 0, size), hasHoles: false } : this.#take(fd, size)
    if (read < size) {
      contents.drop()
      throw tarError('TAR_FILE_CHANGED', 'it is shorter than it was when it was opened')
    }
    // Such a file is several contents: it is read again when it is needed.
    if (hasHoles) return contents.drop()
    return Buffer.from(contents.list.digest(contents.end()))
  }

  #take(fd: number, size: number): { readonly read: number; readonly hasHoles: boolean } {
    const block = (buffer ??= Buffer.allocUnsafeSlow(HOLE))
    let read = 0
    let hasHoles = false
    while (read < size) {
      const count = readSync(fd, block, 0, Math.min(HOLE, size - read), read)
      if (count === 0) break
      const bytes = block.subarray(0, count)
      hasHoles ||= count === HOLE && isZero(bytes)
      this.contents.append(bytes)
      read += count
    }
    return { read, hasHoles }
  }

  has(digest: Uint8Array): boolean {
    return this.contents.find(digest) !== undefined
  }

  /** From now on the contents are the user's, and so is the epoch. */
  use(): Disposable {
    if (this.#isUsed) throw new Error('this intake was used before')
    this.#isUsed = true
    this.contents.flush()
    return this.#epoch
  }

  [Symbol.dispose](): void {
    if (this.#isUsed) return
    this.#isUsed = true
    this.contents[Symbol.dispose]()
    this.#epoch[Symbol.dispose]()
  }
}

export function createIntake(paths: StorePaths, db: Database, contents: () => ContentWriter): Intake {
  const epoch = enterEpoch(paths, db)
  try {
    return new IntakeState(epoch, contents())
  } catch (error) {
    epoch[Symbol.dispose]()
    throw error
  }
}
