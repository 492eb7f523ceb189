import { expect, test } from '@jest/globals'
import { parseChallenges } from './challenge.ts'

test('a bearer challenge with quoted commas', () => {
  expect(parseChallenges('Bearer realm="https://a/t",service="s, x",scope="repository:a:pull,push"')).toEqual(
    [
      {
        scheme: 'bearer',
        parameters: { realm: 'https://a/t', service: 's, x', scope: 'repository:a:pull,push' },
      },
    ],
  )
})

const schemes = (value: string | string[]): string[] => parseChallenges(value).map((one) => one.scheme)

test('several challenges in one header and in several', () => {
  expect(schemes('Negotiate, Basic realm="a b", Bearer realm=x')).toEqual(['negotiate', 'basic', 'bearer'])
  expect(schemes(['Basic realm=a', 'Bearer realm="b"'])).toEqual(['basic', 'bearer'])
})

test('escapes, odd spaces, the first of two equal parameters', () => {
  expect(parseChallenges('BEARER  Realm = "a\\"b" ,, realm="second"')).toEqual([
    { scheme: 'bearer', parameters: { realm: 'a"b' } },
  ])
})

test.each([
  '',
  ',,,',
  '"',
  'Bearer realm="',
  '=',
  'Bearer realm="x',
  ' '.repeat(10_000),
  'a='.repeat(5000),
  'x'.repeat(20_000),
])('rubbish %# is no error', (text) => {
  expect(Array.isArray(parseChallenges(text))).toBe(true)
})

test('__proto__ as a name does no harm', () => {
  parseChallenges('Bearer __proto__="x", constructor="y"')
  expect(Object.prototype).not.toHaveProperty('realm')
})
