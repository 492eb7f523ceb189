/** Each check has a page in docs/checks whose bad example it finds, and whose good one it does not. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { check, createIgnoreMatcher, parseIgnoreFile, RULES, type RuleName } from '../index.ts'

const folder = join(import.meta.dirname, '../../docs/checks')
const names = Object.keys(RULES) as RuleName[]

test('each check has a page, and each page a check', () => {
  const pages = readdirSync(folder).flatMap((file) => (file === 'README.md' ? [] : [file.replace('.md', '')]))
  expect(pages.toSorted()).toEqual(names.toSorted())
  const index = readFileSync(join(folder, 'README.md'), 'utf8')
  for (const name of names) expect(index).toContain(`[${name}](${name}.md)`)
})

describe(`examples of ${names.length} pages`, () => {
  test.each(names)('%s', (name) => {
    const page = readFileSync(join(folder, `${name}.md`), 'utf8')
    const bad = /\nBad:\n```dockerfile\n(.*?)```/s.exec(page)?.[1]
    const good = /\nGood:\n```dockerfile\n(.*?)```/s.exec(page)?.[1]
    const ignored = /`\.dockerignore`:\n```text\n(.*?)```/s.exec(page)?.[1]
    const ignore = {
      matcher: createIgnoreMatcher(parseIgnoreFile(ignored ?? '')),
      file: '.dockerignore',
    }
    const run = (text: string | undefined) =>
      check(text ?? '', {
        buildArgs: new Map([['BUILDKIT_DOCKERFILE_CHECK', 'experimental=all']]),
        ignore,
        baseImage: (image) => ({
          env: [],
          platform: { os: 'linux', architecture: image.includes('arm64') ? 'arm64' : 'amd64', variant: '' },
        }),
      })
    const found = run(bad)
    expect(found.findings.map(({ rule }) => rule)).toContain(name)
    // What the page says for an example is said for its example.
    const says = /\n> (.*)\n/.exec(page)?.[1]
    expect(found.findings.map(({ message }) => message)).toContain(says)
    const fine = run(good)
    expect(fine.findings.map(({ rule }) => rule)).toEqual([])
    expect(fine.errors).toEqual([])
  })
})
