import { describe, expect, test } from '@jest/globals'
import { parseCommandLine } from './parse.ts'
import { suggest } from './suggest.ts'
import { defineCommand } from './types.ts'
import { parseLimits, parsePair, parseSize } from './values.ts'

const command = defineCommand({
  usage: '[OPTIONS] IMAGE...',
  options: {
    tag: { kind: 'list', short: 't', value: 'NAME', help: '' },
    file: { kind: 'value', short: 'f', value: 'FILE', help: '' },
    network: { kind: 'value', value: 'MODE', choices: ['host', 'none'], help: '' },
    quiet: { kind: 'flag', short: 'q', help: '' },
    interactive: { kind: 'flag', short: 'i', help: '' },
  },
  examples: [],
  arguments: { least: 1, most: 2 },
  async run() {},
})
const parse = (...argv: string[]) => parseCommandLine('thing', command, argv)
const parseFirst = (...argv: string[]) =>
  parseCommandLine(
    'run',
    { ...command, stopAtFirst: true, arguments: { least: 1, most: Number.POSITIVE_INFINITY } },
    argv,
  )
const errorOf = (...argv: string[]): unknown => {
  try {
    return parse(...argv)
  } catch (error) {
    return error
  }
}

describe('a command line', () => {
  test('options in every spelling, before and after arguments', () => {
    expect(parse('-t', 'a', '--tag=b', '-tc', 'image', '-qi', '--file', '-')).toEqual({
      options: { tag: ['a', 'b', 'c'], file: '-', network: undefined, quiet: true, interactive: true },
      args: ['image'],
    })
  })

  test('the last of several values counts; a value may begin with a dash; -- ends the options', () => {
    expect(parse('-f', 'a', '-f', '-b', '--', '--tag')).toMatchObject({
      options: { file: '-b' },
      args: ['--tag'],
    })
  })

  test('what follows the image belongs to the command, -- and all', () => {
    expect(parseFirst('-i', 'image', '-q', '--nosuch', '--', '-h')).toEqual({
      options: { tag: [], file: undefined, network: undefined, quiet: false, interactive: true },
      args: ['image', '-q', '--nosuch', '--', '-h'],
    })
    expect(parseFirst('--', 'image', '--', 'x')).toMatchObject({ args: ['image', '--', 'x'] })
  })

  test('help wins over what is missing', () => {
    expect(parse('-h')).toBe('help')
    expect(parse('--tag', 'a', '--help')).toBe('help')
  })

  test.each([
    [['x', '--flie', 'y'], 'UNKNOWN_OPTION', 'did you mean --file?'],
    [['x', '--net', 'host'], 'UNKNOWN_OPTION', 'did you mean --network?'],
    [['x', '--zzz'], 'UNKNOWN_OPTION', 'tbuild thing --help'],
    [['x', '-z'], 'UNKNOWN_OPTION', 'tbuild thing --help'],
    [['x', '--constructor'], 'UNKNOWN_OPTION', 'tbuild thing --help'],
    [['x', '--file'], 'OPTION_VALUE', ''],
    [['x', '--network', 'hots'], 'OPTION_VALUE', 'did you mean host?'],
    [['x', '--quiet=maybe'], 'OPTION_VALUE', ''],
    [[], 'ARGUMENTS', ''],
    [['x', 'y', 'z'], 'ARGUMENTS', ''],
  ])('%j is refused: %s', (argv, code, hint) => {
    expect(errorOf(...argv)).toMatchObject({ code, hint: expect.stringContaining(hint) })
  })
})

test('suggestions are near, and few', () => {
  expect(suggest('imgaes', ['images', 'import', 'inspect'])).toEqual(['images'])
  expect(suggest('pul', ['pull', 'push', 'prune'])).toEqual(['pull'])
  expect(suggest('zebra', ['pull', 'push'])).toEqual([])
})

test('sizes and limits', () => {
  expect(['64m', '1g', '1.5K', '512KiB', '10'].map((text) => parseSize(text, '--memory'))).toEqual([
    64 * 2 ** 20,
    2 ** 30,
    1536,
    512 * 1024,
    10,
  ])
  for (const bad of ['', 'm', '0', '-1', '1x', '1e3', '9999999t'])
    expect(() => parseSize(bad, '--memory')).toThrow('is not a size')
  expect(parseLimits({ memory: '1m', cpus: '.5', 'pids-limit': '10' })).toEqual({
    memoryBytes: 2 ** 20,
    cpus: 0.5,
    pids: 10,
  })
  expect(() => parseLimits({ memory: undefined, cpus: '0', 'pids-limit': undefined })).toThrow('above 0')
  expect(() => parseLimits({ memory: undefined, cpus: undefined, 'pids-limit': '1.5' })).toThrow(
    'whole number',
  )
})

test('pairs', () => {
  expect(parsePair('A=b=c', '-e')).toEqual(['A', 'b=c'])
  expect(parsePair('A', '-e')).toEqual(['A', undefined])
  expect(() => parsePair('=b', '-e')).toThrow('no name')
})
