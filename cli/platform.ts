import type { Platform } from '../cas/index.ts'
import { UsageError } from './arguments/usage-error.ts'

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

/** As OCI has it. */
export function hostArchitecture(): string {
  return ARCHITECTURES[process.arch] ?? process.arch
}

/** `linux/ARCH`. */
export function hostPlatform(): string {
  return `linux/${hostArchitecture()}`
}

/** This machine's own platform may be named. @throws UsageError `PLATFORM_UNSUPPORTED` */
export function checkPlatform(wanted: string | undefined): void {
  const host = hostPlatform()
  if (wanted === undefined || wanted === host || (host === 'linux/arm64' && wanted === 'linux/arm64/v8'))
    return
  throw new UsageError(
    'PLATFORM_UNSUPPORTED',
    `The platform ${JSON.stringify(wanted)} cannot be built here.`,
    {
      hint: `this machine is ${host}`,
    },
  )
}

/** `OS/ARCH[/VARIANT]`. @throws UsageError `OPTION_VALUE` */
export function parsePlatform(text: string): Platform {
  const match = /^([a-z0-9]+)\/([a-z0-9_]+)(?:\/([a-z0-9.]+))?$/.exec(text)
  const [, os, architecture, variant] = match ?? []
  if (os === undefined || architecture === undefined)
    throw new UsageError('OPTION_VALUE', `--platform: ${JSON.stringify(text)} is not a platform.`, {
      hint: 'e.g. linux/arm64',
    })
  return { os, architecture, ...(variant === undefined ? {} : { variant }) }
}
