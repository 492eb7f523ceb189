/**
 * What `build` takes: its own options, and every flag of `docker build` and `docker buildx build`, so that a script written for those is told
 * by name what does not work here, and what does instead. docs/build-flags.md is this table for readers; a test holds them together.
 */
import { PROGRESS_MODES } from '../progress/index.ts'
import { DOCKERFILE_OPTIONS, LIMIT_OPTIONS, STORE_OPTION, type OptionTable } from './types.ts'

const NO_AGENT = 'no agent is given to RUN; give a key or a token by --secret'
const ATTESTATIONS = 'no attestations are made; attach them to the pushed image with a tool for that'
const LOCAL_CACHE =
  'the store is the cache; another machine gets it by tbuild push and tbuild pull, or tbuild save and tbuild load'
const CPU_LIMIT = 'limit processor time by --cpus'

/** These do their work. */
const WORKING = {
  tag: { kind: 'list', short: 't', value: 'NAME', help: "The image's name, e.g. app or app:1.2" },
  ...DOCKERFILE_OPTIONS,
  'build-context': {
    kind: 'list',
    value: 'NAME=DIR',
    help: 'Stands for that stage or image: DIR, URL, ...',
  },
  target: { kind: 'value', value: 'STAGE', help: 'Build this stage, not the last one' },
  pull: { kind: 'flag', help: 'Ask the registries for newer base images' },
  'no-cache': { kind: 'flag', help: 'Run every step again' },
  'no-cache-filter': { kind: 'list', value: 'STAGE', help: 'Run the steps of this stage again' },
  'no-stat-cache': { kind: 'flag', help: 'Read every file of the context, changed or not' },
  network: {
    kind: 'value',
    value: 'MODE',
    choices: ['default', 'host', 'none'],
    help: 'Network of each RUN (default: host)',
  },
  'add-host': {
    kind: 'list',
    value: 'NAME=ADDRESS',
    help: 'A line of /etc/hosts in each RUN',
  },
  ...LIMIT_OPTIONS,
  'shm-size': { kind: 'value', value: 'SIZE', help: 'Of /dev/shm in each RUN (default: 64m)' },
  ulimit: { kind: 'list', value: 'NAME=N[:N]', help: 'A limit of processes, e.g. nofile=1024' },
  'cgroup-parent': { kind: 'value', value: 'CGROUP', help: 'Where the cgroup of each RUN is made' },
  secret: {
    kind: 'list',
    value: 'SECRET',
    help: 'For RUN --mount=type=secret: id=ID,src=FILE',
  },
  label: { kind: 'list', value: 'KEY=VALUE', help: 'Add a label to the image' },
  annotation: { kind: 'list', value: 'KEY=VALUE', help: "Add an annotation to the image's manifest" },
  platform: { kind: 'value', value: 'OS/ARCH', help: "Only this machine's own is built" },
  output: {
    kind: 'list',
    short: 'o',
    value: 'OUTPUT',
    help: 'Also write it out: DIR, -, type=oci,dest=FILE',
  },
  push: { kind: 'flag', help: 'Push each of the names afterwards' },
  insecure: { kind: 'flag', help: 'With --push: allow plain http and unknown certificates' },
  check: { kind: 'flag', help: 'Check the Dockerfile, build nothing' },
  call: { kind: 'value', value: 'METHOD', help: 'build, check, outline, targets; with ,format=json' },
  progress: {
    kind: 'value',
    value: 'HOW',
    choices: [...PROGRESS_MODES, 'tty'],
    help: 'How to show it (default: auto)',
  },
  iidfile: { kind: 'value', value: 'FILE', help: "Write the image's id to this file" },
  'metadata-file': { kind: 'value', value: 'FILE', help: 'Write digests and names to this file, as JSON' },
  quiet: { kind: 'flag', short: 'q', help: "Print only the image's id" },
  ...STORE_OPTION,
} as const satisfies OptionTable

/** What these ask for is so anyway, or is done in other words. */
const ACCEPTED = {
  load: { kind: 'flag', hidden: true, help: 'every image is in the store when it is built' },
  'cpu-quota': {
    kind: 'value',
    value: 'MICROSECONDS',
    hidden: true,
    help: 'as --cpus: quota divided by period',
  },
  'cpu-period': {
    kind: 'value',
    value: 'MICROSECONDS',
    hidden: true,
    help: 'as --cpus: quota divided by period',
  },
  rm: { kind: 'flag', hidden: true, help: 'no container outlives its step' },
  'force-rm': { kind: 'flag', hidden: true, help: 'no container outlives its step' },
  'disable-content-trust': { kind: 'flag', hidden: true, help: 'there is no content trust to disable' },
  compress: { kind: 'flag', hidden: true, help: 'the context is sent nowhere' },
} as const satisfies OptionTable

/** By name, with what to use instead. */
const REFUSED = {
  allow: {
    kind: 'refused',
    value: 'ENTITLEMENT',
    accepts: ['network.host'],
    help: 'the network of the host needs no leave; no RUN gets more rights than others',
  },
  attest: { kind: 'refused', value: 'ATTESTATION', help: ATTESTATIONS },
  builder: {
    kind: 'refused',
    value: 'NAME',
    accepts: ['default'],
    help: 'there are no builders to choose from; --store chooses where to build',
  },
  'cache-from': { kind: 'refused', value: 'CACHE', help: LOCAL_CACHE },
  'cache-to': { kind: 'refused', value: 'CACHE', help: LOCAL_CACHE },
  'cpu-shares': { kind: 'refused', short: 'c', value: 'N', help: CPU_LIMIT },
  'cpuset-cpus': { kind: 'refused', value: 'LIST', help: 'run tbuild under taskset(1), or use --cpus' },
  'cpuset-mems': { kind: 'refused', value: 'LIST', help: 'run tbuild under numactl(8)' },
  debug: { kind: 'refused', short: 'D', help: 'errors are shown whole; --progress plain shows all output' },
  detach: { kind: 'refused', help: 'there is no daemon; let the shell put it in the background' },
  invoke: { kind: 'refused', value: 'COMMAND', help: 'tbuild run -it IMAGE COMMAND looks into an image' },
  isolation: {
    kind: 'refused',
    value: 'HOW',
    accepts: ['default', ''],
    help: 'RUN is isolated by namespaces, always',
  },
  'memory-swap': { kind: 'refused', value: 'SIZE', help: '--memory limits memory and swap together' },
  policy: {
    kind: 'refused',
    value: 'POLICY',
    help: 'there are no source policies; name images by digest: FROM name@sha256:...',
  },
  print: { kind: 'refused', value: 'METHOD', help: '--call outline, targets or check' },
  provenance: { kind: 'refused', value: 'HOW', accepts: ['false'], help: ATTESTATIONS },
  root: { kind: 'refused', value: 'DIR', help: 'there is no build server; --store chooses where to build' },
  sbom: { kind: 'refused', value: 'HOW', accepts: ['false'], help: ATTESTATIONS },
  'security-opt': {
    kind: 'refused',
    value: 'OPTION',
    help: 'every RUN has the same seccomp filter and capabilities',
  },
  'server-config': { kind: 'refused', value: 'FILE', help: 'there is no build server' },
  squash: { kind: 'refused', help: 'build FROM scratch in a last stage, with COPY --from=STAGE / /' },
  ssh: { kind: 'refused', value: 'AGENT', help: NO_AGENT },
  stream: { kind: 'refused', help: 'the context is read in place' },
} as const satisfies OptionTable

export const BUILD_OPTIONS = { ...WORKING, ...ACCEPTED, ...REFUSED } as const
