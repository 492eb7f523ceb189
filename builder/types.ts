/** The folder's face: what a build is asked, what it tells while it runs, and what it gives. */
import type { BlobDigest } from '../cas/index.ts'
import type { Ulimit } from '../runtime/index.ts'

export interface BuildRequest {
  /** The build context: a directory, a git or http(s) address (of an archive or a Dockerfile), or `-` for `contextStream`. */
  readonly context: string
  /** What `-` stands for: a tar, compressed or not, or a Dockerfile (then the context is empty). */
  readonly contextStream?: AsyncIterable<Uint8Array> | undefined
  /** Path of the Dockerfile; it need not lie in the context. One that is not absolute is in the context, if that is no directory. */
  readonly dockerfile: string
  /** The Dockerfile itself, when it is in no file: `dockerfile` is not looked at then. */
  readonly dockerfileStream?: AsyncIterable<Uint8Array> | undefined
  /**
   * `--build-context`: by name, a directory, an address as in `context`, `docker-image://NAME` or `oci-layout://PATH[:TAG][@DIGEST]`. It stands in for the
   * stage or the image of that name.
   */
  readonly namedContexts?: ReadonlyMap<string, string> | undefined
  /** Full references (`formatReference`) that the image gets. */
  readonly tags: readonly string[]
  /** `--build-arg`: a value, or `undefined` to take this process's environment variable of that name, if there is one. */
  readonly buildArgs: ReadonlyMap<string, string | undefined>
  /** Stage name or number; the last stage when absent. */
  readonly target?: string | undefined
  readonly noCache: boolean
  /** Names of stages that run again, and with them those that stand on them. */
  readonly noCacheStages?: readonly string[] | undefined
  /** Tags are asked for at their registries, though the store has them. */
  readonly pull?: boolean | undefined
  /** Every file of the context is read, whether it looks changed or not. */
  readonly noStatCache?: boolean
  /** `--secret`, by id: what `RUN --mount=type=secret` gets. */
  readonly secrets?: ReadonlyMap<string, SecretSource> | undefined
  readonly network: 'host' | 'none'
  readonly limits: Limits
  readonly container?: ContainerOptions | undefined
  /** Added to the image's own. */
  readonly labels: ReadonlyMap<string, string>
  /** Seconds since 1970 (SOURCE_DATE_EPOCH): the image's dates, and the latest modification time of files in its layers. */
  readonly sourceDateEpoch?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** Read when a RUN wants it. A variable that is not set is an empty secret, as in BuildKit. */
export type SecretSource = { readonly file: string } | { readonly env: string }

/** Of each RUN. */
export interface Limits {
  /** Bytes. */
  readonly memoryBytes?: number
  readonly cpus?: number
  readonly pids?: number
}

/** What the container of each RUN is like. */
export interface ContainerOptions {
  /** Further lines of /etc/hosts. */
  readonly extraHosts?: readonly (readonly [address: string, name: string])[] | undefined
  /** Size of /dev/shm. */
  readonly shmBytes?: number | undefined
  readonly ulimits?: readonly Ulimit[] | undefined
  /** A path in the cgroup hierarchies, below which those of RUN are made. */
  readonly cgroupParent?: string | undefined
}

/** `id` numbers the steps of a build in the order in which they began, from 1. */
export type BuildEvent =
  /** `title` as BuildKit shows it: `[build 2/4] RUN make`. */
  | { readonly kind: 'started'; readonly id: number; readonly title: string }
  | { readonly kind: 'cached'; readonly id: number }
  /** What a RUN wrote, as it came; a line may be in several parts. */
  | { readonly kind: 'output'; readonly id: number; readonly chunk: Buffer }
  /** A line about a step that takes its time, e.g. `exporting layer 2 of 3`. */
  | { readonly kind: 'note'; readonly id: number; readonly text: string }
  | { readonly kind: 'done'; readonly id: number }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string }
  /** Stopped because another step failed, or the build was interrupted. */
  | { readonly kind: 'canceled'; readonly id: number }
  /** Of the whole build; `frame` as in errors. */
  | { readonly kind: 'warning'; readonly message: string; readonly frame?: string }

export type BuildObserver = (event: BuildEvent) => void

export interface BuildResult {
  /** Digest of the image's config. */
  readonly imageId: BlobDigest
  readonly manifestDigest: BlobDigest
  readonly steps: { readonly total: number; readonly cached: number }
}
