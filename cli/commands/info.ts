import { describeRuntime } from '../../runtime/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { imageSize } from '../images.ts'
import { humanSize } from '../format.ts'
import { out } from '../output.ts'
import { hostPlatform } from '../platform.ts'
import { openStoreToRead } from '../store.ts'
import { packageVersion } from '../version.ts'

export const info = defineCommand({
  usage: '[OPTIONS]',
  options: { json: { kind: 'flag', help: 'Print JSON' }, ...STORE_OPTION },
  examples: [
    ['tbuild info', 'for a person'],
    ['tbuild info --json', 'for a script'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    await using store = await openStoreToRead(options)
    const runtime = describeRuntime()
    const images = store.images.list()
    const found = {
      version: packageVersion(),
      node: process.version,
      platform: hostPlatform(),
      store: store.path,
      driver: store.layers.driver,
      driverReason: store.layers.driverReason,
      images: images.length,
      layers: new Set(images.flatMap(({ config }) => config.rootfs.diff_ids)).size,
      bytes: images.reduce((sum, image) => sum + imageSize(store, image), 0),
      runtime,
    }
    if (options.json) {
      out(`${JSON.stringify(found, undefined, 2)}\n`)
      return
    }
    const { cgroupVersion, controllers } = runtime
    const cgroup =
      cgroupVersion === 0 ? 'none' : `v${cgroupVersion} (${controllers.join(', ') || 'no controllers'})`
    out(
      Object.entries({
        tbuild: `${found.version} on Node ${found.node}, ${found.platform}`,
        store: found.store,
        driver: `${found.driver} (${found.driverReason})`,
        images: `${found.images} of ${found.layers} layers, ${humanSize(found.bytes)} unpacked`,
        cgroups: cgroup,
        seccomp: runtime.seccomp ? 'yes' : 'no',
        launcher: runtime.launcher,
      })
        .map(([key, value]) => `${`${key}:`.padEnd(10)}${value}\n`)
        .join(''),
    )
  },
})
