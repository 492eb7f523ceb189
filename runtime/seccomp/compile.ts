/**
 * A profile to classic BPF (seccomp(2), `struct sock_filter`): the architecture is checked, then the call's number is
 * searched for in a binary tree of ranges that share a verdict; few verdicts look at an argument.
 *
 * As Docker has it: on x86-64 the i386 and x32 conventions are served with their own numbers, on arm64 the 32-bit one;
 * any other architecture is killed; a number beyond all that the profile knows fails with ENOSYS, so that programs use
 * their fallback for calls newer than the profile.
 */
import type { Architecture, ArgumentTest, Rule } from './profile.ts'
import { syscallNumbers, type Convention } from './syscalls.ts'

export interface FilterOptions {
  readonly architecture: Architecture
  /** Those a process in the container may have. */
  readonly capabilities: readonly string[]
}

type Instruction = readonly [code: number, jumpTrue: number, jumpFalse: number, k: number]

// linux/bpf_common.h, linux/seccomp.h, linux/audit.h, linux/elf-em.h
const LOAD = 0x20
const JUMP = 0x05
const JUMP_EQ = 0x15
const JUMP_GE = 0x35
const AND = 0x54
const RETURN = 0x06
const RET_ALLOW = 0x7fff0000
const RET_ERRNO = 0x00050000
const RET_KILL_PROCESS = 0x80000000
const EPERM = 1
const ENOSYS = 38
const X32_START = 0x40000000
const OFFSET_NUMBER = 0
const OFFSET_ARCHITECTURE = 4
const OFFSET_ARGUMENTS = 16

/** Conventions by AUDIT_ARCH value: two of x86's share one, told apart by the number's bit 30. */
const targets: Readonly<Record<Architecture, readonly (readonly [audit: number, readonly Convention[]])[]>> =
  {
    amd64: [
      [0xc000003e, ['x86-64', 'x32']],
      [0x40000003, ['i386']],
    ],
    arm64: [
      [0xc00000b7, ['arm64']],
      [0x40000028, ['arm']],
    ],
  }

/** The filter's instructions, 8 bytes each, little-endian. */
export function compileFilter(profile: readonly Rule[], options: FilterOptions): Buffer {
  const rules = profile.filter((rule) => applies(rule, options))
  const program: Instruction[] = [[LOAD, 0, 0, OFFSET_ARCHITECTURE]]
  for (const [audit, conventions] of targets[options.architecture]) {
    const body: Instruction[] = [[LOAD, 0, 0, OFFSET_NUMBER], ...search(ranges(rules, conventions))]
    program.push([JUMP_EQ, 1, 0, audit], [JUMP, 0, 0, body.length], ...body)
  }
  program.push([RETURN, 0, 0, RET_KILL_PROCESS])
  return encode(program)
}

function applies(rule: Rule, { architecture, capabilities }: FilterOptions): boolean {
  if (rule.architecture !== undefined && rule.architecture !== architecture) return false
  if (rule.capability !== undefined && !capabilities.includes(rule.capability)) return false
  return rule.withoutCapability === undefined || !capabilities.includes(rule.withoutCapability)
}

/** What happens to a call: one action, or `allow` if a test holds and EPERM otherwise. */
interface Verdict {
  /** Same text, same verdict. */
  readonly id: string
  readonly code: readonly Instruction[]
}

interface Range {
  /** The first number; the range ends where the next begins. */
  readonly from: number
  readonly verdict: Verdict
}

const allow = simple(RET_ALLOW)
const deny = simple(RET_ERRNO | EPERM)
const unknown = simple(RET_ERRNO | ENOSYS)

function simple(action: number): Verdict {
  return { id: String(action), code: [[RETURN, 0, 0, action]] }
}

