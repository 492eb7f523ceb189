/** What a named context is in a plan: the image it is, or, of a directory, its files on nothing. */
import type { Dockerfile, Range } from '../../dockerfile-parser/index.ts'
import type { ContextDirectory, NamedContext } from '../contexts.ts'
import type { Base, CopyStep, HistoryItem } from './types.ts'

export interface StandIn {
  readonly text: string
  readonly base: Exclude<Base, { kind: 'stage' }>
  readonly steps: readonly CopyStep[]
  readonly history: readonly HistoryItem[]
}

/** Instead of a stage's instructions. */
export function standIn(context: NamedContext, tree: Dockerfile, range: Range): StandIn {
  const none = { steps: [], history: [] }
  if (context.kind === 'scratch') return { text: 'FROM scratch', base: context, ...none }
  if (context.kind === 'image') return { text: `FROM ${context.name}`, base: context, ...none }
  const step = copyOf(context.directory, tree, range)
  return {
    text: 'FROM scratch',
    base: { kind: 'scratch' },
    steps: [step],
    history: [{ createdBy: step.text, step }],
  }
}

function copyOf(directory: ContextDirectory, tree: Dockerfile, range: Range): CopyStep {
  return {
    kind: 'copy',
    text: `COPY --from=${directory.name} . /`,
    tree,
    range,
    instruction: 'COPY',
    source: { kind: 'context', directory },
    patterns: ['.'],
    remotes: new Map(),
    inline: [],
    destination: '/',
    excludes: [],
    unpack: false,
    unpackRemote: false,
    parents: false,
  }
}
