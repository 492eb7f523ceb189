import { join, resolve } from 'node:path'
import { homedir } from 'node:os'
import { DRIVER_NAMES, openStore, type DriverName, type Store } from '../cas/index.ts'
import { UsageError } from './arguments/usage-error.ts'
import { isRootless } from './rootless.ts'

/** `--store`, TBUILD_STORE, `/var/lib/tbuild` for root, `$XDG_DATA_HOME/tbuild` (`~/.local/share/tbuild`) for others, in a user namespace or not. */
export function storePath(
  option: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
  uid: number | undefined = process.getuid?.(),
): string {
  const named = option ?? nonEmpty(env['TBUILD_STORE'])
  if (named !== undefined) return resolve(named)
  if (uid === 0 && !isRootless(env)) return '/var/lib/tbuild'
  // The XDG specification has relative paths ignored.
  const data = nonEmpty(env['XDG_DATA_HOME'])
  return join(data?.startsWith('/') === true ? data : join(homedir(), '.local/share'), 'tbuild')
}

/** `--driver`, else TBUILD_DRIVER; `undefined`: the store finds one. Throws `OPTION_VALUE`. */
export function chosenDriver(
  option: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): DriverName | undefined {
  const name = option ?? nonEmpty(env['TBUILD_DRIVER'])
  const driver = DRIVER_NAMES.find((one) => one === name)
  if (name === undefined || driver !== undefined) return driver
  throw new UsageError(
    'OPTION_VALUE',
    `TBUILD_DRIVER is one of ${DRIVER_NAMES.join(', ')}, not ${JSON.stringify(name)}.`,
  )
}

/** To be disposed: that is when what is pending becomes durable, and the lease comes free. */
export async function openChosenStore(
  options: {
    readonly store: string | undefined
    readonly driver?: string | undefined
  },
  { onlyReads = false }: { readonly onlyReads?: boolean } = {},
): Promise<Store> {
  return openStore(storePath(options.store), {
    onlyReads,
    driver: chosenDriver(options.driver),
    beforeSweep: async (dead) => {
      const { sweepCgroups } = await import('../runtime/index.ts')
      await sweepCgroups((scope) => !dead.has(scope))
    },
  })
}

/** The same for a command that changes nothing: also where the store's disk is mounted read-only. */
export async function openStoreToRead(options: { readonly store: string | undefined }): Promise<Store> {
  return openChosenStore(options, { onlyReads: true })
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}
