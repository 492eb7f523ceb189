/**
 * A store where no overlay can be mounted: on overlayfs itself, as in a container without a volume. The driver is `copy`, with whole directories, and what it
 * makes of a change is the same layer as where there are overlays.
 */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  globSync,
  lchownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { openStore, type DiffId, type Layer, type Root, type Store } from '../cas/index.ts'
import { testDriver } from '../cas/drivers/contract.ts'
import {
  archiveOf,
  capability,
  defaultAcl,
  describeTree,
  makeTree,
  pack,
  richTree,
  scratch,
} from '../cas/tar/testing.ts'
import { AT_FDCWD, makedev, mknodat, removeXattr, setTimes, setXattr } from '../linux/index.ts'
import { cgroupsOf, openWorkshop } from './support/build.ts'
import { sweepCgroups } from '../runtime/index.ts'

const CLI = join(import.meta.dirname, '../cli/index.ts')
const base = mkdtempSync(join(tmpdir(), 'tbuild-whole-'))
const place = join(base, 'mount')

beforeAll(() => {
  for (const name of ['lower', 'upper', 'work', 'mount']) mkdirSync(join(base, name))
  const options = `lowerdir=${base}/lower,upperdir=${base}/upper,workdir=${base}/work`
  execFileSync('mount', ['-t', 'overlay', '-o', options, 'overlay', place])
})
afterAll(() => {
  execFileSync('umount', ['--lazy', place])
  rmSync(base, { recursive: true })
})

testDriver('copy', (path) => openStore(path), place)

test('the choice is whole directories, and says why', async () => {
  await using store = await openStore(join(place, 'store'))
  expect(store.layers.driver).toBe('copy')
  expect(store.layers.driverReason).toMatch(
    /the kernel mounts no overlay with an upper directory on this file system \(.*\): whole directories are copied$/,
  )
})

const CLAMP_NS = 1_700_000_000_000_000_000n
const LATER = 1_800_000_000

