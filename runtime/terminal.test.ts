import { describe, expect, test } from '@jest/globals'
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { runContainer, sweepCgroups } from './index.ts'
import { busyboxRoot, processesWith, specFor } from './testing.ts'

const onTerminal = (root: number, command: string, stdin: 'ignore' | 'pipe' = 'ignore') =>
  runContainer(
    specFor(root, ['sh', '-c', command], { tty: true, stdio: { stdin, stdout: 'pipe', stderr: 'ignore' } }),
  )

describe('terminal', () => {
  test('all three are /dev/pts/0, the controlling terminal', async () => {
    using box = busyboxRoot()
    const container = await onTerminal(
      box.root,
      'tty; test -t 0 && test -t 1 && test -t 2 && echo all > /dev/tty',
    )
    let output = ''
    for await (const chunk of container.stdout ?? []) output += String(chunk)
    expect(output).toBe('/dev/pts/0\r\nall\r\n')
    expect((await container.exited).exitCode).toBe(0)
  })

  test('input is relayed, and Ctrl-C is the container’s own', async () => {
    using box = busyboxRoot()
    const container = await onTerminal(
      box.root,
      'trap "echo interrupted; exit 4" INT; read line; echo "<$line>"; while true; do sleep 0.05; done',
      'pipe',
    )
    let output = ''
    container.stdin?.write('hello\n')
    for await (const chunk of container.stdout ?? []) {
      output += String(chunk)
      if (output.endsWith('<hello>\r\n')) container.stdin?.write('\u0003')
    }
    expect(output).toContain('interrupted')
    expect((await container.exited).exitCode).toBe(4)
  })

  test('all output arrives, though the container ends at once', async () => {
    using box = busyboxRoot()
    const container = await onTerminal(box.root, 'seq 1 20000')
    let output = ''
    for await (const chunk of container.stdout ?? []) output += String(chunk)
    expect(output.endsWith('\r\n20000\r\n')).toBe(true)
    expect(output.split('\r\n').length).toBe(20001)
    await container.exited
  })

  // script(1) gives the launcher a terminal; its settings before and after must be the same.
  test.each(['exit 3', 'kill -9'])('the caller’s terminal is put back: %s', async (how) => {
    const load = `
      const { busyboxRoot, specFor } = await import('${new URL('testing.ts', import.meta.url).href}')
      const { runContainer } = await import('${new URL('index.ts', import.meta.url).href}')
        const { execFileSync } = await import('node:child_process')
      const { setTimeout } = await import('node:timers/promises')
      const mode = () => execFileSync('stty', ['-a'], { stdio: ['inherit', 'pipe', 'inherit'] }).toString()
      using box = busyboxRoot()
      const stdio = { stdin: 'inherit', stdout: 'inherit', stderr: 'inherit' }
      const container = await runContainer(specFor(box.root, ['sh', '-c', process.env.HOW], { tty: true, stdio, scope: 'tty' }))
      if (process.env.HOW.startsWith('sleep')) {
        while (!mode().includes('-icanon')) await setTimeout(10)
        console.log('raw')
        rmSync(box.lower.replace(/[^/]*$/, ''), { recursive: true })
        process.kill(process.pid, 'SIGKILL')
      }
      const { exitCode } = await container.exited
      console.log('code ' + exitCode)`
    const file = join(mkdtempSync(join(tmpdir(), 'tbuild-tty-')), 'child.mjs')
    writeFileSync(file, load)
    const command = `stty -a > ${file}.1; ${process.execPath} ${file}; sleep 0.3; stty -a > ${file}.2`
    const child = spawn('script', ['-qec', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, HOW: how === 'exit 3' ? 'exit 3' : 'sleep 7604' },
    })
    let output = ''
    for await (const chunk of child.stdout) output += String(chunk)
    expect(output).toContain(how === 'exit 3' ? 'code 3' : 'raw')
    expect(readFileSync(`${file}.2`, 'utf8')).toBe(readFileSync(`${file}.1`, 'utf8'))
    expect(processesWith('sleep\u00007604')).toEqual([])
    await sweepCgroups((scope) => scope !== 'tty')
    rmSync(dirname(file), { recursive: true })
  })
})
