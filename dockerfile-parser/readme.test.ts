import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import * as library from './index.ts'

const readme = readFileSync(join(import.meta.dirname, 'README.md'), 'utf8')

test('README’s example says what it says', () => {
  const text = 'FROM debian:12 AS base\nCOPY --chown=app . /srv\nCMD serve $PORT\n'
  expect(readme).toContain(JSON.stringify(text).slice(1, -1))
  const tree = library.parse(text, { file: 'Dockerfile' })
  expect(library.print(tree)).toBe(text)
  expect(library.renderText(library.check(text))).toContain('[JSONArgsRecommended]\nDockerfile:3\n')
})

test('README names only what is exported', () => {
  const code = [...readme.matchAll(/`([a-z][A-Za-z]+)\(/g)].map((match) => match[1]!)
  const methods = ['baseImage', 'ignores', 'why', 'mayReinclude']
  for (const name of code) expect([...Object.keys(library), ...methods]).toContain(name)
  expect(code.length).toBeGreaterThan(10)
})
