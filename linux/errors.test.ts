import { readFileSync } from 'node:fs'
import { expect, test } from '@jest/globals'
import { TbuildError } from '../errors.ts'
import { AT_FDCWD, errnoName, isErrno, mkdirat, SysError } from './index.ts'

test('errnos of several names have the one that strerrorname_np gives', () => {
  expect([11, 95, 117, 2, 40, 61].map(errnoName)).toEqual([
    'EAGAIN',
    'EOPNOTSUPP',
    'EUCLEAN',
    'ENOENT',
    'ELOOP',
    'ENODATA',
  ])
})

test('an errno that nobody named', () => {
  expect(errnoName(3999)).toBe('E3999')
})

test('an error says the call, its subject and the errno, and is one of ours', () => {
  const error = thrownBy(() => mkdirat(AT_FDCWD, '/proc/none/x', 0o755))
  expect(error).toBeInstanceOf(SysError)
  expect(error).toBeInstanceOf(TbuildError)
  expect(error).toMatchObject({
    code: 'ENOENT',
    errno: 2,
    syscall: 'mkdirat',
    message: 'mkdirat /proc/none/x: ENOENT',
  })
})

test('isErrno knows our errors and those of node:fs, and nothing else', () => {
  expect(isErrno(new SysError('x', 17), 'EEXIST')).toBe(true)
  expect(
    isErrno(
      thrownBy(() => readFileSync('/none')),
      'EACCES',
      'ENOENT',
    ),
  ).toBe(true)
  for (const error of [new SysError('x', 2), new Error('EEXIST'), 'EEXIST', null, undefined, { code: 17 }]) {
    expect(isErrno(error, 'EEXIST')).toBe(false)
  }
})

function thrownBy(action: () => void): unknown {
  try {
    action()
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}