type Change = (root: string) => void
const CHANGES: readonly (readonly [what: string, change: Change])[] = [
  ['nothing', () => {}],
  [
    'files',
    (root) => {
      writeFileSync(join(root, 'new'), 'new')
      appendFileSync(join(root, 'large'), 'more')
      truncateSync(join(root, 'block'), 3)
      rmSync(join(root, 'empty'))
      rmSync(join(root, '-dash'))
      writeFileSync(join(root, '-dash'), 'again')
    },
  ],
  [
    'contents alone: size and time are as they were',
    (root) => {
      const fd = openSync(join(root, 'large'), 'r+')
      writeSync(fd, 'LARGE', 50)
      closeSync(fd)
      setTimes(AT_FDCWD, join(root, 'large'), { mtime: 0n })
    },
  ],
  [
    'what ends as it was',
    (root) => {
      chmodSync(join(root, 'large'), 0o644)
      writeFileSync(join(root, 'zeros'), readFileSync(join(root, 'zeros')))
      setTimes(AT_FDCWD, join(root, 'zeros'), { mtime: 0n })
      const bytes = readFileSync(join(root, 'tree/a/one'))
      rmSync(join(root, 'tree/a/one'))
      writeFileSync(join(root, 'tree/a/one'), bytes)
      setTimes(AT_FDCWD, join(root, 'tree/a/one'), { mtime: 0n })
      setTimes(AT_FDCWD, join(root, 'tree/a'), { mtime: 0n })
    },
  ],
  [
    'times alone',
    (root) => {
      utimesSync(join(root, 'large'), 5, 5)
      utimesSync(join(root, 'tree/a'), 5, 5)
      setTimes(AT_FDCWD, join(root, 'to latin'), { mtime: 5n })
    },
  ],
  [
    'modes and owners',
    (root) => {
      chmodSync(join(root, 'large'), 0o4755)
      chmodSync(join(root, 'tree/b'), 0o700)
      chownSync(join(root, 'block'), 8, 9)
      chownSync(join(root, 'attributed'), 8, 9)
      lchownSync(join(root, 'to latin'), 8, 9)
      chmodSync(root, 0o1777)
    },
  ],
  [
    'attributes',
    (root) => {
      setXattr(join(root, 'large'), 'user.new', Buffer.from('x'))
      setXattr(join(root, 'block'), 'security.capability', capability)
      removeXattr(join(root, 'attributes'), 'user.empty')
      setXattr(join(root, 'attributed'), 'user.empty', Buffer.from('not'))
      setXattr(join(root, 'tree/b'), 'system.posix_acl_default', defaultAcl)
      mkdirSync(join(root, 'tree/b/inherits'))
      setXattr(`${root}/.`, 'user.of root', Buffer.from('x'))
    },
  ],
  ['a directory gone', (root) => rmSync(join(root, 'tree/a'), { recursive: true })],
  [
    'a directory made again',
    (root) => {
      rmSync(join(root, 'tree'), { recursive: true })
      mkdirSync(join(root, 'tree'))
      mkdirSync(join(root, 'tree/a'))
      writeFileSync(join(root, 'tree/a/three'), '3')
    },
  ],
  [
    'an equal directory in the place of one',
    (root) => {
      execFileSync('cp', ['-a', join(root, 'tree'), join(root, 'other')])
      rmSync(join(root, 'tree'), { recursive: true })
      execFileSync('mv', [join(root, 'other'), join(root, 'tree')])
    },
  ],
  [
    'files and directories in each other’s places',
    (root) => {
      rmSync(join(root, 'tree/a'), { recursive: true })
      writeFileSync(join(root, 'tree/a'), 'a file')
      rmSync(join(root, 'large'))
      mkdirSync(join(root, 'large'))
      writeFileSync(join(root, 'large/in'), 'in')
      rmSync(join(root, 'd'), { recursive: true })
      symlinkSync('tree', join(root, 'd'))
      unlinkSync(join(root, 'to latin'))
      mkdirSync(join(root, 'to latin'))
    },
  ],
  [
    'links, devices, a fifo',
    (root) => {
      unlinkSync(join(root, 'link to root'))
      symlinkSync('elsewhere', join(root, 'link to root'))
      linkSync(join(root, 'large'), join(root, 'tree/large too'))
      linkSync(join(root, 'tree/large too'), join(root, 'a third'))
      unlinkSync(join(root, 'd/of plain'))
      unlinkSync(join(root, 'dev'))
      mknodat(AT_FDCWD, join(root, 'dev'), 0o020600, makedev(1, 3))
      unlinkSync(join(root, 'fifo 2'))
      mknodat(AT_FDCWD, join(root, 'fifo 3'), 0o010600)
    },
  ],
  [
    'names',
    (root) => {
      renameSync(join(root, 'large'), join(root, 'tree/moved'))
      // Of a directory overlayfs refuses it, and mv(1) copies.
      execFileSync('mv', [join(root, 'tree/a'), join(root, 'moved')])
      execFileSync('mv', [join(root, 'tree/b'), join(root, 'tree/a')])
    },
  ],
  [
    'files of equal size and time in each other’s places',
    (root) => {
      renameSync(join(root, 'tree/a/one'), join(root, 'aside'))
      renameSync(join(root, 'tree/a/two'), join(root, 'tree/a/one'))
      renameSync(join(root, 'aside'), join(root, 'tree/a/two'))
    },
  ],
  [
    'directories of equal files in each other’s places',
    (root) => {
      execFileSync('mv', [join(root, 'tree/a'), join(root, 'tree/c')])
      execFileSync('mv', [join(root, 'tree/b'), join(root, 'tree/a')])
      execFileSync('mv', [join(root, 'tree/c'), join(root, 'tree/b')])
    },
  ],
  [
    'something with a time to come, below what has one',
    (root) => {
      writeFileSync(join(root, 'later/in/changed'), 'changed')
      chmodSync(join(root, 'later/mode'), 0o600)
    },
  ],
  [
    'all of it',
    (root) => {
      for (const name of readdirSync(root, { encoding: 'buffer' }))
        rmSync(Buffer.concat([Buffer.from(`${root}/`), name]), { recursive: true })
    },
  ],
]

