/**
 * A thread that reads and hashes beside the main thread. One for a store; it starts with the first work that is worth it, which takes 15 ms of its own.
 */
import type { MessagePort, Worker } from 'node:worker_threads'
import { TbuildError } from '../../errors.ts'
import type { StorePaths } from '../store/paths.ts'
import type { DigestedFiles, FileBatch } from './files.ts'
import type { VerifyList } from './verify.ts'

type Bytes = Uint8Array<ArrayBuffer>

/**
 * To the thread. Of a tar: more of it (`batch`; with the first what is known of others' beginnings), its end, or that nobody wants to know. Of files: which, and
 * where to read them to. Or a list of contents to verify (`VerifyList`), with whoever does.
 */
export type Request = TarRequest | FilesRequest | VerifyRequest
export interface TarRequest {
  readonly tar: number
  readonly batch?: Bytes
  readonly known?: Uint8Array | undefined
  readonly isDropped?: boolean
}
export interface FilesRequest {
  readonly files: number
  readonly batch: FileBatch
  readonly buffer: Bytes
}

export interface VerifyRequest {
  readonly verify: SharedArrayBuffer
  readonly parts: number
}

export interface Failure {
  readonly code: string
  readonly message: string
  readonly hint: string | undefined
}

/** From the thread: a tar's digest, or why there is none. */
export interface TarAnswer {
  readonly tar: number
  readonly digested?: DigestedTar
  readonly error?: Failure | undefined
}

export interface DigestedTar {
  /** In hexadecimal digits. */
  readonly sha256: string
  /** Packed: see `midstates.ts`. */
  readonly midstates: Uint8Array
}

export interface FilesAnswer {
  readonly files: number
  readonly buffer: Bytes
  readonly digested: DigestedFiles
}

export interface ThreadData {
  readonly paths: StorePaths
  /** How many batches of tars, and how many of files, are done; and whether the thread lives. */
  readonly done: Int32Array
  /** For `FilesAnswer`s. */
  readonly port: MessagePort
}
export const TARS_DONE = 0
export const FILES_DONE = 1
export const STATE = 2
export const ALIVE = 1
export const DEAD = 2

export interface TarJob extends Disposable {
  /** Takes the batch away. Waits when the thread is far behind. */
  send(batch: Bytes): void
  /** Throws what the thread met, e.g. `STORE_CORRUPT`. */
  end(): Promise<DigestedTar>
}

/** Disposed when nobody needs what was read any more; its buffer is for others then. */
export interface FilesJob extends Disposable {
  readonly isDone: boolean
  /** Waits for it. */
  result(): DigestedFiles & { readonly buffer: Bytes }
}

export interface HashThread extends Disposable {
  /** Starts it, if it was not: there will be work soon. */
  begin(): void
  /** It helps with the list as soon as it can. What is told: whether it has ended, and what it had taken nobody will do. */
  verify(list: VerifyList): () => boolean
  /** `known`: midstates of other tars, packed. */
  tar(known: Uint8Array): TarJob
  /** Digests them; `undefined`: it has enough to do. Together they are at most `FILE_BYTES`. */
  files(batch: FileBatch): FilesJob | undefined
}

export const FILE_BYTES: number = 1024 * 1024
const MOST_FILE_JOBS = 3
/** Of at most a quarter of a MiB each: what is made for a layer of 40,000 files without a wait. */
const MOST_TAR_BATCHES = 256
const LOOK_MS = 500
const MOST_STARTING_MS = 30_000

