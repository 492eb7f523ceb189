/** What the launcher says of the user namespace that an ordinary user's tbuild runs in: runtime/launcher/rootless.c. */

type Environment = Readonly<Record<string, string | undefined>>

/** Root is this user, in a namespace of its own. */
export function isRootless(env: Environment = process.env): boolean {
  return env['TBUILD_ROOTLESS'] === 'entered'
}

/** Of chown(2) in such a namespace: the id is not in it. */
export function unmappedHint({
  code,
  message,
}: {
  readonly code: string
  readonly message: string
}): string | undefined {
  if (!isRootless() || code !== 'EINVAL' || !/chown/.test(message)) return undefined
  return 'the owner is none of the subordinate ids that this user has in /etc/subuid and /etc/subgid: usermod --add-subuids and --add-subgids give more'
}

/** What to do where there is no such namespace, if it was tried. */
export function rootlessHint(env: Environment = process.env): string | undefined {
  const refusal = env['TBUILD_ROOTLESS']
  if (refusal === undefined || isRootless(env)) return undefined
  if (refusal === 'no-ids')
    return 'run it as root, or give this user subordinate ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER'
  if (refusal === 'no-mapper')
    return 'run it as root, or install newuidmap and newgidmap (package uidmap, or shadow-utils)'
  if (refusal === 'not-mapped')
    return 'run it as root, or have newuidmap and newgidmap map the ids of /etc/subuid and /etc/subgid: they must be setuid root, which no_new_privs forbids'
  const where =
    'sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns'
  return `run it as root, or let ordinary users make user namespaces (${refusal}; ${where})`
}
