/** The syntax tree: data only. Every range is in the source text as it was given. */

/** Offset in UTF-16 units of the source text; line and column 1-based, column in UTF-16 units. */
export interface Position {
  readonly offset: number
  readonly line: number
  readonly column: number
}

/** End exclusive. */
export interface Range {
  readonly start: Position
  readonly end: Position
}

/** Raw text before expansion. Continuations are joined and, in a flag's value, quotes removed, as BuildKit does. */
export interface Word {
  readonly raw: string
  readonly range: Range
}

export interface Heredoc {
  /** The delimiter, unquoted. */
  readonly name: string
  /**
   * The lines, each with its line ending; leading tabs stripped when `chomp`. Written as bytes by `encode`, for it may hold bytes that
   * are not UTF-8.
   */
  readonly content: string
  /** The lines as they stand in the source. */
  readonly rawContent: string
  /** The delimiter was not quoted: variables in the content are to be expanded. */
  readonly expand: boolean
  /** `<<-` */
  readonly chomp: boolean
  /** The file descriptor, if one was written (`3<<EOF`). */
  readonly fd?: number | undefined
  /** From the first line of the content to the end of the line that ends it. */
  readonly range: Range
}

/** A command: text for the shell, or the JSON form's arguments. */
export type Command =
  | { readonly form: 'shell'; readonly text: string; readonly range: Range }
  | { readonly form: 'exec'; readonly args: readonly string[]; readonly range: Range }

interface InstructionBase {
  /** As written. */
  readonly keyword: Word
  /** Keyword to the last word, or to the end of the last heredoc. */
  readonly range: Range
  /** As BuildKit shows it: keyword and arguments, continuation lines joined, comments and heredoc bodies dropped. */
  readonly text: string
}

export interface From extends InstructionBase {
  readonly kind: 'FROM'
  readonly image: Word
  readonly platform?: Word | undefined
  /** The word between image and name, as written. */
  readonly asKeyword?: Word | undefined
  /** The stage's name as written; `Stage.name` has it in lower case. */
  readonly as?: Word | undefined
}

export interface Run extends InstructionBase {
  readonly kind: 'RUN'
  /**
   * What to run. With heredocs it is what BuildKit hands to the shell: the content, if the command is one heredoc
   * alone (see `script`), else the command line with the heredocs put back for the shell to read.
   */
  readonly command: Command
  readonly heredocs: readonly Heredoc[]
  /**
   * The one heredoc that is the whole command. If its `rawContent` begins with `#!`, BuildKit writes the content to an
   * executable file and runs that instead of the shell.
   */
  readonly script?: Heredoc | undefined
  /** Their fields can be told apart; `parseMount` reads them once variables are known. */
  readonly mounts: readonly Word[]
  readonly network?: Word | undefined
  readonly security?: Word | undefined
  /** Valid (`parseDevice`). */
  readonly devices: readonly Word[]
}

interface CopyBase extends InstructionBase {
  readonly sources: readonly Word[]
  readonly destination: Word
  /** Inline files given as sources; each is written under its `name`. */
  readonly heredocs: readonly Heredoc[]
  readonly chown?: Word | undefined
  readonly chmod?: Word | undefined
  readonly link: boolean
  readonly excludes: readonly Word[]
}

export interface Copy extends CopyBase {
  readonly kind: 'COPY'
  readonly from?: Word | undefined
  readonly parents: boolean
}

export interface Add extends CopyBase {
  readonly kind: 'ADD'
  readonly checksum?: Word | undefined
  readonly keepGitDir: boolean
  /** Undefined if the flag is absent: local archives are unpacked, remote ones are not. */
  readonly unpack?: boolean | undefined
}

export interface Pair {
  readonly name: Word
  readonly value: Word
  /** False for the old form `ENV name value`, which has one pair. */
  readonly equals: boolean
}

export interface Env extends InstructionBase {
  readonly kind: 'ENV'
  readonly pairs: readonly Pair[]
}

export interface Label extends InstructionBase {
  readonly kind: 'LABEL'
  readonly pairs: readonly Pair[]
}

