/** Automatic garbage collection after a command that stored something. */
import type { Store } from '../cas/index.ts'
import { parseSize } from './arguments/values.ts'
import { humanSize } from './format.ts'
import { say } from './output.ts'

/**
 * Prunes when the store takes more than TBUILD_MAX_USED_SPACE (a size; `off`: never), or than its default: see docs/garbage-collection.md. Nothing is said
 * while nothing is freed. What the command did stands, so that this fails is no failure of it.
 */
export async function collectIfDue(store: Store): Promise<void> {
  try {
    await collect(store, process.env['TBUILD_MAX_USED_SPACE'])
  } catch (error) {
    say(`the store was not pruned: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function collect(store: Store, text: string | undefined): Promise<void> {
  if (text === 'off') return
  const most = text === undefined || text === '' ? undefined : parseSize(text, 'TBUILD_MAX_USED_SPACE')
  const report = await store.collectIfDue(most)
  if (report !== undefined && report.freedBytes > 0) {
    say(
      `the store had grown too large: removed what was not used for longest, ${humanSize(report.freedBytes)}`,
    )
  }
}
