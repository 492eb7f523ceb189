/** Secrets of the command line. They are read when a RUN wants them, and are never written anywhere but into the memory that it sees them in. */
import { readFileSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import type { SecretSource } from '../types.ts'

/** BuildKit's bound. */
const MOST_BYTES = 500 * 1024

/** `undefined` when there is none of that id. Throws `SECRET_UNREADABLE`, `SECRET_TOO_BIG`. */
export function readSecret(
  secrets: ReadonlyMap<string, SecretSource> | undefined,
  id: string,
): Buffer | undefined {
  const source = secrets?.get(id)
  if (source === undefined) return undefined
  const content = 'env' in source ? Buffer.from(process.env[source.env] ?? '') : readFile(id, source.file)
  if (content.length <= MOST_BYTES) return content
  throw new TbuildError('SECRET_TOO_BIG', `The secret ${JSON.stringify(id)} is larger than 500 KiB.`)
}

function readFile(id: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new TbuildError('SECRET_UNREADABLE', `The secret ${JSON.stringify(id)} cannot be read: ${file}`, {
      cause: error,
    })
  }
}