describe('a layer is the same as by overlays', () => {
  let stores: readonly [Store, Store]
  let bases: readonly DiffId[]
  beforeAll(async () => {
    using own = scratch()
    const root = own.directory('tree')
    makeTree(root, [
      ...richTree({ xattrs: true }),
      { type: 'directory', path: 'tree' },
      { type: 'directory', path: 'tree/a' },
      { type: 'file', path: 'tree/a/one', contents: '1' },
      { type: 'file', path: 'tree/a/two', contents: '2' },
      { type: 'directory', path: 'tree/b' },
      { type: 'file', path: 'tree/b/one', contents: '3' },
      { type: 'directory', path: 'later', mtimeNs: BigInt(LATER) * 1_000_000_000n },
      { type: 'directory', path: 'later/in', mtimeNs: BigInt(LATER) * 1_000_000_000n },
      { type: 'file', path: 'later/in/changed', mtimeNs: BigInt(LATER) * 1_000_000_000n },
      { type: 'file', path: 'later/in/kept', mtimeNs: BigInt(LATER) * 1_000_000_000n },
      { type: 'file', path: 'later/mode', mtimeNs: BigInt(LATER) * 1_000_000_000n },
      { type: 'directory', path: 'later/kept', mtimeNs: BigInt(LATER) * 1_000_000_000n },
    ])
    stores = [
      await openStore(join(base, 'overlays'), { driver: 'copy' }),
      await openStore(join(place, 'whole')),
    ]
    const archive = await pack(root)
    const ingest = async (store: Store): Promise<DiffId> =>
      (await store.layers.ingestTar(inOnePart(archive))).diffId
    bases = await Promise.all(stores.map(ingest))
  })
  afterAll(async () => {
    for (const store of stores) await store[Symbol.asyncDispose]()
  })

  const bottom = (store: Store): Layer => store.layers.open(bases[0] as DiffId)

  test('the one has overlays, the other has none', () => {
    expect(stores.map(({ layers }) => layers.driverReason)).toEqual([
      'it was asked for',
      expect.stringMatching(/whole directories are copied$/),
    ])
    expect(bases[0]).toBe(bases[1])
  })

  test.each(CHANGES)('%s', async (_, change) => {
    const diffIds: DiffId[] = []
    for (const store of stores) {
      const layer = await changed(store, [bottom(store)], change)
      const atOnce = await shown(store, [bottom(store), layer])
      const { diffId } = await layer.stored
      diffIds.push(diffId)
      expect(await shown(store, [bottom(store), store.layers.open(diffId)])).toEqual(atOnce)
    }
    expect(diffIds[1]).toBe(diffIds[0])
  })

  test('one after another, each upon the last', async () => {
    const diffIds = stores.map(async (store) => {
      const layers = [bottom(store)]
      // What one takes away, the next may need.
      const fitting = CHANGES.filter(([what]) =>
        /^(?:nothing|files|modes.*|links.*|a directory made again|all.*)$/.test(what),
      )
      for (const [, change] of fitting) layers.push(await changed(store, layers, change))
      return await Promise.all(layers.map(async (layer) => (await layer.stored).diffId))
    })
    const [overlays, whole] = await Promise.all(diffIds)
    expect(whole).toEqual(overlays)
  })

  test('but for hard links of the base, which overlayfs breaks', async () => {
    const [, store] = stores
    const layer = await changed(store, [bottom(store)], (root) => appendFileSync(join(root, 'hard'), '!'))
    const { diffId } = await layer.stored
    await using root = await store.layers.mount([bottom(store), store.layers.open(diffId)])
    for (const name of ['plain', 'hard', 'd/of plain'])
      expect(readFileSync(`/proc/self/fd/${root.fd}/${name}`, 'utf8')).toBe('hello!')
  })

  test('of a socket, which no layer can have', async () => {
    const diffIds: DiffId[] = []
    for (const store of stores) {
      const socket = await changed(store, [bottom(store)], (root) => {
        mknodat(AT_FDCWD, join(root, 'socket'), 0o140600)
      })
      const above = await changed(store, [bottom(store), socket], () => {})
      diffIds.push((await socket.stored).diffId, (await above.stored).diffId)
    }
    expect(new Set(diffIds).size).toBe(1)
  })

  test('with another root made upon the same one just when it is committed', async () => {
    const diffIds: DiffId[] = []
    for (const store of stores) {
      const above = await changed(store, [bottom(store)], (root) => writeFileSync(join(root, 'above'), ''))
      const { diffId } = await above.stored
      await using root = await store.layers.mountWritable([bottom(store)])
      writeFileSync(`/proc/self/fd/${root.fd}/tree/new`, 'new')
      let other: Promise<Root> | undefined
      // It would make its root of the one that the first was copied from, were that free.
      const { signal } = new AbortController()
      signal.throwIfAborted = () =>
        void (other ??= store.layers.mount([bottom(store), store.layers.open(diffId)]))
      const layer = await root.commit({ clampMtimeNs: CLAMP_NS, signal })
      diffIds.push((await layer.stored).diffId)
      await (await other)?.[Symbol.asyncDispose]()
    }
    expect(diffIds[1]).toBe(diffIds[0])
  })

  test('in a store whose directory gives what is made in it a group and an ACL', async () => {
    const trees: string[][] = []
    for (const path of [undefined, join(base, 'given'), join(place, 'given')]) {
      if (path !== undefined) {
        mkdirSync(path)
        chownSync(path, 0, 50)
        chmodSync(path, 0o2755)
        setXattr(path, 'system.posix_acl_default', defaultAcl)
      }
      await using store = await openStore(path ?? join(base, 'not given'), { driver: 'copy' })
      const archive = archiveOf({ path: 'file', contents: 'x' }, { path: 'directory/' })
      const { diffId } = await store.layers.ingestTar(inOnePart(archive))
      const layers = [store.layers.open(diffId)]
      layers.push(await changed(store, layers, (root) => writeFileSync(join(root, 'directory/new'), '')))
      layers.push(await changed(store, layers, (root) => writeFileSync(join(root, 'new'), '')))
      trees.push((await shown(store, layers)).map((line) => line.replace(/ @\d+/, '')))
    }
    expect(trees[1]).toEqual(trees[0])
    expect(trees[2]).toEqual(trees[0])
  })

  test('on a root that has a setgid directory already', async () => {
    const [, store] = stores
    const lower = archiveOf({ path: 'staff/', mode: 0o2775, gid: 50 })
    const upper = archiveOf({ path: 'staff/', mode: 0o2775, gid: 50 }, { path: 'staff/file', contents: 'x' })
    const layers: Layer[] = []
    for (const archive of [lower, upper]) {
      layers.push(store.layers.open((await store.layers.ingestTar(inOnePart(archive))).diffId))
      expect(await shown(store, layers)).toHaveLength(layers.length)
    }
    expect((await shown(store, layers))[1]).toMatch(/^"staff\/file" 100644 0:0 /)
  })

  test('fsck finds all well beside them, and the ledger adds up', async () => {
    const [, store] = stores
    await using root = await store.layers.mountWritable([bottom(store)])
    writeFileSync(`/proc/self/fd/${root.fd}/new`, 'new'.repeat(10_000))
    const other = await openStore(store.path)
    expect(await other.fsck()).toMatchObject({ problems: [] })
    const usage = (await other.ledger()).usage()
    await other[Symbol.asyncDispose]()
    const { allocatedBytes, rows } = usage.measure()
    const du = execFileSync('du', ['-s', '--block-size=1', store.path], { encoding: 'utf8' })
    expect(allocatedBytes).toBe(Number(du.split('\t')[0]))
    expect(rows.find(({ kind }) => kind === 'work')?.allocatedBytes).toBeGreaterThan(60_000)
  })
})

