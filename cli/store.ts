import { join, resolve } from 'node:path'
import { homedir } from 'node:os'
import { openStore, type Store } from '../cas/index.ts'

/** `--store`, TBUILD_STORE, `/var/lib/tbuild` for root, `$XDG_DATA_HOME/tbuild` (`~/.local/share/tbuild`) for others. */
export function storePath(
  option: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
  uid: number | undefined = process.getuid?.(),
): string {
  const named = option ?? nonEmpty(env['TBUILD_STORE'])
  if (named !== undefined) return resolve(named)
  if (uid === 0) return '/var/lib/tbuild'
  // The XDG specification has relative paths ignored.
  const data = nonEmpty(env['XDG_DATA_HOME'])
  return join(data?.startsWith('/') === true ? data : join(homedir(), '.local/share'), 'tbuild')
}

/** To be disposed: that is when what is pending becomes durable, and the lease comes free. */
export async function openChosenStore(options: { readonly store: string | undefined }): Promise<Store> {
  return openStore(storePath(options.store), {
    beforeSweep: async (dead) => {
      const { sweepCgroups } = await import('../runtime/index.ts')
      await sweepCgroups((scope) => !dead.has(scope))
    },
  })
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}