export function createHashThread(paths: StorePaths): HashThread {
  // Loaded now: it takes half a millisecond, and most commands need no thread.
  const {
    MessageChannel,
    receiveMessageOnPort,
    Worker: Thread,
  } = process.getBuiltinModule('node:worker_threads')
  const done = new Int32Array(new SharedArrayBuffer(12))
  const { port1: results, port2: port } = new MessageChannel()
  const tars = new Map<number, PromiseWithResolvers<DigestedTar>>()
  const answers = new Map<number, FilesAnswer>()
  const buffers: Bytes[] = []
  let fileJobs = 0
  let sent = 0
  let numbers = 0
  let worker: Worker | undefined
  let startedAt = 0
  /** Why it has ended. */
  let failure: Error | undefined

  const settle = ({ tar, digested, error }: TarAnswer): void => {
    if (digested === undefined) tars.get(tar)?.reject(errorOf(error))
    else tars.get(tar)?.resolve(digested)
    tars.delete(tar)
    // It is no reason for the process to stay.
    if (tars.size === 0) worker?.unref()
  }
  const start = (): Worker => {
    // Beside the bundle, or beside this file.
    const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './hash-thread.js'
    const workerData: ThreadData = { paths, done, port }
    const started = new Thread(new URL(file, import.meta.url), {
      workerData,
      transferList: [port],
      // It closes what others have opened.
      trackUnmanagedFds: false,
    })
    started.on('message', settle)
    started.on('error', (error: Error) => {
      failure = error
      for (const { reject } of tars.values()) reject(error)
      tars.clear()
    })
    started.unref()
    startedAt = performance.now()
    return started
  }
  const post = (request: Request, bytes?: Bytes): void => {
    worker ??= start()
    worker.postMessage(request, bytes === undefined ? [] : [bytes.buffer])
  }
  /** Until `ready`, which is asked again each time that something is done. False when the thread has ended, of which no event tells meanwhile. */
  const isLost = (): boolean => {
    const state = Atomics.load(done, STATE)
    const isStarting = performance.now() - startedAt < MOST_STARTING_MS
    return state !== ALIVE && (state === DEAD || !isStarting)
  }
  const waitUntil = (index: number, ready: (count: number) => boolean): boolean => {
    for (;;) {
      const count = Atomics.load(done, index)
      if (ready(count)) return true
      if (Atomics.wait(done, index, count, LOOK_MS) !== 'timed-out') continue
      if (isLost()) return false
    }
  }
  const hasAnswered = (job: number): boolean => {
    for (let next = receiveMessageOnPort(results); next !== undefined; next = receiveMessageOnPort(results)) {
      const answer = next.message as FilesAnswer
      answers.set(answer.files, answer)
    }
    return answers.has(job)
  }

  return {
    begin: () => void (worker ??= start()),
    verify: ({ shared, parts }) => {
      post({ verify: shared, parts })
      return () => failure !== undefined || isLost()
    },
    tar: (known) => {
      const tar = ++numbers
      let ended = false
      let isBegun = false
      return {
        send: (batch) => {
          if (!waitUntil(TARS_DONE, (count) => sent - count < MOST_TAR_BATCHES)) throw errorOf(undefined)
          sent++
          post({ tar, batch, known: isBegun ? undefined : known }, batch)
          isBegun = true
        },
        end: () => {
          ended = true
          if (failure !== undefined) return Promise.reject(failure)
          const result = Promise.withResolvers<DigestedTar>()
          tars.set(tar, result)
          post({ tar })
          worker?.ref()
          return result.promise
        },
        [Symbol.dispose]: () => {
          if (!ended && worker !== undefined) post({ tar, isDropped: true })
          ended = true
        },
      }
    },
    files: (batch) => {
      if (fileJobs === MOST_FILE_JOBS) return undefined
      fileJobs++
      const files = ++numbers
      const buffer = buffers.pop() ?? new Uint8Array(FILE_BYTES)
      post({ files, batch, buffer }, buffer)
      return {
        get isDone() {
          return hasAnswered(files)
        },
        result: () => {
          waitUntil(FILES_DONE, () => hasAnswered(files))
          const answer = answers.get(files)
          if (answer === undefined) throw errorOf(undefined)
          return { ...answer.digested, buffer: answer.buffer }
        },
        [Symbol.dispose]: () => {
          waitUntil(FILES_DONE, () => hasAnswered(files))
          const answer = answers.get(files)
          answers.delete(files)
          fileJobs--
          if (answer !== undefined) buffers.push(answer.buffer)
        },
      }
    },
    [Symbol.dispose]: () => {
      void worker?.terminate()
      worker = undefined
      results.close()
    },
  }
}

function errorOf(failure: Failure | undefined): Error {
  if (failure === undefined) return new Error('the hash thread has ended')
  return new TbuildError(failure.code, failure.message, { hint: failure.hint })
}