export interface ArgDeclaration {
  /** As it is: variables in a name are not expanded. */
  readonly name: string
  readonly value?: Word | undefined
  readonly range: Range
}

export interface Arg extends InstructionBase {
  readonly kind: 'ARG'
  readonly args: readonly ArgDeclaration[]
}

export interface Workdir extends InstructionBase {
  readonly kind: 'WORKDIR'
  readonly path: Word
}

export interface User extends InstructionBase {
  readonly kind: 'USER'
  readonly user: Word
}

export interface Expose extends InstructionBase {
  readonly kind: 'EXPOSE'
  /** Each is one or more words after expansion (`expandWords`). */
  readonly ports: readonly Word[]
}

export interface Volume extends InstructionBase {
  readonly kind: 'VOLUME'
  readonly paths: readonly Word[]
}

export interface Cmd extends InstructionBase {
  readonly kind: 'CMD'
  readonly command: Command
}

export interface Entrypoint extends InstructionBase {
  readonly kind: 'ENTRYPOINT'
  readonly command: Command
}

export interface Shell extends InstructionBase {
  readonly kind: 'SHELL'
  readonly args: readonly string[]
}

export interface Stopsignal extends InstructionBase {
  readonly kind: 'STOPSIGNAL'
  readonly signal: Word
}

interface HealthcheckNone extends InstructionBase {
  readonly kind: 'HEALTHCHECK'
  readonly none: true
}

interface HealthcheckCommand extends InstructionBase {
  readonly kind: 'HEALTHCHECK'
  readonly none: false
  readonly command: Command
  /** Nanoseconds, as the image config has them; 0 means "inherit". So for the other three. */
  readonly interval?: number | undefined
  readonly timeout?: number | undefined
  readonly startPeriod?: number | undefined
  readonly startInterval?: number | undefined
  readonly retries?: number | undefined
}

export type Healthcheck = HealthcheckNone | HealthcheckCommand

export interface Onbuild extends InstructionBase {
  readonly kind: 'ONBUILD'
  /** Raw text as it goes into the image config, heredoc bodies included. */
  readonly trigger: string
  readonly instruction: Instruction
}

export interface Maintainer extends InstructionBase {
  readonly kind: 'MAINTAINER'
  readonly name: Word
}

export type Instruction =
  | From
  | Run
  | Copy
  | Add
  | Env
  | Arg
  | Label
  | Workdir
  | User
  | Expose
  | Volume
  | Cmd
  | Entrypoint
  | Shell
  | Stopsignal
  | Healthcheck
  | Onbuild
  | Maintainer

export type TokenKind =
  | 'bom'
  | 'keyword'
  | 'flag'
  | 'argument'
  | 'blank'
  | 'newline'
  | 'continuation'
  | 'comment'
  | 'heredoc'
  | 'heredoc-end'

/** The tokens of all nodes, one after the other, are the source. An argument broken by a continuation is two. */
export interface Token {
  readonly kind: TokenKind
  readonly text: string
  readonly range: Range
}

interface NodeBase {
  readonly range: Range
  readonly tokens: readonly Token[]
}

/** One or more whole lines, each with its line ending. */
export type Node =
  | (NodeBase & { readonly kind: 'bom' | 'blank' | 'comment' })
  | (NodeBase & { readonly kind: 'directive'; readonly directive: Directive })
  | (NodeBase & { readonly kind: 'instruction'; readonly instruction: Instruction })

export interface Directive {
  readonly name: 'syntax' | 'escape' | 'check'
  readonly value: string
  /** Of the value. */
  readonly range: Range
}

export type EscapeToken = '\\' | '`'

export interface Dockerfile {
  /** For messages only; nothing is read. */
  readonly file: string
  readonly source: string
  readonly escape: EscapeToken
  readonly directives: {
    readonly syntax?: Directive | undefined
    readonly escape?: Directive | undefined
    readonly check?: Directive | undefined
  }
  /** All of the source, in order. */
  readonly nodes: readonly Node[]
  readonly instructions: readonly Instruction[]
}
