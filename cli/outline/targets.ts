/** `--call=targets`: the stages, as they are written. */
import { stagesOf, type Dockerfile } from '../../dockerfile-parser/index.ts'
import { commentsOf, describe, locationOf } from './comments.ts'
import type { TargetList } from './types.ts'

/** Throws DockerfileError. */
export function targetsOf(tree: Dockerfile, source: Uint8Array): TargetList {
  const { stages } = stagesOf(tree)
  const comments = commentsOf(tree)
  const targets = stages.map(({ index, name, from }) => {
    const description = name === undefined ? undefined : describe(comments.get(from), name)
    return {
      ...(name !== undefined && { name }),
      ...(index === stages.length - 1 && { default: true as const }),
      ...(description && { description }),
      base: from.image.raw,
      ...(from.platform !== undefined && { platform: from.platform.raw }),
      location: locationOf(from.range),
    }
  })
  return { targets, sources: [Buffer.from(source).toString('base64')] }
}
