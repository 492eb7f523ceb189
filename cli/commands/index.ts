/** Every command: its line in `tbuild --help`, and how to load it. */
import { columns } from '../arguments/help.ts'
import type { Command } from '../arguments/types.ts'

export interface CommandEntry {
  readonly summary: string
  readonly load: () => Promise<Command>
}

export const COMMANDS = {
  build: {
    summary: 'Build an image from a Dockerfile',
    load: async () => (await import('./build.ts')).build,
  },
  check: {
    summary: 'Check a Dockerfile without building it',
    load: async () => (await import('./check.ts')).check,
  },
  run: {
    summary: 'Run a command in a new container of an image',
    load: async () => (await import('./run.ts')).run,
  },
  images: { summary: 'List the images', load: async () => (await import('./images.ts')).images },
  inspect: {
    summary: 'Show all that is known of images',
    load: async () => (await import('./inspect.ts')).inspect,
  },
  history: {
    summary: 'Show how an image was made',
    load: async () => (await import('./history.ts')).history,
  },
  tag: { summary: 'Give an image another name', load: async () => (await import('./tag.ts')).tag },
  rmi: {
    summary: 'Remove names, and images that have no other',
    load: async () => (await import('./rmi.ts')).rmi,
  },
  pull: { summary: 'Fetch an image from a registry', load: async () => (await import('./pull.ts')).pull },
  push: { summary: 'Send an image to a registry', load: async () => (await import('./push.ts')).push },
  login: {
    summary: 'Prove who you are to a registry, and remember it',
    load: async () => (await import('./login.ts')).login,
  },
  logout: { summary: 'Forget a login', load: async () => (await import('./logout.ts')).logout },
  save: { summary: 'Write images to an archive', load: async () => (await import('./save.ts')).save },
  load: { summary: 'Read images from an archive', load: async () => (await import('./load.ts')).load },
  import: {
    summary: 'Make an image of a tar of a root file system',
    load: async () => (await import('./import.ts')).importCommand,
  },
  ls: { summary: "List an image's files", load: async () => (await import('./ls.ts')).ls },
  cat: { summary: "Print an image's files", load: async () => (await import('./cat.ts')).cat },
  diff: { summary: 'Show what changed between images', load: async () => (await import('./diff.ts')).diff },
  df: { summary: 'Show what occupies the store', load: async () => (await import('./df.ts')).df },
  savings: {
    summary: 'Show what sharing layers and files saves',
    load: async () => (await import('./savings.ts')).savings,
  },
  reuse: {
    summary: 'Show what two images have in common',
    load: async () => (await import('./reuse.ts')).reuse,
  },
  prune: { summary: 'Remove what no image needs', load: async () => (await import('./prune.ts')).prune },
  fsck: {
    summary: 'Check the store, and repair it',
    load: async () => (await import('./fsck.ts')).fsck,
  },
  info: {
    summary: 'Show the store and what this machine can do',
    load: async () => (await import('./info.ts')).info,
  },
  version: { summary: 'Show the version', load: async () => (await import('./version.ts')).version },
} as const satisfies Record<string, CommandEntry>

export type CommandName = keyof typeof COMMANDS

export function isCommandName(word: string): word is CommandName {
  return Object.hasOwn(COMMANDS, word)
}

export function programHelp(): string {
  const rows = Object.entries(COMMANDS).map(([name, { summary }]) => [name, summary] as const)
  return `Usage: tbuild [COMMAND] ...

Builds container images from Dockerfiles, without a daemon.

Commands:
${columns(rows)}

What is not a command is a build: tbuild -t app .

  tbuild COMMAND --help   what a command takes, with examples
  tbuild --version
`
}
