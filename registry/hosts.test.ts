import { describe, expect, test } from '@jest/globals'
import { isLoopback, mayFollow, proxyFor } from './hosts.ts'

const url = (text: string): URL => new URL(text)

test.each([
  ['localhost', true],
  ['127.0.0.1', true],
  ['127.8.9.10', true],
  ['[::1]', true],
  ['[2001:db8::1]', false],
  ['127.0.0.1.example.com', false],
  ['localhost.example.com', false],
  ['128.0.0.1', false],
])('loopback: %s is %s', (hostname, expected) => {
  expect(isLoopback(hostname)).toBe(expected)
})

test.each([
  ['https://a', 'https://b', false, true],
  ['https://a', 'http://a', true, false],
  ['https://127.0.0.1', 'http://127.0.0.1', true, false],
  ['http://127.0.0.1', 'http://localhost:1', false, true],
  ['http://127.0.0.1', 'http://other', false, false],
  ['http://127.0.0.1', 'http://other', true, true],
  ['https://a', 'file:///etc/passwd', true, false],
])('from %s to %s, insecure %s: %s', (from, to, insecure, expected) => {
  expect(mayFollow(url(from), url(to), insecure)).toBe(expected)
})

describe('proxyFor', () => {
  const env = {
    HTTPS_PROXY: 'http://p:1',
    HTTP_PROXY: 'q:2',
    NO_PROXY: 'direct.example, .suffix.example, 10.0.0.0/8, port.example:8443, [2001:db8::1]',
  }
  test.each([
    ['https://registry.example', 'http://p:1'],
    ['http://registry.example', 'http://q:2'],
    ['https://direct.example', undefined],
    ['https://sub.direct.example', undefined],
    ['https://notdirect.example', 'http://p:1'],
    ['https://a.suffix.example', undefined],
    ['https://10.1.2.3:5000', undefined],
    ['https://11.1.2.3:5000', 'http://p:1'],
    ['https://port.example:8443', undefined],
    ['https://port.example', 'http://p:1'],
    ['https://[2001:db8::1]:5000', undefined],
    ['https://[2001:db8::2]:5000', 'http://p:1'],
    ['http://127.0.0.1:5000', undefined],
    ['http://localhost:5000', undefined],
  ])('%s by %s', (target, expected) => {
    expect(proxyFor(url(target), env)).toBe(expected)
  })

  test('lower case wins, * turns it off, nothing set is no proxy', () => {
    expect(proxyFor(url('https://a'), { ...env, https_proxy: 'http://lower:3' })).toBe('http://lower:3')
    expect(proxyFor(url('https://a'), { ...env, NO_PROXY: '*' })).toBeUndefined()
    expect(proxyFor(url('https://a'), {})).toBeUndefined()
  })
})
