import { parseJson } from '../../cas/index.ts'
import { invalid } from './spool.ts'

/** An image of docker's archive; names of files in it. */
export interface DockerEntry {
  readonly config: string
  /** Short names, `app:latest`. */
  readonly repoTags: readonly string[]
  readonly layers: readonly string[]
}

/** `manifest.json` of docker's archive (moby, image/tarexport). Throws `ARCHIVE_INVALID`, which names the field. */
export function parseDockerManifest(bytes: Uint8Array): readonly DockerEntry[] {
  let value: unknown
  try {
    value = parseJson(bytes)
  } catch {
    throw invalid('manifest.json is not JSON')
  }
  if (!Array.isArray(value)) throw invalid('manifest.json must be a list')
  return value.map((entry: unknown, i) => {
    if (typeof entry !== 'object' || entry === null) throw invalid(`manifest.json: [${i}] must be an object`)
    const fields = new Map<string, unknown>(Object.entries(entry))
    const config = fields.get('Config')
    if (typeof config !== 'string') throw invalid(`manifest.json: [${i}].Config must be a string`)
    return { config, repoTags: strings(fields, 'RepoTags', i), layers: strings(fields, 'Layers', i) }
  })
}

function strings(fields: ReadonlyMap<string, unknown>, key: string, i: number): readonly string[] {
  const value = fields.get(key) ?? []
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value
  throw invalid(`manifest.json: [${i}].${key} must be a list of strings`)
}