function ranges(rules: readonly Rule[], conventions: readonly Convention[]): Range[] {
  const verdicts = rules.map((rule) => ({ names: rule.names.trim().split(/\s+/), verdict: verdictOf(rule) }))
  const list: Range[] = []
  const add = (from: number, verdict: Verdict): void => {
    if (list.at(-1)?.verdict.id !== verdict.id) list.push({ from, verdict })
  }
  for (const convention of conventions) {
    const numbers = syscallNumbers(convention)
    const byNumber = new Map<number, Verdict>()
    for (const { names, verdict } of verdicts) {
      for (const name of names) {
        const number = numbers.get(name)
        // A call may stand in several rules: one that allows it outright wins.
        if (number !== undefined && byNumber.get(number) !== allow) byNumber.set(number, verdict)
      }
    }
    // Beyond arm's private calls (from 0xf0000 on) nothing is known either.
    const last = Math.max(...[...numbers.values()].filter((number) => (number & ~X32_START) < 0xf0000))
    const gap = (from: number): Verdict => (from > last ? unknown : deny)
    let next = convention === 'x32' ? X32_START : 0
    for (const number of [...byNumber.keys()].toSorted((a, b) => a - b)) {
      if (number > next) add(next, gap(next))
      add(number, byNumber.get(number) ?? deny)
      next = number + 1
    }
    if (last >= next) add(next, deny)
    add(Math.max(last + 1, next), unknown)
  }
  return list
}

function verdictOf(rule: Rule): Verdict {
  if (rule.errno !== undefined) return simple(RET_ERRNO | rule.errno)
  if (rule.when === undefined) return allow
  return { id: JSON.stringify(rule.when), code: testArguments(rule.when) }
}

/**
 * All tests are of one argument. Equality and order look at all 64 bits, of which the upper half must be 0; a mask
 * below 2^32 leaves the upper half out.
 */
function testArguments(tests: readonly ArgumentTest[]): Instruction[] {
  const [first] = tests
  if (first === undefined || tests.some(({ index }) => index !== first.index))
    throw new Error('tests of one argument')
  const low = OFFSET_ARGUMENTS + 8 * first.index
  const end: Instruction[] = [
    [RETURN, 0, 0, RET_ERRNO | EPERM],
    [RETURN, 0, 0, RET_ALLOW],
  ]
  if (first.op === 'masked-eq') {
    if (tests.length > 1) throw new Error('one mask')
    return [[LOAD, 0, 0, low], [AND, 0, 0, first.mask], [JUMP_EQ, 1, 0, first.value], ...end]
  }
  const code: Instruction[] = tests.map(({ op, value }, index) => {
    const toAllow = tests.length - index
    return op === 'lt' ? [JUMP_GE, 0, toAllow, value] : [JUMP_EQ, toAllow, 0, value]
  })
  return [[LOAD, 0, 0, low + 4], [JUMP_EQ, 0, 1 + code.length, 0], [LOAD, 0, 0, low], ...code, ...end]
}

/** Every path through the tree ends in a RETURN, so that halves can simply follow each other. */
function search(list: readonly Range[]): Instruction[] {
  const [only] = list
  if (only === undefined) return [[RETURN, 0, 0, RET_ERRNO | EPERM]]
  if (list.length === 1) return [...only.verdict.code]
  const middle = list.length >> 1
  const below = search(list.slice(0, middle))
  const above = search(list.slice(middle))
  const bound = list[middle]?.from ?? 0
  // A conditional jump reaches 255 instructions.
  if (below.length <= 255) return [[JUMP_GE, below.length, 0, bound], ...below, ...above]
  return [[JUMP_GE, 0, 1, bound], [JUMP, 0, 0, below.length], ...below, ...above]
}

function encode(program: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8)
  for (const [index, [code, jumpTrue, jumpFalse, k]] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8)
    bytes.writeUInt8(jumpTrue, index * 8 + 2)
    bytes.writeUInt8(jumpFalse, index * 8 + 3)
    bytes.writeUInt32LE(k >>> 0, index * 8 + 4)
  }
  return bytes
}
