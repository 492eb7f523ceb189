/** Which extended attributes go into a layer, and what overlayfs says by its own. */
import { getXattr, listXattrs, overlayPrefix } from '../../linux/index.ts'
import { noXattrs } from './entry.ts'

const layerAttributes: ReadonlySet<string> = new Set([
  'security.capability',
  'system.posix_acl_access',
  'system.posix_acl_default',
])

export interface Attributes {
  /** user.*, file capabilities and ACLs; not those of this host (SELinux, IMA, AppArmor) or of overlayfs. Sorted by name. */
  readonly layer: ReadonlyMap<string, Buffer>
  /** Names of overlayfs's own, without their prefix. */
  readonly overlay: readonly string[]
}

const none: Attributes = { layer: noXattrs, overlay: [] }

/** Of an open file, or of a name itself. */
export function readAttributes(file: string | Buffer | number): Attributes {
  const names = listXattrs(file)
  if (names.length === 0) return none
  const prefix = overlayPrefix()
  const layer = new Map<string, Buffer>()
  const overlay: string[] = []
  for (const name of names) {
    if (name.startsWith(prefix)) {
      overlay.push(name.slice(prefix.length))
    } else if (belongsInLayer(name)) {
      const value = getXattr(file, name)
      if (value !== undefined) layer.set(name, value)
    }
  }
  return { layer, overlay }
}

function belongsInLayer(name: string): boolean {
  if (name.startsWith('user.')) return !name.startsWith('user.overlay.')
  return layerAttributes.has(name)
}

export function sameAttributes(a: ReadonlyMap<string, Buffer>, b: ReadonlyMap<string, Buffer>): boolean {
  if (a.size !== b.size) return false
  for (const [name, value] of a) {
    const other = b.get(name)
    if (other === undefined || !value.equals(other)) return false
  }
  return true
}
