/** `tbuild build --call=outline` and `--call=targets`: a Dockerfile is told about, nothing is built. */
import { parse } from '../../dockerfile-parser/index.ts'
import { filledArgs, readDockerfile, type DockerfileRequest } from '../dockerfile.ts'
import { out } from '../output.ts'
import { hostArchitecture } from '../platform.ts'
import { outlineOf } from './outline.ts'
import { printOutline, printTargets } from './print.ts'
import { targetsOf } from './targets.ts'

export interface OutlineRequest extends DockerfileRequest {
  readonly method: 'outline' | 'targets'
  readonly format: 'text' | 'json'
  readonly target: string | undefined
  /** A value, or `undefined` to take the environment's. */
  readonly buildArgs: ReadonlyMap<string, string | undefined>
  readonly namedContexts: ReadonlySet<string>
}

/** Prints it to stdout. Throws DockerfileError; TbuildError as `readDockerfile`, `TARGET_NOT_FOUND`. */
export async function outlineDockerfile(request: OutlineRequest): Promise<number> {
  const { text, file } = await readDockerfile(request)
  const tree = parse(text, { file })
  const { method, format, target, namedContexts } = request
  if (method === 'targets') {
    const list = targetsOf(tree, text)
    out(format === 'json' ? json(list) : printTargets(list))
    return 0
  }
  const outline = outlineOf(tree, text, {
    target,
    namedContexts,
    buildArgs: filledArgs(request.buildArgs),
    platform: { os: 'linux', architecture: hostArchitecture(), variant: '' },
  })
  out(format === 'json' ? json(outline) : printOutline(outline))
  return 0
}

function json(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}
