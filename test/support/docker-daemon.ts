/** Debian's dockerd, for tests and benchmarks: with the BuildKit that it has in it, without a network, beside any other daemon of the machine. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** From the daemon's path to the client that came with it. Another docker may be first in PATH, and has no BuildKit without a plugin of its own. */
const CLIENT = '../../bin/docker'

export interface DockerDaemon extends AsyncDisposable {
  /** The client, and its environment. */
  readonly docker: string
  readonly env: NodeJS.ProcessEnv
  /** Where the daemon keeps all that it has. */
  readonly data: string
}

/**
 * Starts one; dispose it to stop it. `dockerd`, `containerd` and `runc` are looked for in PATH. Nothing is written outside `directory` but empty
 * directories in /run; what it stored stays there.
 */
export async function startDocker(
  directory: string,
  storageDriver: 'overlay2' | 'vfs',
): Promise<DockerDaemon> {
  const found = spawnSync('sh', ['-c', 'command -v dockerd'], { encoding: 'utf8' })
  if (found.status !== 0) throw new Error('dockerd is not here')
  const docker = join(found.stdout.trim(), CLIENT)
  // Its name is the cgroup's, too.
  const home = mkdtempSync(join(directory, 'tbuild-docker-'))
  const at = (name: string): string => join(home, name)
  const socket = `unix://${at('docker.sock')}`
  writeFileSync(at('daemon.json'), JSON.stringify({ 'deprecated-key-path': at('key.json') }))
  const where = [
    '--data-root',
    at('data'),
    '--exec-root',
    at('exec'),
    '--pidfile',
    at('docker.pid'),
    '--host',
    socket,
  ]
  const what = ['--config-file', at('daemon.json'), '--storage-driver', storageDriver, '--bridge', 'none']
  const keepOut = [
    `--cgroup-parent=/${basename(home)}`,
    '--iptables=false',
    '--ip6tables=false',
    '--ip-forward=false',
    '--ip-masq=false',
  ]
  // setpriv (util-linux): the kernel stops the daemon when its parent goes, even by SIGKILL.
  const command = ['--pdeathsig', 'TERM', found.stdout.trim(), ...where, ...what, ...keepOut]
  const daemon = spawn('setpriv', command, { stdio: ['ignore', 'ignore', openSync(at('dockerd.log'), 'w')] })
  const ended = new Promise<void>((resolve) => void daemon.once('exit', resolve).once('error', resolve))
  const stop = async (): Promise<void> => {
    daemon.kill()
    await ended
    // It leaves its cgroups, empty; and its data mounted on itself, if it could not start.
    spawnSync('umount', [at('data')], { stdio: 'ignore' })
    spawnSync('find', ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${basename(home)}*`, '-delete'])
  }
  const env = { ...process.env, DOCKER_HOST: socket, DOCKER_CONFIG: at('config'), DOCKER_BUILDKIT: '1' }
  for (let attempt = 0; spawnSync(docker, ['version'], { env, stdio: 'ignore' }).status !== 0; attempt++) {
    if (attempt === 100 || daemon.exitCode !== null) {
      const said = readFileSync(at('dockerd.log'), 'utf8').trim().split('\n').at(-1)
      await stop()
      throw new Error(`dockerd did not start: ${said}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  return { docker, env, data: at('data'), [Symbol.asyncDispose]: stop }
}
