/**
 * The Dockerfile language: text to a lossless syntax tree and typed instructions, word expansion, ignore files, and
 * source frames for messages. Pure: it reads no files, imports no other folder and no package.
 */
export { DockerfileError } from './errors.ts'
export type { DockerfileErrorSource } from './errors.ts'
export { expand, expandWord, expandWords } from './expand.ts'
export type { ExpandOptions, Expansion } from './expand.ts'
export { parseIgnoreFile } from './ignoreFile.ts'
export type { IgnorePattern } from './ignoreFile.ts'
export { createIgnoreMatcher } from './ignoreMatcher.ts'
export type { IgnoreMatcher } from './ignoreMatcher.ts'
export { parse, print } from './parse.ts'
export { errorAt, frame } from './source.ts'
export { stagesOf } from './stages.ts'
export type { Stage } from './stages.ts'
export type {
  Add,
  Arg,
  ArgDeclaration,
  Cmd,
  Command,
  Copy,
  Directive,
  Dockerfile,
  Entrypoint,
  Env,
  EscapeToken,
  Expose,
  From,
  Healthcheck,
  Heredoc,
  Instruction,
  Label,
  Maintainer,
  Node,
  Onbuild,
  Pair,
  Position,
  Range,
  Run,
  Shell,
  Stopsignal,
  Token,
  TokenKind,
  User,
  Volume,
  Word,
  Workdir,
} from './types.ts'
