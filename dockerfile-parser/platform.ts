/** Platforms as `FROM --platform` and `--platform` write them, read as containerd's `platforms` package reads them. */

export interface Platform {
  readonly os: string
  readonly architecture: string
  /** Empty where there is none, as for amd64 and for arm64 (whose only one, v8, is left out). */
  readonly variant: string
  /** Windows only. */
  readonly osVersion?: string | undefined
}

const OSES =
  'aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos'.split(
    ' ',
  )
const ARCHITECTURES = (
  '386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le ' +
  'riscv riscv64 s390 s390x sparc sparc64 wasm'
).split(' ')

/** `linux`, `arm64`, `linux/arm/v7`, `windows(10.0.17763)/amd64`. What is left out is that of `here`. Undefined if it is no platform. */
export function parsePlatform(text: string, here: Platform): Platform | undefined {
  const parts = text.split('/')
  if (parts.length > 3) return undefined
  const first = /^([A-Za-z0-9_.-]+)(?:\(([A-Za-z0-9_.-]*)\))?$/.exec(parts[0]!)
  if (first === null || parts.slice(1).some((part) => !/^[A-Za-z0-9_.-]+$/.test(part))) return undefined
  const osVersion = first[2] === undefined || first[2] === '' ? undefined : first[2]
  if (parts.length === 1) {
    const os = normalOs(first[1]!)
    if (OSES.includes(os))
      return { os, architecture: here.architecture, variant: here.variant, ...(osVersion && { osVersion }) }
    if (osVersion !== undefined) return undefined
    const alone = normalArchitecture(first[1]!, '')
    return ARCHITECTURES.includes(alone.architecture) ? { os: here.os, ...alone } : undefined
  }
  return {
    os: normalOs(first[1]!),
    ...normalArchitecture(parts[1]!, parts[2] ?? ''),
    ...(osVersion && { osVersion }),
  }
}

/** `linux/arm/v7` */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === '' ? [] : [variant])].join('/')
}

function normalOs(text: string): string {
  const os = text.toLowerCase()
  return os === 'macos' ? 'darwin' : os
}

function normalArchitecture(
  text: string,
  variant: string,
): { readonly architecture: string; readonly variant: string } {
  const name = text.toLowerCase()
  const given = variant.toLowerCase()
  switch (name) {
    case 'i386':
      return { architecture: '386', variant: '' }
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return { architecture: 'amd64', variant: given === 'v1' ? '' : given }
    case 'aarch64':
    case 'arm64':
      return { architecture: 'arm64', variant: given === '8' || given === 'v8' ? '' : given }
    case 'armhf':
      return { architecture: 'arm', variant: 'v7' }
    case 'armel':
      return { architecture: 'arm', variant: 'v6' }
    case 'arm':
      return { architecture: 'arm', variant: given === '' ? 'v7' : given.replace(/^(?=[5-8]$)/, 'v') }
    default:
      return { architecture: name, variant: given }
  }
}
