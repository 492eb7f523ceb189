import { describe, expect, test } from '@jest/globals'
import { parse, parseDevice, parseMount, type DockerfileError, type Mount } from './index.ts'
import { refusal } from './testing.ts'

const values: Readonly<Record<string, string>> = { T: 'cache', D: '/x', E: '' }

function mountOf(value: string): Mount {
  const tree = parse(`FROM a\nRUN --mount=${value} x`)
  const run = tree.instructions[1]
  if (run?.kind !== 'RUN') throw new Error('no RUN')
  return parseMount(tree, run.mounts[0]!, (name) => values[name])
}

/** The words under the caret. */
function under({ source }: DockerfileError): string {
  const [line = '', carets = ''] = source?.frame.split('\n') ?? []
  return line.slice(carets.indexOf('^'), carets.lastIndexOf('^') + 1)
}

describe('parseMount', () => {
  test.each<readonly [string, Partial<Mount>]>([
    ['target=/x', { type: 'bind', target: '/x', readOnly: true, required: false }],
    ['source=a,dst=/x,rw,from=b', { source: 'a', target: '/x', readOnly: false, from: 'b' }],
    ['destination=/x,src=a,ro=false', { target: '/x', source: 'a', readOnly: false }],
    ['readwrite=0,target=/x', { readOnly: true }],
    [
      'TYPE=CACHE,target=/x,sharing=LOCKED,id=i',
      { type: 'cache', sharing: 'locked', id: 'i', readOnly: false },
    ],
    ['type=cache,target=/x,mode=0700,uid=1,gid=2', { mode: 0o700, uid: 1, gid: 2 }],
    ['type=tmpfs,target=/x,size=64m', { type: 'tmpfs', size: 64 * 1024 * 1024, readOnly: false }],
    ['type=tmpfs,target=/x,size=1.5GiB', { size: 1.5 * 1024 ** 3 }],
    ['type=tmpfs,target=/x,size=10', { size: 10 }],
    ['type=secret,id=s,required,mode=0400', { type: 'secret', id: 's', required: true, mode: 0o400 }],
    ['type=secret,id=s,env=TOKEN', { env: 'TOKEN', readOnly: true }],
    ['type=ssh,required=1', { type: 'ssh', required: true }],
    ['type=$T,target=$D$E', { type: 'cache', target: '/x' }],
    ['from=a$,target=/x', { from: 'a$' }],
    ['\'type=cache,"target=/a,b"\'', { type: 'cache', target: '/a,b' }],
  ])('%s', (value, expected) => {
    expect(mountOf(value)).toMatchObject(expected)
  })

  test.each([
    ['type=cahce,target=/x', 'MOUNT_TYPE', 'type=cahce', 'did you mean cache?'],
    ['type=volume,target=/x', 'MOUNT_TYPE', 'type=volume', 'bind, cache'],
    ['tagret=/x', 'MOUNT_KEY', 'tagret=/x', 'did you mean target?'],
    ['cache,target=/x', 'MOUNT_KEY', 'cache', 'it takes'],
    ['target', 'MOUNT_VALUE', 'target', 'target=VALUE'],
    ['required,type=secret,id=s', 'MOUNT_KEY', 'required', 'type=secret'],
    ['size=1m,type=tmpfs,target=/x', 'MOUNT_KEY', 'size=1m', 'type=tmpfs'],
    ['type=tmpfs,target=/x,size=1q', 'MOUNT_VALUE', 'size=1q', '64m'],
    ['type=cache,target=/x,sharing=share', 'MOUNT_VALUE', 'sharing=share', 'did you mean shared?'],
    ['type=cache,target=/x,mode=888', 'MOUNT_VALUE', 'mode=888', 'octal'],
    ['type=cache,target=/x,uid=-1', 'MOUNT_VALUE', 'uid=-1', 'a number'],
    ['ro=yes,target=/x', 'MOUNT_VALUE', 'ro=yes', 'true or false'],
    ['target=/x,uid=1', 'MOUNT_CONFLICT', 'target=/x,uid=1', 'secret, ssh and cache'],
    ['target=/x,sharing=shared', 'MOUNT_CONFLICT', 'target=/x,sharing=shared', 'type=cache'],
    ['type=secret', 'MOUNT_CONFLICT', 'type=secret', 'id=NAME'],
    ['type=secret,id=a,source=b', 'MOUNT_CONFLICT', 'type=secret,id=a,source=b', 'leave one out'],
    ['type=secret,id=a,from=b', 'MOUNT_CONFLICT', 'type=secret,id=a,from=b', '--secret'],
    ['target=${x', 'EXPANSION_SYNTAX', 'target=${x', 'write'],
  ])('%s: %s', (value, code, words, hint) => {
    const error = refusal(() => mountOf(value))
    expect([error.code, under(error)]).toEqual([code, words])
    expect(error.hint).toContain(hint)
  })

  test('what needs no variables is refused by the parser', () => {
    expect(refusal(() => parse('FROM a\nRUN --mount=from=$x,target=/y z')).code).toBe('MOUNT_FROM_VARIABLE')
    expect(refusal(() => parse("FROM a\nRUN --mount='a\"b' z")).code).toBe('MOUNT_SYNTAX')
    expect(refusal(() => parse('FROM a\nRUN --mount= z')).code).toBe('MOUNT_SYNTAX')
    // Anything else is the stage's matter, which may never be built.
    expect(parse('FROM a\nRUN --mount=type=nonsense z').instructions).toHaveLength(2)
  })
})

test.each([
  ['vendor.com/gpu=all', { name: 'vendor.com/gpu=all', required: false }],
  ['name=x,required', { name: 'x', required: true }],
  ['x,required=false', { name: 'x', required: false }],
])('--device=%s', (value, expected) => {
  const tree = parse(`FROM a\nRUN --device=${value} x`)
  const run = tree.instructions[1]
  expect(run?.kind === 'RUN' && parseDevice(tree, run.devices[0]!)).toEqual(expected)
})

test.each(['a,b', 'name=a,name=b', 'a,required=x', 'a,b=c'])('--device=%s is refused', (value) => {
  expect(refusal(() => parse(`FROM a\nRUN --device=${value} x`)).code).toBe('DEVICE_SYNTAX')
})