describe('a build', () => {
  const dockerfile = `FROM base AS one
WORKDIR /work/deep
COPY --chown=3:4 some some
RUN echo made > made && chmod 640 some/a && ln some/a linked && rm some/b && mkdir -p d/e && touch d/e/f
RUN rm -r d && mkdir d && touch d/g && mv some other && mkfifo fifo
ADD archive.tar /
FROM base
COPY --from=one /work /result
RUN --mount=type=bind,from=one,target=/from,rw cp /from/work/deep/made / && echo x > /from/x && test -e /from/x
RUN --mount=type=bind,target=/context [ ! -w /context/some/a ] || ! echo x > /context/some/a
RUN --mount=type=cache,target=/cache echo x > /cache/x
ENV A=b
RUN mknod /null c 1 3 && ! cat /null && rm /null && echo x > /other && chmod 4755 /other
USER ann
RUN [ "$(id -u)" = 1000 ] && [ ! -w /result ] && [ -u /other ] && [ ! -e /context ] && [ ! -e /cache ] && [ ! -e /from ]
`
  test('of RUN, COPY, ADD and several stages gives the image that it gives by overlays', async () => {
    const digests: string[] = []
    for (const path of [undefined, join(place, 'builds')]) {
      await using shop = await openWorkshop(path)
      const context = shop.context({ Dockerfile: dockerfile, 'some/a': 'a', 'some/b': 'b' })
      execFileSync('tar', [
        '-C',
        join(context, 'some'),
        '--mtime=@5',
        '-cf',
        join(context, 'archive.tar'),
        'a',
      ])
      const built = await shop.build(context, { sourceDateEpoch: 1_700_000_000 })
      digests.push(built.manifestDigest)
      expect(await shop.store.fsck()).toMatchObject({ problems: [] })
      const again = await shop.build(context, { sourceDateEpoch: 1_700_000_000 })
      expect([again.manifestDigest, again.ran]).toEqual([built.manifestDigest, []])
    }
    expect(digests[1]).toBe(digests[0])
  })

  test('of parallel stages upon one, and a step that fails', async () => {
    await using shop = await openWorkshop(join(place, 'parallel'))
    const stages = [1, 2, 3, 4].map(
      (i) => `FROM common AS s${i}\nRUN echo ${i} > /own && cat /common && ls /`,
    )
    const copies = [1, 2, 3, 4].map((i) => `COPY --from=s${i} /own /own${i}`)
    const file = ['FROM base AS common', 'RUN echo common > /common', ...stages, 'FROM base', ...copies]
    const { output } = await shop.build(
      shop.context({ Dockerfile: [...file, 'RUN cat /own?', ''].join('\n') }),
    )
    expect(output).toMatch(/1\n2\n3\n4\n$/)
    const failing = shop.context({ Dockerfile: 'FROM base\nRUN touch /x\nRUN touch /y && false\n' })
    await expect(shop.build(failing)).rejects.toMatchObject({ code: 'RUN_FAILED' })
    expect(await shop.store.fsck()).toMatchObject({ problems: [] })
  })

  test('that is killed leaves nothing to the next process', async () => {
    await using shop = await openWorkshop(join(place, 'killed'))
    const context = shop.context({
      Dockerfile: 'FROM base\nRUN touch /x\nRUN touch /started && sleep 1000\n',
    })
    const child = spawn(process.execPath, [CLI, 'build', '--store', shop.store.path, context], {
      stdio: 'ignore',
    })
    const work = join(shop.store.path, 'work')
    const isStarted = (): boolean => globSync(join(work, '*/upper-*/whole/started')).length > 0
    while (!isStarted()) await wait(50)
    const [killed = ''] = readdirSync(work).filter((name) => name !== shop.store.lease().scope)
    expect(killed).not.toBe('')
    child.kill('SIGKILL')
    await once(child, 'exit')
    const own = shop.store.lease().scope
    // As every command does: cgroups of the dead go first.
    await using next = await openStore(shop.store.path, {
      beforeSweep: async (dead) => sweepCgroups((scope) => !dead.has(scope)),
    })
    expect(readdirSync(work)).toEqual([own])
    expect(cgroupsOf(killed)).toEqual([])
    expect(await next.fsck()).toMatchObject({ problems: [] })
  })

  describe('without CAP_SYS_ADMIN', () => {
    const store = join(base, 'unprivileged')
    const context = join(base, 'context')
    const without = (more: string, ...args: string[]): Promise<string> =>
      new Promise((resolve) => {
        const lacking = `-sys_admin${more}`
        const by = ['--bounding-set', lacking, '--inh-caps', lacking, process.execPath, CLI]
        const env = { ...process.env, TBUILD_STORE: store }
        execFile('setpriv', [...by, ...args], { env }, (error, stdout, stderr) =>
          resolve(`${String(error?.code ?? 0)}\n${stdout}${stderr}`),
        )
      })
    const tbuild = (...args: string[]): Promise<string> => without('', ...args)
    beforeAll(() => {
      mkdirSync(join(base, 'root/bin'), { recursive: true })
      execFileSync('cp', ['/bin/busybox', join(base, 'root/bin/sh')])
      execFileSync('tar', ['-C', join(base, 'root'), '-cf', join(base, 'base.tar'), '.'])
      mkdirSync(context)
      writeFileSync(join(context, 'file'), 'contents')
    })

    test('info says why', async () => {
      expect(await tbuild('import', join(base, 'base.tar'), 'base')).toMatch(/^0\n/)
      expect(await tbuild('info')).toMatch(
        /driver: +copy \(the store keeps contents in segments, and this process may mount nothing \(it lacks CAP_SYS_ADMIN\): whole directories are copied\)/,
      )
    })

    test('FROM, COPY, WORKDIR and ENV are built, saved and written to a directory', async () => {
      const text =
        'FROM base AS one\nWORKDIR /w\nCOPY file d/\nFROM base\nENV A=b\nCOPY --from=one --chown=5:6 /w /x\n'
      writeFileSync(join(context, 'Dockerfile'), text)
      expect(await tbuild('build', '-t', 'app', context)).toMatch(/^0\n/)
      expect(await tbuild('save', 'app', '-o', join(base, 'app.tar'))).toMatch(/^0\n/)
      expect(await tbuild('build', '-o', join(base, 'out'), context)).toMatch(/^0\n/)
      expect(readFileSync(join(base, 'out/x/d/file'), 'utf8')).toBe('contents')
      const tar = join(base, 'out.tar')
      expect(await tbuild('build', '-o', `type=tar,dest=${tar}`, context)).toMatch(/^0\n/)
      expect(execFileSync('tar', ['--numeric-owner', '-tvf', tar], { encoding: 'utf8' })).toMatch(
        / 5\/6 .* x\/d\/file$/m,
      )
      expect(await tbuild('fsck')).toMatch(/all is well/)
      expect(readdirSync(join(store, 'work'))).toEqual([])
      // Who may mount takes its way in the same store.
      await using opened = await openStore(store)
      expect(opened.layers.driver).toBe('erofs')
    })

    test.each([
      ['mknod', 'a device', { type: 'char', path: 'null', major: 1, minor: 3 }],
      ['chown', 'another owner', { path: 'file', uid: 5 }],
      [
        'setfcap',
        'a file capability',
        { path: 'ping', xattrs: new Map([['security.capability', capability]]) },
      ],
    ] as const)('and without CAP_%s, of an image with %s, COPY says so', async (lacking, _, entry) => {
      const tar = join(base, `${lacking}.tar`)
      writeFileSync(tar, archiveOf({ path: 'd/' }, entry))
      writeFileSync(join(context, 'Dockerfile'), `FROM ${lacking}\nCOPY file d/\n`)
      expect(await tbuild('import', tar, lacking)).toMatch(/^0\n/)
      const refused = await without(`,-${lacking}`, 'build', context)
      expect(refused).toMatch(/^1\n[^]*EPERM.* \[FILES_DENIED\][^]*hint: .*CAP_/)
      expect(refused).toContain('2 | COPY file d/')
      expect(readdirSync(join(store, 'work'))).toEqual([])
    })

    test('a RUN says what it lacks, and where', async () => {
      writeFileSync(join(context, 'Dockerfile'), 'FROM base\nRUN true\n')
      const refused = await tbuild('build', context)
      expect(refused).toMatch(/^1\n/)
      expect(refused).toContain(
        'No container can be made here: this process lacks CAP_SYS_ADMIN. [CONTAINER_DENIED]',
      )
      expect(refused).toContain('2 | RUN true')
      expect(refused).toContain('hint: RUN and tbuild run need CAP_SYS_ADMIN')
      expect(await tbuild('run', 'base', 'sh')).toMatch(/^125\n[^]*CONTAINER_DENIED/)
    })
  })
})

async function changed(store: Store, layers: readonly Layer[], change: Change): Promise<Layer> {
  await using root = await store.layers.mountWritable(layers)
  change(`/proc/${process.pid}/fd/${root.fd}`)
  return await root.commit({ clampMtimeNs: CLAMP_NS })
}

async function shown(store: Store, layers: readonly Layer[]): Promise<string[]> {
  await using root = await store.layers.mount(layers)
  // Of the root the time may be the mount's.
  return describeTree(`/proc/self/fd/${root.fd}/.`, { links: false }).slice(1)
}

async function* inOnePart(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}
