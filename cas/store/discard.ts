/** Removing a tree that nobody uses, while other work goes on. */
import { readdirSync, rmSync, rmdirSync, unlinkSync, type Dirent } from 'node:fs'
import { isErrno } from '../../linux/index.ts'

const TURN_MS = 5

/** Resolves when it is gone. What cannot be removed is left for the sweep of the work directory. */
export async function discard(path: string): Promise<void> {
  const turn = turns()
  try {
    const pending = [Buffer.from(path)]
    const directories: Buffer[] = []
    for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
      directories.push(directory)
      for (const entry of list(directory)) {
        const child = Buffer.concat([directory, Buffer.from('/'), entry.name])
        if (entry.isDirectory()) pending.push(child)
        else unlinkSync(child)
        await turn()
      }
    }
    for (const directory of directories.toReversed()) rmdirSync(directory)
  } catch (error) {
    // Names that make a path too long, or the sweep was faster.
    if (!isErrno(error, 'ENAMETOOLONG', 'ENOENT', 'ENOTEMPTY')) throw error
    rmSync(path, { recursive: true, force: true })
  }
}

function list(directory: Buffer): Dirent<Buffer>[] {
  return readdirSync(directory, { withFileTypes: true, encoding: 'buffer' })
}

function turns(): () => Promise<void> | undefined {
  let last = performance.now()
  return () => {
    if (performance.now() - last < TURN_MS) return undefined
    return new Promise<void>((resolve) => setImmediate(resolve)).then(() => void (last = performance.now()))
  }
}
