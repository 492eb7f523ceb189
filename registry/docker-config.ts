import { mkdir, open, readFile, realpath, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { TbuildError } from '../errors.ts'
import { errorParts, isRecord } from './errors.ts'

/** `config.json` of docker, with every key that we do not know kept as it is. */
export type DockerConfig = Readonly<Record<string, unknown>>

/** `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. */
export function configFile(): string {
  return join(process.env['DOCKER_CONFIG'] || join(homedir(), '.docker'), 'config.json')
}

/** An empty object if there is no file. Throws `CONFIG_INVALID`. */
export async function readConfig(): Promise<DockerConfig> {
  const file = configFile()
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorParts(error).code)) return {}
    throw new TbuildError('CONFIG_INVALID', `cannot read ${file}: ${errorParts(error).message}`)
  }
  if (text.trim() === '') return {}
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    // The parser's own message quotes the text, and the text holds passwords.
    parsed = undefined
  }
  if (!isRecord(parsed)) {
    throw new TbuildError('CONFIG_INVALID', `${file} is not a JSON object`, {
      hint: 'repair it, or move it away and log in again',
    })
  }
  return parsed
}

/** Replaces the file in one step, readable by its owner only. A link is kept and its target replaced. */
export async function writeConfig(config: DockerConfig): Promise<void> {
  await mkdir(dirname(configFile()), { recursive: true, mode: 0o700 })
  const file = await realpath(configFile()).catch(() => configFile())
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await using handle = await open(temporary, 'wx', 0o600)
    await handle.writeFile(`${JSON.stringify(config, undefined, '\t')}\n`)
    await handle.sync()
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw new TbuildError('CONFIG_INVALID', `cannot write ${file}: ${errorParts(error).message}`)
  }
}

/** A key that should hold an object; empty if it is missing or something else. */
export function section(config: DockerConfig, name: string): Readonly<Record<string, unknown>> {
  const value = config[name]
  return isRecord(value) ? value : {}
}
