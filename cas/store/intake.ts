/** Contents on their way into a layer that may never be: see `Intake`. */
import type { ContentWriter } from '../contents/types.ts'
import { tarError } from '../tar/entry.ts'
import type { Database } from './database.ts'
import { enterEpoch } from './epoch.ts'
import type { StorePaths } from './paths.ts'
import type { Intake } from './types.ts'

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
    const read = contents.appendFrom(fd, 0, size)
    const content = contents.end()
    if (read < size) throw tarError('TAR_FILE_CHANGED', 'it is shorter than it was when it was opened')
    return Buffer.from(contents.list.digest(content))
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
