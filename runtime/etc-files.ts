/** What is mounted on /etc/resolv.conf, /etc/hosts and /etc/hostname. */
import { readFileSync } from 'node:fs'
import { isErrno } from '../linux/index.ts'
import type { MountPoints } from './mount-points.ts'
import type { ContainerSpec } from './spec.ts'

export interface EtcFile {
  /** Without symlinks, or '' when nothing is to be mounted. */
  readonly target: string
  readonly name: string
  readonly content: string
}

export function etcFiles(spec: ContainerSpec, mountPoints: MountPoints): readonly EtcFile[] {
  const { resolvConf, hosts, hostname } = mountPoints.etc
  return [
    { target: resolvConf, name: 'resolv.conf', content: hostResolvConf() },
    { target: hosts, name: 'hosts', content: hostsFile(spec) },
    { target: hostname, name: 'hostname', content: `${spec.hostname}\n` },
  ]
}

function hostResolvConf(): string {
  try {
    return readFileSync('/etc/resolv.conf', 'utf8').replaceAll('\0', '')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return ''
    throw error
  }
}

function hostsFile(spec: ContainerSpec): string {
  const lines = [
    ['127.0.0.1', 'localhost'],
    ['::1', 'localhost ip6-localhost ip6-loopback'],
    ['fe00::0', 'ip6-localnet'],
    ['ff02::1', 'ip6-allnodes'],
    ['ff02::2', 'ip6-allrouters'],
    ...(spec.hostname === '' ? [] : [['127.0.1.1', spec.hostname]]),
    ...(spec.extraHosts ?? []),
  ]
  return lines.map(([address, name]) => `${address}\t${name}\n`).join('')
}
