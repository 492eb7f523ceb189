/** The checks: BuildKit's, by its names, texts and pages (dockerfile 1.27), and a few of ours, in the same style. */

export interface Rule {
  readonly name: string
  readonly description: string
  /** Page of the check in Docker's documentation; empty for ours, and for those that it has no page for. */
  readonly url: string
  /** Runs only if it is asked for by `experimental=`. */
  readonly experimental: boolean
  /** `info` for ours: facts that are worth knowing, and no reason to fail a build that Docker would do. */
  readonly level: 'warning' | 'info'
}

const rule = (name: string, page: string, description: string, experimental = false): Rule => ({
  name,
  description,
  url: page === '' ? '' : `https://docs.docker.com/go/dockerfile/rule/${page}/`,
  experimental,
  level: 'warning',
})
const own = (name: string, description: string): Rule => ({
  name,
  description,
  url: '',
  experimental: false,
  level: 'info',
})

const ALL = {
  StageNameCasing: rule('StageNameCasing', 'stage-name-casing', 'Stage names should be lowercase'),
  FromAsCasing: rule(
    'FromAsCasing',
    'from-as-casing',
    "The 'as' keyword should match the case of the 'from' keyword",
  ),
  NoEmptyContinuation: rule(
    'NoEmptyContinuation',
    'no-empty-continuation',
    'Empty continuation lines will become errors in a future release',
  ),
  ConsistentInstructionCasing: rule(
    'ConsistentInstructionCasing',
    'consistent-instruction-casing',
    'All commands within the Dockerfile should use the same casing (either upper or lower)',
  ),
  DuplicateStageName: rule('DuplicateStageName', 'duplicate-stage-name', 'Stage names should be unique'),
  ReservedStageName: rule(
    'ReservedStageName',
    'reserved-stage-name',
    'Reserved words should not be used as stage names',
  ),
  JSONArgsRecommended: rule(
    'JSONArgsRecommended',
    'json-args-recommended',
    'JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals',
  ),
  MaintainerDeprecated: rule(
    'MaintainerDeprecated',
    'maintainer-deprecated',
    'The MAINTAINER instruction is deprecated, use a label instead to define an image author',
  ),
  UndefinedArgInFrom: rule(
    'UndefinedArgInFrom',
    'undefined-arg-in-from',
    'FROM command must use declared ARGs',
  ),
  WorkdirRelativePath: rule(
    'WorkdirRelativePath',
    'workdir-relative-path',
    'Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes',
  ),
  UndefinedVar: rule('UndefinedVar', 'undefined-var', 'Variables should be defined before their use'),
  MultipleInstructionsDisallowed: rule(
    'MultipleInstructionsDisallowed',
    'multiple-instructions-disallowed',
    'Multiple instructions of the same type should not be used in the same stage',
  ),
  LegacyKeyValueFormat: rule(
    'LegacyKeyValueFormat',
    'legacy-key-value-format',
    'Legacy key/value format with whitespace separator should not be used',
  ),
  InvalidBaseImagePlatform: rule(
    'InvalidBaseImagePlatform',
    '',
    'Base image platform does not match expected target platform',
  ),
  RedundantTargetPlatform: rule(
    'RedundantTargetPlatform',
    'redundant-target-platform',
    'Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior',
  ),
  SecretsUsedInArgOrEnv: rule(
    'SecretsUsedInArgOrEnv',
    'secrets-used-in-arg-or-env',
    'Sensitive data should not be used in the ARG or ENV commands',
  ),
  InvalidDefaultArgInFrom: rule(
    'InvalidDefaultArgInFrom',
    'invalid-default-arg-in-from',
    'Default value for global ARG results in an empty or invalid base image name',
  ),
  FromPlatformFlagConstDisallowed: rule(
    'FromPlatformFlagConstDisallowed',
    'from-platform-flag-const-disallowed',
    'FROM --platform flag should not use a constant value',
  ),
  CopyIgnoredFile: rule(
    'CopyIgnoredFile',
    'copy-ignored-file',
    'Attempting to Copy file that is excluded by .dockerignore',
  ),
  InvalidDefinitionDescription: rule(
    'InvalidDefinitionDescription',
    'invalid-definition-description',
    'Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.',
    true,
  ),
  ExposeProtoCasing: rule(
    'ExposeProtoCasing',
    'expose-proto-casing',
    'Protocol in EXPOSE instruction should be lowercase',
  ),
  ExposeInvalidFormat: rule(
    'ExposeInvalidFormat',
    'expose-invalid-format',
    'IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release',
  ),
  UnpinnedBaseImage: own(
    'UnpinnedBaseImage',
    'An image without a tag, or with the tag latest, is another one from day to day',
  ),
  AptGetInstallWithoutUpdate: own(
    'AptGetInstallWithoutUpdate',
    'apt-get install uses lists of packages from an older layer, or none, unless apt-get update runs in the same step',
  ),
  CopyBeforeDependencyInstall: own(
    'CopyBeforeDependencyInstall',
    'After a COPY of everything, any changed file makes the dependencies be installed again',
  ),
  CdInsteadOfWorkdir: own('CdInsteadOfWorkdir', 'cd lasts until the end of its RUN; WORKDIR stays'),
  SecretInValue: own('SecretInValue', 'A value that looks like a key or token stays readable in the image'),
} as const

export type RuleName = keyof typeof ALL

export const RULES: Readonly<Record<RuleName, Rule>> = ALL

/** Of our documentation, from the project's root. */
export function pageOf(name: string): string {
  return `docs/checks/${name}.md`
}
