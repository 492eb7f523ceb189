/**
 * Where other builders' images differ from tbuild's, and why: the tables of docs/conformance.md. tbuild's are what BuildKit's present version makes
 * (test/conformance.test.ts holds every case to that), so each entry tells what the other builder does otherwise.
 */
export interface Reason {
  /** Where it is to be found; every one of them must have it. Without: in many cases, at least one. */
  readonly cases?: readonly string[]
  /** Of the lines of `differencesOf`, or of `build: ok | failed: ...`, tbuild's first. */
  readonly lines: RegExp
  readonly why: string
}

const EXCLUDE = [
  'add--exclude-includes-dot',
  'add--exclude-includes-star',
  'copy--exclude-exception-under-source',
  'copy--exclude-includes-dot-slash',
  'copy--exclude-includes-subdir-slash',
  'copy--exclude-subdir-under-source',
  'copy--form-and--exclude-subdir-under-source',
]
const PARENTS = [
  'copy--parents',
  'copy--parents-directories',
  'copy--parents-directory-with-parent-directory',
  'copy--parents-path-with-star',
  'copy--parents-two-parent-directories',
]
const HEREDOC = ['heredoc-copy', 'heredoc-quoting']
/** `**` and an exception that begins with `**`. */
const DEEP_EXCEPTIONS = [
  'dockerignore-exclude-deep-subdir-dot-2',
  'dockerignore-exclude-kind-of-deep-subdir-dot',
  'dockerignore-exclude-kind-of-deep-subdir-star',
]

/** Debian 12's buildah 1.28, with `--format docker`. */
export const BUILDAH: readonly Reason[] = [
  {
    cases: ['mount-cache-by-ownership'],
    lines: /^\/results\/[0-9+]+\/.* entry: - \| file$/,
    why: 'keeps one cache for an id and shows it to every owner; BuildKit has one for each owner and mode',
  },
  {
    lines: /^config\.Hostname: - \| "[0-9a-f]{12}"$/,
    why: 'buildah puts the id of its working container into the config of an image in docker format',
  },
  {
    lines: /^config\.WorkingDir: "\/" \| -$/,
    why: 'BuildKit gives an image FROM scratch the working directory /; buildah leaves it empty, which means the same',
  },
  {
    lines: /^(\/etc mtime: 1485449953 \| "build"|\/etc\/hostname entry: - \| file|\/run entry: - \| dir)$/,
    why: 'buildah makes /etc/hostname and /run for the container of a RUN and leaves them in the layer; BuildKit and tbuild take away what they made to mount on',
  },
  {
    cases: [
      'copy-absolute-directory-2',
      'copy-permissions',
      'directory',
      'dockerignore-allowlist-subdir-file-dir',
      'dockerignore-allowlist-subdir-file-file',
      'dockerignore-exclude-kind-of-deep-subdir-star',
      'dockerignore-exclude-plain-star',
    ],
    lines: /^\/(subdir|var|test|f1) mtime: 1485449953 \| "build"$/,
    why: "a directory that is the destination of a directory: BuildKit gives it the source's time, buildah leaves the time at which it made it",
  },
  {
    cases: DEEP_EXCEPTIONS,
    lines: /^\/subdir\/.* entry: (dir|file|symlink) \| -$/,
    why: "an ignore file's exception that begins with `**` does not reach into a directory that is left out (moby/moby 30018, fixed since)",
  },
  {
    cases: [...EXCLUDE, ...PARENTS],
    lines: /^build: ok \| failed: .*(ADD|COPY) only supports the --chmod/,
    why: 'cannot: COPY and ADD have no --exclude and no --parents',
  },
  { cases: HEREDOC, lines: /^build: ok \| failed: /, why: 'cannot: no heredocs' },
  {
    cases: ['copy-escape-glob'],
    lines: /^build: ok \| failed: .*matched nothing/,
    why: "loses Go's escape `[[]` in a pattern",
  },
  {
    cases: ['copy-integration1'],
    lines: /^build: ok \| failed: .*filtered out/,
    why: 'a directory that is ignored, but with an exception below it, is not found; BuildKit finds it',
  },
  {
    cases: ['copy-multiple-missing-file-with-nomatch-on-glob'],
    lines: /^build: ok \| failed: .*no such file or directory/,
    why: 'a pattern that matches nothing is an error; for BuildKit it copies nothing (buildah 5742)',
  },
  {
    cases: [
      'replace-directory-with-symlink',
      'replace-directory-with-symlink-subdir',
      'replace-symlink-with-directory',
      'replace-symlink-with-directory-subdir',
    ],
    lines: /^build: failed: .* \| ok$/,
    why: 'replaces a directory by a link and a link by a directory, as the classic docker builder did; BuildKit refuses to',
  },
]

/** The first cases in which each entry without cases, and most of the others, shows; and some without a difference but the common ones. */
export const BUILDAH_SAMPLE: readonly string[] = [
  'add-archive-4',
  'copy--parents',
  'copy-permissions',
  'copy-multiple-missing-file-with-nomatch-on-glob',
  'dockerignore-exclude-kind-of-deep-subdir-star',
  'env-precedence',
  'replace-symlink-with-directory',
  'volume',
  'xattrs-file-in-other-stage',
]

/** BuildKit as docker 20.10 has it (2020), with its built-in Dockerfile 1.2. */
export const DOCKER: readonly Reason[] = [
  {
    cases: ['mount-cache-by-ownership'],
    lines: /^\/cache entry: - \| dir$/,
    why: 'left the empty directory that a mount was made on; BuildKit takes it away now',
  },
  {
    lines: /^\/(?!etc )[^ ]+ mtime: 1485449953 \| "build"$/,
    why: 'directories got the time at which they were copied; since 2022 BuildKit gives them the time of their source (tonistiigi/fsutil 139, 140)',
  },
  {
    cases: DEEP_EXCEPTIONS,
    lines: /^\/subdir\/.* entry: (dir|file|symlink) \| -$/,
    why: "an ignore file's exception that begins with `**` does not reach into a directory that is left out (moby/moby 30018, fixed since)",
  },
  {
    cases: ['dockerignore-allowlist-subsubdir-nofile', 'dockerignore-allowlist-subsubdir-nosubdir'],
    lines: /^\/folder entry: - \| dir$/,
    why: 'an ignored directory that might have held an exception came into the context empty; BuildKit leaves it out now',
  },
  {
    cases: ['copy-integration1'],
    lines: /^build: ok \| failed: .*"\/subdir" not found/,
    why: 'a directory that is ignored, but with an exception below it, was not found; BuildKit finds it now',
  },
  {
    cases: ['dockerignore-allowlist-subdir-nofile-file'],
    lines: /^build: failed: .*folder1.* was not found \| ok$/,
    why: 'an ignored directory that might have held an exception came into the context empty; BuildKit leaves it out now, so that the COPY fails',
  },
  {
    cases: [...EXCLUDE, ...PARENTS],
    lines: /^build: ok \| failed: .*Unknown flag: (exclude|parents)/,
    why: 'cannot: the flag is newer than Dockerfile 1.2',
  },
  {
    cases: HEREDOC,
    lines: /^build: ok \| failed: .*unknown instruction/,
    why: 'cannot: heredocs are newer than Dockerfile 1.2',
  },
  {
    cases: ['xattrs-file-in-other-stage'],
    lines: /^\/xattrs-file xattrs: \{"user\.a":"test"\} \| -$/,
    why: 'BuildKit drops user.* attributes of the context; tbuild and buildah keep them',
  },
]
