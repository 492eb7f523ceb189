/** For tests only. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Scratch extends Disposable {
  readonly path: string
}

export function scratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), 'tbuild-linux-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

export interface OtherProcess extends AsyncDisposable {
  readonly child: ChildProcess
  readonly pid: number
  /** The next line that it prints. */
  line(): Promise<string>
}

/**
 * A process of its own that runs this module text, in which `linux` is this folder and `say` prints a line; it lives until it is killed.
 */
export function otherProcess(text: string): OtherProcess {
  const script = `
    const linux = await import(${JSON.stringify(join(import.meta.dirname, 'index.ts'))})
    const say = (line) => process.stdout.write(line + '\\n')
    setInterval(() => {}, 1000)
    ${text}
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let buffered = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => (buffered += part))
  return {
    child,
    pid: child.pid ?? -1,
    async line() {
      while (!buffered.includes('\n')) await Promise.race([once(child.stdout, 'data'), failWhenClosed(child)])
      const end = buffered.indexOf('\n')
      const line = buffered.slice(0, end)
      buffered = buffered.slice(end + 1)
      return line
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}

async function failWhenClosed(child: ChildProcess): Promise<never> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  throw new Error(`the process ended: ${child.exitCode ?? child.signalCode}`)
}
