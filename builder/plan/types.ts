/** The plan: what a build would do, with every variable expanded, and nothing done yet. */
import type { ContainerConfig, Image } from '../../cas/index.ts'
import type { Dockerfile, Range } from '../../dockerfile-parser/index.ts'
import type { ContextDirectory } from '../contexts.ts'
import type { Remote } from '../fetch/remote.ts'

export type Source =
  /** The build context, or one of `--build-context` that is a directory. */
  | { readonly kind: 'context'; readonly directory?: ContextDirectory | undefined }
  | { readonly kind: 'stage'; readonly stage: StagePlan }
  | { readonly kind: 'image'; readonly image: Image }

interface StepBase {
  /** The instruction as it is shown. */
  readonly text: string
  /** Where it stands: in the Dockerfile, or in a trigger of the base image. */
  readonly tree: Dockerfile
  readonly range: Range
}

export interface ExecStep extends StepBase {
  readonly kind: 'exec'
  readonly args: readonly string[]
  /** `KEY=value`, sorted as they were set. */
  readonly env: readonly string[]
  /** Proxies from build arguments: the command sees them, the key and the history do not. */
  readonly hiddenEnv: readonly string[]
  readonly cwd: string
  readonly user: string
  readonly network: 'host' | 'none'
  /** In the order in which they are mounted. */
  readonly mounts: readonly RunMount[]
  /** Contents of an executable file that is `args[0]` while the command runs. */
  readonly script?: Uint8Array | undefined
}

/** What is taken from somewhere: by a COPY or ADD, or to be mounted. */
export interface Taking {
  readonly source: Source
  readonly patterns: readonly string[]
  /** Those of the patterns that are addresses. */
  readonly remotes: ReadonlyMap<string, Remote>
  /** Files given in the Dockerfile itself. */
  readonly inline: readonly { readonly name: string; readonly content: Uint8Array }[]
  /** Absolute; a `/` at its end says that it is a directory. */
  readonly destination: string
  readonly chown?: string | undefined
  readonly excludes: readonly string[]
  /** COPY: sources keep the directories of their names. */
  readonly parents: boolean
}

export interface CopyStep extends StepBase, Taking {
  readonly kind: 'copy'
  readonly instruction: 'COPY' | 'ADD'
  readonly chmod?: string | undefined
  /** ADD: local archives are unpacked. */
  readonly unpack: boolean
  /** ADD: fetched ones too. */
  readonly unpackRemote: boolean
}

/** `target` is absolute. */
export type RunMount = { readonly range: Range } & (
  | {
      readonly kind: 'bind'
      readonly target: string
      readonly readOnly: boolean
      /** One name. */
      readonly taking: Taking
    }
  | {
      readonly kind: 'tmpfs'
      readonly target: string
      readonly readOnly: boolean
      readonly sizeBytes: number | undefined
    }
  | {
      readonly kind: 'cache'
      readonly target: string
      readonly readOnly: boolean
      readonly id: string
      readonly sharing: 'shared' | 'private' | 'locked'
      /** What a new one begins as; never both. */
      readonly owner: { readonly uid: number; readonly gid: number; readonly mode: number } | undefined
      readonly taking: Taking | undefined
    }
  | {
      readonly kind: 'secret'
      readonly id: string
      /** Not mounted, if there is none. */
      readonly target: string | undefined
      /** Variable that has it. */
      readonly env: string | undefined
      readonly required: boolean
      readonly mode: number
      readonly uid: number
      readonly gid: number
    }
)

export interface WorkdirStep extends StepBase {
  readonly kind: 'workdir'
  readonly path: string
  readonly user: string
}

/** A step that makes a layer. */
export type Step = ExecStep | CopyStep | WorkdirStep

/** One entry of the image's history: of a step, or of an instruction that only changes the config. */
export interface HistoryItem {
  readonly createdBy: string
  readonly step: Step | undefined
}

export type Base =
  | { readonly kind: 'scratch' }
  | { readonly kind: 'image'; readonly image: Image; readonly name: string }
  | { readonly kind: 'stage'; readonly stage: StagePlan }

export interface StagePlan {
  readonly index: number
  /** As it is shown: its name, `stage-N`, or '' when it is the only one. */
  readonly label: string
  readonly base: Base
  readonly from: StepBase
  readonly steps: readonly Step[]
  readonly history: readonly HistoryItem[]
  /** When all its instructions are done. */
  readonly config: ContainerConfig
  readonly author: string | undefined
  /** All its steps run again: it was asked for, or what it stands on runs again. */
  readonly noCache: boolean
}
