/** What runs in the hash thread. */
import { parentPort, workerData } from 'node:worker_threads'
import { TbuildError } from '../../errors.ts'
import { createContentReader } from '../contents/reader.ts'
import { digestFiles } from './files.ts'
import { OperationHash } from './operations.ts'
import {
  ALIVE,
  DEAD,
  FILES_DONE,
  STATE,
  TARS_DONE,
  type DigestedTar,
  type Failure,
  type FilesAnswer,
  type FilesRequest,
  type Request,
  type TarAnswer,
  type TarRequest,
  type ThreadData,
  type VerifyRequest,
} from './thread.ts'
import { VerifyList } from './verify.ts'

interface Tar extends Disposable {
  readonly hash: OperationHash
  /** The first; what comes after it is not looked at. */
  error: Failure | undefined
}

const { paths, done, port } = workerData as ThreadData
const tars = new Map<number, Tar>()

Atomics.store(done, STATE, ALIVE)
process.on('exit', () => Atomics.store(done, STATE, DEAD))

parentPort?.on('message', (request: Request) => {
  if ('files' in request) takeFiles(request)
  else if ('verify' in request) takeList(request)
  else takeTar(request)
})

function takeTar({ tar: number, batch, known, isDropped }: TarRequest): void {
  const tar = tars.get(number) ?? beginTar(known)
  tars.set(number, tar)
  if (batch !== undefined) {
    tar.error ??= attempt(() => tar.hash.update(batch))
    tell(TARS_DONE)
    return
  }
  tars.delete(number)
  tar[Symbol.dispose]()
  if (isDropped === true) return
  const { error } = tar
  const answer: TarAnswer = {
    tar: number,
    ...(error === undefined ? { digested: endOf(tar.hash) } : { error }),
  }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a window's has one, a port's has not
  parentPort?.postMessage(answer)
}

function endOf(hash: OperationHash): DigestedTar {
  const sha256 = hash.digest()
  return { sha256, midstates: hash.midstates }
}

function beginTar(known: Uint8Array | undefined): Tar {
  const reader = createContentReader(paths)
  return {
    hash: new OperationHash(reader, known),
    error: undefined,
    [Symbol.dispose]: () => reader[Symbol.dispose](),
  }
}

function takeFiles({ files, batch, buffer }: FilesRequest): void {
  const answer: FilesAnswer = { files, buffer, digested: digestFiles(batch, buffer) }
  port.postMessage(answer, [buffer.buffer])
  tell(FILES_DONE)
}

function takeList({ verify, parts }: VerifyRequest): void {
  using reader = createContentReader(paths)
  const verifyNext = new VerifyList(verify, parts).verifier(reader)
  while (verifyNext());
}

function tell(index: number): void {
  Atomics.add(done, index, 1)
  Atomics.notify(done, index)
}

function attempt(work: () => void): Failure | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    const { message, code = 'ERROR' } = error as NodeJS.ErrnoException
    return { code, message, hint: error instanceof TbuildError ? error.hint : undefined }
  }
}
