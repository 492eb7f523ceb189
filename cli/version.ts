import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The package's, which lies above both the sources and the bundle. */
export function packageVersion(): string {
  const path = join(dirname(dirname(fileURLToPath(import.meta.url))), 'package.json')
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { readonly version: string }
  return version
}
