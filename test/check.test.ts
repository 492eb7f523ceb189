/** `tbuild check` and `build --check`: what is printed, and the exit status that a pipeline goes by. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freshCommand } from './support/bundle.ts'

const scratch = mkdtempSync(join(tmpdir(), 'tbuild-check-'))
const command = freshCommand()
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function tbuild(args: readonly string[], input = '') {
  const env = { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: join(scratch, 'store') }
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: scratch, env, input, encoding: 'utf8' })
  return { status, stdout, stderr }
}

beforeAll(() => {
  mkdirSync(join(scratch, 'context'))
  writeFileSync(join(scratch, 'context/.dockerignore'), 'secret\n')
  const files = {
    Dockerfile: 'FROM scratch AS one\nCOPY secret /\nFROM scratch AS two\nCMD serve\n',
    clean: 'FROM scratch\nCOPY a /\n',
    strict: '# check=error=true\nFROM scratch\nCMD serve\n',
    wrong: 'FROM scratch\nCOPPY a b\n',
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(scratch, 'context', name), text)
})

test('warnings are shown with their frames, the ignore file’s line among them; no store is made', () => {
  const { status, stdout, stderr } = tbuild(['check', 'context'])
  expect({ status, stderr }).toEqual({ status: 1, stderr: '' })
  expect(stdout).toContain('[CopyIgnoredFile]\ncontext/Dockerfile:2\n2 | COPY secret /\n  |      ^^^^^^\n')
  expect(stdout).toContain('line 1 of .dockerignore: secret')
  expect(stdout).toMatch(/\n2 warnings\n$/)
  expect(existsSync(join(scratch, 'store'))).toBe(false)
})

test.each([
  [['check', '-f', 'context/clean', 'context'], 0],
  [['check', '-f', 'context/wrong', 'context'], 1],
  [['check', '-f', 'context/strict', 'context'], 1],
  [['check', '--build-arg', 'BUILDKIT_DOCKERFILE_CHECK=skip=all', 'context'], 0],
  [['build', '--check', 'context'], 1],
  [['build', '--call=check,ignorestatus=true', 'context'], 0],
  [['build', '--call=check,ignorestatus=true', '-f', 'context/strict', 'context'], 1],
  [['build', '--call=check,ignorestatus=true', '-f', 'context/wrong', 'context'], 1],
  [['build', '--call=outline', 'context'], 0],
  [['build', '--call=subrequests.describe', 'context'], 2],
  [['build', '--call=targets,format=sarif', 'context'], 2],
  [['check', 'nowhere'], 1],
])('%j ends with %d', (args, status) => {
  expect(tbuild(args).status).toBe(status)
})

test('a target leaves the other stages alone', () => {
  const { stdout } = tbuild(['check', '--target', 'two', 'context'])
  expect(stdout).toContain('JSONArgsRecommended')
  expect(stdout).not.toContain('CopyIgnoredFile')
})

test('a clean file is called so; standard input will do', () => {
  expect(tbuild(['check', '-'], 'FROM scratch\n')).toEqual({
    status: 0,
    stdout: 'Check complete, no warnings found.\n',
    stderr: '',
  })
  expect(tbuild(['check', '-'], 'ustar\0').stderr).toContain('[CONTEXT_UNSUPPORTED]')
})

test('JSON and SARIF are whole documents, with errors in them', () => {
  const json = tbuild(['build', '--call=check,format=json', 'context'])
  expect(JSON.parse(json.stdout)).toMatchObject({ warnings: [{ ruleName: 'CopyIgnoredFile' }, {}] })
  const { stdout } = tbuild(['check', '--format', 'sarif', '-f', 'context/wrong', 'context'])
  expect(JSON.parse(stdout)).toMatchObject({
    version: '2.1.0',
    runs: [{ results: [{ ruleId: 'UNKNOWN_INSTRUCTION', level: 'error' }] }],
  })
})
