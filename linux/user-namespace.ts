/** User namespaces (user_namespaces(7)): root of one that is not the initial one is an ordinary user to much of the kernel. */
import { statSync } from 'node:fs'

/** PROC_USER_INIT_INO of linux/proc_ns.h. */
const INITIAL_INODE = 0xefff_fffd

let initial: boolean | undefined

export function inInitialUserNamespace(): boolean {
  return (initial ??= statSync('/proc/self/ns/user').ino === INITIAL_INODE)
}

/** How the names of overlayfs's own attributes begin: `trusted.*` is for root of the initial namespace; for others overlays are mounted with `userxattr`. */
export function overlayPrefix(): 'trusted.overlay.' | 'user.overlay.' {
  return inInitialUserNamespace() ? 'trusted.overlay.' : 'user.overlay.'
}
