/** The types of the folder's face. */
import type { Readable, Writable } from 'node:stream'

/** What a container may use; what is absent is not limited. */
export interface Limits {
  /** Bytes of memory; swap is within it where the kernel accounts swap. */
  readonly memoryBytes?: number
  /** Processors, e.g. 0.5. */
  readonly cpus?: number
  /** Processes and threads. */
  readonly pids?: number
}

/** As docker calls them. */
export type UlimitName =
  | 'core'
  | 'cpu'
  | 'data'
  | 'fsize'
  | 'locks'
  | 'memlock'
  | 'msgqueue'
  | 'nice'
  | 'nofile'
  | 'nproc'
  | 'rss'
  | 'rtprio'
  | 'rttime'
  | 'sigpending'
  | 'stack'

/** A limit of each process, setrlimit(2), in its units there; `Infinity` is none. The soft one is at most the hard one. */
export interface Ulimit {
  readonly name: UlimitName
  readonly soft: number
  readonly hard: number
}

/** As in `child_process`; a number is a descriptor of this process. `'pipe'` is a real pipe, not a socket. */
export type Stdio = 'ignore' | 'inherit' | 'pipe' | number

/** What is mounted into a root, as a RUN asks for it. */
export type ContainerMount = MountPlace &
  (
    | {
        readonly kind: 'mount'
        /** A detached mount of the caller's, which this container alone uses; it stays the caller's to close. */
        readonly fd: number
        /** What of it is mounted, a byte string (one character a byte), without symlinks; '' is all. */
        readonly path: string
      }
    /** A directory or file of the host. */
    | { readonly kind: 'host'; readonly fd: number }
    /** Without a size, half of the memory. */
    | { readonly kind: 'tmpfs'; readonly sizeBytes?: number | undefined }
    /** A file that is nowhere but in memory. */
    | {
        readonly kind: 'file'
        readonly content: Uint8Array
        readonly mode: number
        readonly uid: number
        readonly gid: number
      }
  )

interface MountPlace {
  /** Absolute; symlinks are followed inside the root. What is not there is made, and taken away afterwards. */
  readonly target: string
  readonly readOnly: boolean
}

export interface ContainerSpec {
  /**
   * Descriptor of a detached (overlay) mount; stays the caller's to close, when the container has ended. It serves one
   * container at a time (before kernel 6.15 one in all): what one made to mount on is removed when it ends, and the
   * kernel then unmounts what another has there.
   */
  readonly root: number
  /** argv; `[0]` is searched in the PATH of `env`, inside the root. */
  readonly args: readonly string[]
  /** `KEY=value` each. */
  readonly env: readonly string[]
  /** Resolved inside the root; must be there. */
  readonly cwd: string
  /** `''`, `name`, `uid`, `name:group`, `uid:gid`. */
  readonly user: string
  readonly hostname: string
  /** `none`: a network namespace of its own with loopback up. `host`: the host's. */
  readonly network: 'none' | 'host'
  readonly limits: Limits
  /** Those that differ from what this process has. */
  readonly ulimits?: readonly Ulimit[] | undefined
  /**
   * The cgroup below which the container's are made, as a path in each hierarchy, e.g. `/jobs/nightly` or `jobs.slice`. Made if it is not there,
   * and left.
   */
  readonly cgroupParent?: string | undefined
  /** Further lines for /etc/hosts: `[address, name]`. */
  readonly extraHosts?: readonly (readonly [address: string, name: string])[] | undefined
  /** /etc/resolv.conf, hosts and hostname are read-only (a build) or writable (a run). */
  readonly readonlyEtcFiles: boolean
  /** Size of /dev/shm; 64 MiB unless told. */
  readonly shmBytes?: number | undefined
  /** In this order; one may lie in another that comes before it. */
  readonly mounts?: readonly ContainerMount[]
  readonly stdio: { readonly stdin: Stdio; readonly stdout: Stdio; readonly stderr: Stdio }
  /** A terminal inside the container, relayed to stdin and stdout. */
  readonly tty: boolean
  /** Name of this process's lease: cgroups are named for it, so that a sweep finds those of dead processes. */
  readonly scope: string
  /** Kept open by the launcher while the container lives (a flock'ed lease); they never reach the container. */
  readonly inheritFds?: readonly number[]
}

export interface Exit {
  /** 128 + n when signal n ended it. */
  readonly exitCode: number
  /** E.g. `SIGKILL`. */
  readonly signal?: string
  /** It failed, and the kernel killed one of its processes for memory. */
  readonly oomKilled: boolean
  readonly usage: { readonly cpuMicros?: number; readonly peakMemoryBytes?: number }
}

export interface Container {
  /** The launcher's. */
  readonly pid: number
  /** Present when asked for as `'pipe'`. */
  readonly stdin?: Writable
  readonly stdout?: Readable
  readonly stderr?: Readable
  /**
   * Signal the container's PID 1, as `docker kill` does: it gets what it has a handler for; SIGKILL and SIGSTOP always.
   */
  kill(signal: NodeJS.Signals): void
  /** Resolves when every process of the container is gone and its cgroups are removed. */
  readonly exited: Promise<Exit>
}
