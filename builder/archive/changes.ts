/** `--change` of import: instructions of a Dockerfile that only touch an image's config. */
import { posix } from 'node:path'
import type { ContainerConfig } from '../../cas/index.ts'
import {
  DockerfileError,
  expandWord,
  expandWords,
  parse,
  type Command,
  type Instruction,
  type Pair,
  type Word,
} from '../../dockerfile-parser/index.ts'
import { TbuildError } from '../../errors.ts'

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** The config after the changes, in their order. Throws `CHANGE_INVALID`. */
export function applyChanges(config: ContainerConfig, changes: readonly string[]): ContainerConfig {
  const changed: Mutable<ContainerConfig> = { ...config }
  for (const change of changes) {
    try {
      // The parser wants a whole file; the first line stands for the image.
      for (const instruction of parse(`FROM scratch\n${change}`, { file: '--change' }).instructions.slice(1))
        apply(changed, instruction)
    } catch (error) {
      if (!(error instanceof DockerfileError)) throw error
      throw new TbuildError('CHANGE_INVALID', `--change ${JSON.stringify(change)}: ${error.message}`, {
        hint: error.hint,
        cause: error,
      })
    }
  }
  return changed
}

function apply(config: Mutable<ContainerConfig>, instruction: Instruction): void {
  const lookup = (name: string): string | undefined => envOf(config).get(name)
  const text = (word: Word): string => expandWord(word.raw, { lookup })
  const pairs = (all: readonly Pair[]): [string, string][] =>
    all.map(({ name, value }) => [text(name), text(value)])
  switch (instruction.kind) {
    case 'CMD':
      config.Cmd = argsOf(instruction.command)
      return
    case 'ENTRYPOINT':
      config.Entrypoint = argsOf(instruction.command)
      return
    case 'ENV': {
      const env = envOf(config)
      for (const [name, value] of pairs(instruction.pairs)) env.set(name, value)
      config.Env = [...env].map(([name, value]) => `${name}=${value}`)
      return
    }
    case 'EXPOSE': {
      const ports = instruction.ports.flatMap((word) => expandWords(word.raw, { lookup })).flatMap(portsOf)
      config.ExposedPorts = { ...config.ExposedPorts, ...asSet(ports) }
      return
    }
    case 'LABEL':
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(instruction.pairs)) }
      return
    case 'USER':
      config.User = text(instruction.user)
      return
    case 'VOLUME':
      config.Volumes = { ...config.Volumes, ...asSet(instruction.paths.map(text)) }
      return
    case 'WORKDIR':
      config.WorkingDir = posix.resolve('/', config.WorkingDir ?? '/', text(instruction.path))
      return
    case 'STOPSIGNAL':
      config.StopSignal = text(instruction.signal)
      return
    case 'ADD':
    case 'ARG':
    case 'COPY':
    case 'FROM':
    case 'HEALTHCHECK':
    case 'MAINTAINER':
    case 'ONBUILD':
    case 'RUN':
    case 'SHELL':
      throw new DockerfileError('CHANGE_UNSUPPORTED', `${instruction.kind} is not possible here`, {
        hint: 'use CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR',
      })
  }
}

function envOf(config: ContainerConfig): Map<string, string> {
  return new Map(
    (config.Env ?? []).map((entry) => {
      const at = entry.indexOf('=')
      return at === -1 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)]
    }),
  )
}

function argsOf(command: Command): readonly string[] {
  return command.form === 'exec' ? command.args : ['/bin/sh', '-c', command.text]
}

function asSet(names: readonly string[]): Record<string, object> {
  return Object.fromEntries(names.map((name) => [name, {}]))
}

/** `80`, `53/udp`, `8000-8010`, as the config has them. */
function portsOf(text: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(text)
  const first = Number(match?.[1])
  const last = Number(match?.[2] ?? match?.[1])
  if (match === null || last < first || last > 65535)
    throw new DockerfileError('PORT_INVALID', `${JSON.stringify(text)} is not a port`, {
      hint: 'e.g. 80, 53/udp or 8000-8010',
    })
  const protocol = (match[3] ?? 'tcp').toLowerCase()
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`)
}
