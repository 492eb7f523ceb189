import { describe, expect, test } from '@jest/globals'
import { defaultCapabilities } from '../capabilities.ts'
import { compiledFilters } from './compiled.ts'
import { compileFilter } from './compile.ts'
import { defaultProfile, type Architecture, type Rule } from './profile.ts'
import { syscallNumbers, type Convention } from './syscalls.ts'

const ALLOW = 0x7fff0000
const KILL = 0x80000000
const errno = (number: number): number => 0x00050000 | number
const X32 = 0x40000000

interface Call {
  readonly audit: number
  readonly number: number
  readonly args: readonly bigint[]
}

/** The kernel's interpreter, as far as filters of ours go (bpf_check_classic, seccomp_check_filter). */
function interpret(filter: Buffer, call: Call): number {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(call.number >>> 0, 0)
  data.writeUInt32LE(call.audit, 4)
  for (const [index, value] of call.args.entries()) data.writeBigUInt64LE(value, 16 + 8 * index)
  let a = 0
  for (let at = 0; ; at++) {
    if (at >= filter.length / 8) throw new Error('ran past the end')
    const code = filter.readUInt16LE(at * 8)
    const [jumpTrue, jumpFalse, k] = [
      filter[at * 8 + 2] ?? 0,
      filter[at * 8 + 3] ?? 0,
      filter.readUInt32LE(at * 8 + 4),
    ]
    if (code === 0x20) a = data.readUInt32LE(k)
    else if (code === 0x05) at += k
    else if (code === 0x15) at += a === k ? jumpTrue : jumpFalse
    else if (code === 0x35) at += a >= k ? jumpTrue : jumpFalse
    else if (code === 0x54) a = (a & k) >>> 0
    else if (code === 0x06) return k
    else throw new Error(`instruction ${code.toString(16)}`)
  }
}

/** What the table says, rule by rule. */
function reference(
  capabilities: readonly string[],
  native: Architecture,
  name: string | undefined,
  args: readonly bigint[],
): number {
  let result = errno(1)
  for (const rule of defaultProfile) {
    if (name === undefined || !rule.names.trim().split(/\s+/).includes(name)) continue
    if (rule.architecture !== undefined && rule.architecture !== native) continue
    if (rule.capability !== undefined && !capabilities.includes(rule.capability)) continue
    if (rule.withoutCapability !== undefined && capabilities.includes(rule.withoutCapability)) continue
    if (rule.errno !== undefined) result = errno(rule.errno)
    else if (holds(rule, args)) return ALLOW
  }
  return result
}

function holds(rule: Rule, args: readonly bigint[]): boolean {
  if (rule.when === undefined) return true
  return rule.when.some((check) => {
    const value = args[check.index] ?? 0n
    if (check.op === 'masked-eq') return (value & BigInt(check.mask)) === BigInt(check.value)
    return check.op === 'eq' ? value === BigInt(check.value) : value < BigInt(check.value)
  })
}

const first = [
  ...Array.from({ length: 50 }, (_, i) => BigInt(i)),
  0x10000n, 0x20000n, 0x20008n, 0x7e020000n, 0x10000000n, 0x01200011n, 0xffffffffn, 0x100000000n, 0x100000002n,
  0xffffffffffffffffn,
] // prettier-ignore

const targets: readonly (readonly [Architecture, Convention, number])[] = [
  ['amd64', 'x86-64', 0xc000003e],
  ['amd64', 'x32', 0xc000003e],
  ['amd64', 'i386', 0x40000003],
  ['arm64', 'arm64', 0xc00000b7],
  ['arm64', 'arm', 0x40000028],
]

describe.each(targets)('%s filter, %s calls', (architecture, convention, audit) => {
  test.each([
    ['default capabilities', defaultCapabilities],
    ['none', []],
    ['with SYS_ADMIN and SYS_TIME', [...defaultCapabilities, 'CAP_SYS_ADMIN', 'CAP_SYS_TIME']],
  ])('every number does what the table says: %s', (_, capabilities) => {
    const filter = compileFilter(defaultProfile, { architecture, capabilities })
    const numbers = syscallNumbers(convention)
    const names = new Map([...numbers].map(([name, number]) => [number, name]))
    const base = convention === 'x32' ? X32 : 0
    // x32 has calls of its own up to 547; arm's private ones, from 0xf0000 on, are no measure.
    const last = base + (convention === 'x32' ? 547 : 466)
    const wrong: string[] = []
    for (let number = base; number <= base + 600; number++) {
      const name = names.get(number)
      const tested = name === 'socket' || name === 'personality' || name === 'clone'
      for (const value of tested ? first : [0n]) {
        const beyond = number > last
        const wanted = beyond ? errno(38) : reference(capabilities, architecture, name, [value])
        const got = interpret(filter, { audit, number, args: [value] })
        if (got !== wanted)
          wrong.push(`${name ?? number}(${value}): ${got.toString(16)}, not ${wanted.toString(16)}`)
      }
    }
    expect(wrong).toEqual([])
  })
})

describe('the default filter', () => {
  test.each(['amd64', 'arm64'] as const)(
    '%s: compiled.ts is what the compiler makes (else run generate.ts)',
    (architecture) => {
      const filter = compileFilter(defaultProfile, { architecture, capabilities: defaultCapabilities })
      expect(Buffer.from(compiledFilters[architecture], 'base64').equals(filter)).toBe(true)
      expect(filter.length / 8).toBeLessThan(4096)
    },
  )

  const amd64 = compileFilter(defaultProfile, { architecture: 'amd64', capabilities: defaultCapabilities })
  const onAmd64 = (name: string, ...args: bigint[]): number =>
    interpret(amd64, { audit: 0xc000003e, number: syscallNumbers('x86-64').get(name) ?? -1, args })

  test('another architecture is killed', () => {
    expect(interpret(amd64, { audit: 0xc00000b7, number: 0, args: [] })).toBe(KILL)
  })

  test('known answers', () => {
    expect(onAmd64('read')).toBe(ALLOW)
    expect(onAmd64('mount')).toBe(errno(1))
    expect(onAmd64('clone3')).toBe(errno(38))
    expect(onAmd64('clone', 0x10000000n)).toBe(errno(1))
    expect(onAmd64('clone', 0x01200011n)).toBe(ALLOW)
    expect(onAmd64('socket', 1n)).toBe(ALLOW)
    expect(onAmd64('socket', 40n)).toBe(errno(1))
    expect(onAmd64('socket', 0x100000001n)).toBe(errno(1))
    expect(onAmd64('chroot')).toBe(ALLOW)
    expect(onAmd64('open_by_handle_at')).toBe(errno(1))
    expect(interpret(amd64, { audit: 0xc000003e, number: 3000, args: [] })).toBe(errno(38))
    expect(interpret(amd64, { audit: 0xc000003e, number: -1, args: [] })).toBe(errno(38))
  })
})
