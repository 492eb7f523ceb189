import { TbuildError } from '../errors.ts'
import { cleanText, errorParts, isRecord } from './errors.ts'

const MAX_OUTPUT = 1024 * 1024
/** A keyring may ask its owner for a password first. */
const TIMEOUT = 60_000

/**
 * Runs `docker-credential-NAME ACTION` with `input` on stdin (the protocol of docker-credential-helpers). Gives what `get`
 * prints; undefined when the helper knows nothing of it. Throws `CREDENTIAL_HELPER_FAILED`.
 */
export async function runHelper(
  name: string,
  action: 'get' | 'store' | 'erase',
  input: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name))
    throw failed(JSON.stringify(name).slice(0, 80), 'that is not the name of a helper')
  const program = `docker-credential-${name}`
  const { code, output } = await run(program, action, input)
  if (code !== 0) {
    if (action === 'get' && /credentials not found/i.test(output)) return undefined
    // Only the first line, and never what `get` printed as its answer: that is the secret.
    const words = output.trimStart().startsWith('{') ? '' : cleanText(output.trim().split('\n')[0] ?? '', 200)
    throw failed(program, `${action} ended with ${code}${words === '' ? '' : `: ${words}`}`)
  }
  if (action !== 'get') return {}
  let parsed: unknown
  try {
    parsed = JSON.parse(output)
  } catch {
    parsed = undefined
  }
  if (!isRecord(parsed)) throw failed(program, 'its answer is not a JSON object')
  return parsed
}

async function run(
  program: string,
  action: string,
  input: string,
): Promise<{ code: number | string; output: string }> {
  const { spawn } = await import('node:child_process')
  const { promise, resolve, reject } = Promise.withResolvers<{ code: number | string; output: string }>()
  const child = spawn(program, [action], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: process.env,
  })
  const chunks: Buffer[] = []
  let length = 0
  child.stdout.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > MAX_OUTPUT) child.kill('SIGKILL')
    else chunks.push(chunk)
  })
  // Not spawn's own time-out: Node leaves its timer running when the program is missing, for the whole 60 s.
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT)
  child.on('error', (error) => {
    const { code, message } = errorParts(error)
    const missing = code === 'ENOENT'
    reject(
      failed(
        program,
        missing ? 'it is not installed' : message,
        missing ? "install it, or remove it from docker's config.json" : undefined,
      ),
    )
  })
  child.on('close', (code, signal) => {
    resolve({ code: code ?? signal ?? 'no code', output: Buffer.concat(chunks).toString('utf8') })
  })
  // A helper that ends without reading is its own affair; the exit code tells.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  return promise.finally(() => clearTimeout(timer))
}

function failed(program: string, why: string, hint?: string): TbuildError {
  return new TbuildError('CREDENTIAL_HELPER_FAILED', `the credential helper ${program} failed: ${why}`, {
    hint,
  })
}
