/**
 * The Dockerfile language: text to a lossless syntax tree and typed instructions, word expansion, build checks, ignore files, and
 * source frames for messages. Pure: it reads no files, imports no other folder and no package. README.md tells how to use it alone.
 */
export { check } from './check/check.ts'
export type { CheckResult } from './check/check.ts'
export type { BaseImage, CheckOptions } from './check/context.ts'
export { renderJson, renderSarif, renderText } from './check/render.ts'
export type { Finding } from './check/report.ts'
export { RULES } from './check/rules.ts'
export type { Rule, RuleName } from './check/rules.ts'
export { DockerfileError } from './errors.ts'
export type { DockerfileErrorSource } from './errors.ts'
export { expand, expandWord, expandWords } from './expand.ts'
export type { ExpandOptions, Expansion } from './expand.ts'
export { parseIgnoreFile } from './ignoreFile.ts'
export type { IgnorePattern } from './ignoreFile.ts'
export { createIgnoreMatcher } from './ignoreMatcher.ts'
export type { IgnoreMatcher } from './ignoreMatcher.ts'
export { parseImageName } from './imageName.ts'
export type { ImageName } from './imageName.ts'
export { parseDevice, parseMount } from './mount.ts'
export type { Device, Mount, MountType } from './mount.ts'
export { parse, print, printBytes } from './parse.ts'
export { formatPlatform, parsePlatform } from './platform.ts'
export type { Platform } from './platform.ts'
export { parsePortSpec, portsOf } from './ports.ts'
export type { PortSpec } from './ports.ts'
export { globalScope, isBuildkitArg, isProxyArg, platformArgs } from './scope.ts'
export type { GlobalScope } from './scope.ts'
export { isSignal } from './signals.ts'
export { errorAt, frame, locate } from './source.ts'
export { findStage, stagesOf, stagesToBuild } from './stages.ts'
export type { Stage } from './stages.ts'
export { isCompatibleSyntax } from './syntaxImage.ts'
export { encode } from './text.ts'
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
