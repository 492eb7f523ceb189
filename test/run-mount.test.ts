/** RUN --mount in builds: what is seen, what is kept, and what must be nowhere afterwards. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { BuildRequest } from '../builder/index.ts'
import { openTree } from '../cas/index.ts'
import { openWorkshop, type Built, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

const build = (
  dockerfile: string,
  files: Readonly<Record<string, string>> = {},
  more?: Partial<BuildRequest>,
): Promise<Built> => shop.build(shop.context({ ...files, Dockerfile: dockerfile }), more)

/** Every name in the topmost layer. */
async function topLayer(built: Built): Promise<string[]> {
  const diffId = shop.image(built).config.rootfs.diff_ids.at(-1)
  if (diffId === undefined) return []
  await using root = await shop.store.layers.mount([shop.store.layers.open(diffId)])
  using tree = openTree(root.fd)
  const walk = (path: string): string[] =>
    tree.list(path).flatMap((name) => {
      const at = path === '' ? name : `${path}/${name}`
      return [at, ...(tree.lstat(at)?.isDirectory() === true ? walk(at) : [])]
    })
  return walk('')
}

/** Files of a directory that hold these bytes, or have them in their name. */
function grep(directory: string, text: string): string[] {
  const { stdout } = spawnSync('grep', ['-rlaF', text, directory], { encoding: 'utf8' })
  return stdout.split('\n').filter((line) => line !== '')
}

describe('bind', () => {
  test('of the context: without what is ignored, and all of it root’s; mode and time are the file’s', async () => {
    const context = shop.context({
      Dockerfile:
        'FROM base\nRUN --mount=target=/context find /context | sort; stat -c "%a %u %g %Y %n" /context /context/dir/file\n',
      '.dockerignore': 'secret*\n!secret-not\n',
      'dir/file': 'text',
      secret: 'hidden',
      'secret-not': '',
    })
    chmodSync(join(context, 'dir/file'), 0o640)
    chmodSync(context, 0o700)
    utimesSync(join(context, 'dir/file'), 1e9, 1e9)
    spawnSync('chown', ['-R', '7:8', context])
    const { output } = await shop.build(context)
    const [tree, stats] = [output.split('\n').slice(0, -3), output.split('\n').slice(-3, -1)]
    expect(tree).toEqual(
      ['', '/.dockerignore', '/Dockerfile', '/dir', '/dir/file', '/secret-not'].map(
        (name) => `/context${name}`,
      ),
    )
    expect(stats).toEqual([
      expect.stringMatching(/^755 0 0 \d+ \/context$/),
      '640 0 0 1000000000 /context/dir/file',
    ])
  })

  test('nothing of it is in the layer, nor what was made to mount it on', async () => {
    const built = await build(
      'FROM base\nWORKDIR /work\nRUN --mount=source=a,target=deep/er/a --mount=source=d,target=d cat deep/er/a d/b >out\n',
      { a: 'A', 'd/b': 'B' },
    )
    expect(await topLayer(built)).toEqual(['work', 'work/out'])
  })

  test('it is read-only; with rw what is written is dropped, in the layer, the context and the next RUN', async () => {
    const context = shop.context({
      Dockerfile: `FROM base
RUN --mount=target=/c touch /c/x 2>&1 || true
RUN --mount=target=/c,rw echo new >/c/file && echo more >/c/other && cat /c/file
RUN --mount=target=/c cat /c/file && ls /c
`,
      file: 'old\n',
    })
    const built = await shop.build(context)
    expect(built.output).toMatch(/Read-only file system\n.*new\nold\nDockerfile\nfile\n$/s)
    expect(readdirSync(context).toSorted()).toEqual(['Dockerfile', 'file'])
    expect(readFileSync(join(context, 'file'), 'utf8')).toBe('old\n')
    expect(await topLayer(built)).toEqual([])
  })

  test('the key holds the contents that are mounted, and no others', async () => {
    const dockerfile = 'FROM base\nRUN --mount=source=a,target=/a cat /a/f >/out\n'
    const first = await build(dockerfile, { 'a/f': '1', b: '1' })
    const same = await build(dockerfile, { 'a/f': '1', b: '2' })
    const other = await build(dockerfile, { 'a/f': '2', b: '2' })
    expect(
      [first.ran, same.ran.filter((title) => title.includes('RUN')), other.ran].map(
        ({ length }) => length > 0,
      ),
    ).toEqual([true, false, true])
    expect(same.imageId).toBe(first.imageId)
    expect(other.imageId).not.toBe(first.imageId)
  })

  test('of a stage: a stage that is made anew to the same files stops the rebuild there', async () => {
    const dockerfile = `FROM base AS made
COPY bust /
RUN mkdir /out && echo same >/out/file
FROM base
RUN --mount=from=made,source=out,target=/out,rw touch /out/x && cat /out/file /proc/sys/kernel/random/uuid >/unique
`
    const first = await build(dockerfile, { bust: '1' })
    const again = await build(dockerfile, { bust: '2' })
    expect(again.ran.filter((title) => title.includes('made'))).not.toEqual([])
    expect(shop.image(again).config.rootfs).toEqual(shop.image(first).config.rootfs)
    const changed = await build(dockerfile.replace('echo same', 'echo other'), { bust: '2' })
    expect(shop.image(changed).config.rootfs).not.toEqual(shop.image(first).config.rootfs)
  })

  test('of a stage that ran in this very build, of a whole image, and of one file of it', async () => {
    const { output } = await build(
      `FROM base AS made
RUN echo made >/made
FROM base
RUN --mount=from=made,target=/m --mount=from=base,target=/b --mount=from=base,source=/etc/passwd,target=/p cat /m/made && ls -d /b/bin/busybox && head -c 4 /p
`,
      {},
      { noCache: true },
    )
    expect(output).toBe('made\n/b/bin/busybox\nroot')
  })

  test('a mount in a mount: a cache in the context, which is written', async () => {
    const { output } = await build(
      `FROM base
WORKDIR /src
RUN --mount=target=.,rw --mount=type=cache,id=nested,target=modules touch modules/kept && ls
RUN --mount=target=. --mount=type=cache,id=nested,target=modules ls modules
`,
      { file: '' },
    )
    expect(output).toBe('Dockerfile\nfile\nmodules\nkept\n')
  })

  test('what is not there, or is ignored, is an error at its place', async () => {
    await expect(
      build('FROM base\nRUN true && \\\n  true\nRUN \\\n  --mount=source=none,target=/x true\n'),
    ).rejects.toMatchObject({
      code: 'COPY_NOT_FOUND',
      source: { line: 5 },
    })
    await expect(
      build('FROM base\nRUN --mount=source=a,target=/x true\n', { a: '', '.dockerignore': 'a\n' }),
    ).rejects.toMatchObject({ code: 'COPY_NOT_FOUND', hint: expect.stringContaining('.dockerignore:1') })
  })

  test('symlinks: a source that leads out of the context leads nowhere, one in it is followed; [ is no pattern', async () => {
    const context = shop.context({
      Dockerfile: "FROM base\nRUN --mount=source=in,target=/in --mount=source='[ab]',target=/p cat /in /p\n",
      file: 'inside\n',
      '[ab]': 'plain\n',
      a: 'wrong\n',
    })
    symlinkSync('file', join(context, 'in'))
    expect((await shop.build(context)).output).toBe('inside\nplain\n')
    symlinkSync('/etc/hostname', join(context, 'out'))
    writeFileSync(join(context, 'Dockerfile'), 'FROM base\nRUN --mount=source=out,target=/out cat /out\n')
    await expect(shop.build(context)).rejects.toMatchObject({ code: 'COPY_NOT_FOUND' })
  })
})

describe('targets', () => {
  test('symlinks of the image lead nowhere but inside', async () => {
    const outside = join(shop.directory, 'outside')
    mkdirSync(outside)
    const { output } = await build(
      `FROM base\nRUN ln -s ${outside} /out && ln -s ../../../.. /up\nRUN --mount=type=cache,target=/out/x --mount=type=tmpfs,target=/up/y ls -d ${outside}/x /y\n`,
    )
    expect(output).toBe(`${outside}/x\n/y\n`)
    expect(readdirSync(outside)).toEqual([])
  })

  test.each(['/', '/proc', '/proc/self', '/sys/fs', '/dev', '../..', ''])('%j is refused', async (target) => {
    await expect(build(`FROM base\nRUN --mount=type=tmpfs,target=${target} true\n`)).rejects.toMatchObject({
      code: 'MOUNT_TARGET',
      source: { line: 2 },
    })
  })
})

test('tmpfs: of its size, and gone', async () => {
  const { output } = await build(`FROM base
RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && df -k /t | tail -1 | awk '{print $2}'
RUN ls -d /t 2>/dev/null || echo gone
RUN --mount=type=tmpfs,target=/dev/shm,size=128m df -k /dev/shm | tail -1 | awk '{print $2}'
`)
  expect(output).toBe('1024\ngone\n131072\n')
})

const counting = (bust: string): string =>
  `FROM base\nENV BUST=${bust}\nRUN --mount=type=cache,id=kept,target=/a echo x >>/a/log\nRUN --mount=type=cache,id=kept,target=/b wc -l </b/log\n`
const seeded = (n: number): string => `FROM base AS seed
RUN mkdir -p /seed/in && echo begin >/seed/in/file && chown 5:6 /seed/in/file
FROM base
RUN --mount=type=cache,id=seeded,from=seed,source=seed,target=/c stat -c "%u:%g" /c/in/file && cat /c/in/file && echo ${n} >>/c/in/file
`
const taking = (name: string): string =>
  `FROM base AS ${name}\nRUN --mount=type=cache,id=turns,sharing=locked,target=/lock test ! -e /lock/busy && touch /lock/busy && sleep 0.2 && rm /lock/busy && echo ok >/${name}\n`

const lockingTwo = (name: string, one: string, two: string): string =>
  `FROM base AS ${name}\nRUN --mount=type=cache,id=${one},sharing=locked,target=/x --mount=type=cache,id=${two},sharing=locked,target=/y echo ok >/${name}\n`

describe('cache', () => {
  test('kept from RUN to RUN and build to build; not in the layer; not part of the key', async () => {
    const first = await build(counting('1'))
    const second = await build(counting('2'))
    expect([first.output, second.output]).toEqual(['1\n', '2\n'])
    expect(await topLayer(second)).toEqual([])
    const again = await build(counting('1'))
    expect(again.ran).toEqual([])
  })

  test('its id is the target, as it is written; owner and mode begin another one', async () => {
    const { output } = await build(`FROM base
RUN --mount=type=cache,target=/c1 touch /c1/plain
RUN --mount=type=cache,target=/c2 ls /c2
RUN --mount=type=cache,target=/c1,uid=1001,gid=1002,mode=0751 stat -c "%u %g %a" /c1 && ls /c1
RUN --mount=type=cache,id=/c1,target=/c3 ls /c3
`)
    expect(output).toBe('1001 1002 751\nplain\n')
  })

  test('it begins with what `from` has, owners and all, and what is written to it stays', async () => {
    expect((await build(seeded(1))).output).toBe('5:6\nbegin\n')
    expect((await build(seeded(2))).output).toBe('5:6\nbegin\n1\n')
  })

  test('locked: stages side by side take turns', async () => {
    const { output } = await build(
      `${taking('a')}${taking('b')}${taking('c')}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\nRUN cat /a /b /c\n`,
      {},
      { noCache: true },
    )
    expect(output).toBe('ok\nok\nok\n')
  })

  test('two steps that lock the same two caches in other orders do not wait for each other', async () => {
    const dockerfile = `${lockingTwo('a', 'p', 'q')}${lockingTwo('b', 'q', 'p')}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b\n`
    for (let round = 0; round < 3; round++)
      expect((await build(dockerfile, {}, { noCache: true })).output).toBe('ok\nok\n')
  })

  test('a target in a directory of the base leaves that as it is', async () => {
    const built = await build('FROM base\nRUN --mount=type=cache,target=/etc/deep/cache true\n')
    expect(await topLayer(built)).toEqual([])
  })

  test('ro cannot be written', async () => {
    const { output } = await build(
      'FROM base\nRUN --mount=type=cache,target=/ro,ro touch /ro/x 2>&1 || true\n',
    )
    expect(output).toContain('Read-only file system')
  })

  test('a RUN that fails leaves what it wrote', async () => {
    await expect(
      build('FROM base\nRUN --mount=type=cache,id=failed,target=/c touch /c/half; false\n'),
    ).rejects.toMatchObject({ code: 'RUN_FAILED' })
    expect((await build('FROM base\nRUN --mount=type=cache,id=failed,target=/c ls /c\n')).output).toBe(
      'half\n',
    )
  })
})

describe('secret', () => {
  const WORDS = 'hunter2-correct-horse'
  const secrets = (): BuildRequest['secrets'] => {
    const file = join(shop.directory, 'the-secret')
    writeFileSync(file, WORDS)
    process.env['TBUILD_TEST_SECRET'] = WORDS
    return new Map([
      ['it', { file }],
      ['var', { env: 'TBUILD_TEST_SECRET' }],
    ])
  }

  test('it is seen, and afterwards it is nowhere: no layer, key, history, event, nor the store', async () => {
    const built = await build(
      `FROM base
RUN --mount=type=secret,id=it --mount=type=secret,id=var,target=/v,uid=7,gid=8,mode=0741 --mount=type=secret,id=it,env=TOKEN \\
  test "$(cat /run/secrets/it)" = "$(cat /v)" && test "$TOKEN" = "$(cat /v)" && stat -c "%a %u %g" /run/secrets/it /v && wc -c </v
RUN ls -d /run /v 2>/dev/null || echo gone
`,
      {},
      { secrets: secrets() },
    )
    expect(built.output).toBe(`400 0 0\n741 7 8\n${WORDS.length}\ngone\n`)
    expect(JSON.stringify(built)).not.toContain(WORDS)
    expect(JSON.stringify(shop.image(built))).not.toContain(WORDS)
    const wholeStore = join(shop.directory, 'store')
    expect(grep(wholeStore, WORDS)).toEqual([])
    expect(grep(wholeStore, 'RUN --mount=type=secret').length).toBeGreaterThan(0)
    expect(await topLayer(built)).toEqual([])
  })

  test('a RUN that fails does not tell it', async () => {
    const failure = build(
      'FROM base\nRUN --mount=type=secret,id=it,env=TOKEN false\n',
      {},
      { secrets: secrets() },
    )
    const error = await failure.catch((one: unknown) => one)
    expect(error).toMatchObject({ code: 'RUN_FAILED' })
    expect(`${String(error)}${JSON.stringify(error)}`).not.toContain(WORDS)
  })

  test('another value does not run the step again', async () => {
    const dockerfile = 'FROM base\nRUN --mount=type=secret,id=var cat /run/secrets/var >/dev/null; echo ran\n'
    const first = await build(dockerfile, {}, { secrets: secrets() })
    const again = await build(dockerfile, {}, { secrets: new Map() })
    expect(again.imageId).toBe(first.imageId)
  })

  test('missing: nothing is there; required: an error that shows the place', async () => {
    const { output } = await build(
      'FROM base\nRUN --mount=type=secret,id=none ls /run 2>/dev/null || echo nothing\n',
    )
    expect(output).toBe('nothing\n')
    await expect(
      build('FROM base\nRUN --mount=type=tmpfs,target=/t \\\n  --mount=type=secret,id=none,required true\n'),
    ).rejects.toMatchObject({
      code: 'SECRET_MISSING',
      hint: expect.stringContaining('--secret id=none'),
      source: { line: 3, frame: expect.stringContaining('required') },
    })
  })

  test('a zero byte in a variable is refused without telling the rest', async () => {
    const file = join(shop.directory, 'zero')
    writeFileSync(file, `${WORDS}\0`)
    const failure = build(
      'FROM base\nRUN --mount=type=secret,id=z,env=Z true\n',
      {},
      { secrets: new Map([['z', { file }]]) },
    )
    await expect(failure).rejects.toMatchObject({ code: 'SECRET_VARIABLE' })
    await expect(failure).rejects.not.toThrow(WORDS)
  })
})

test('ssh is refused by its name', async () => {
  await expect(build('FROM base\nRUN --mount=type=ssh true\n')).rejects.toThrow(
    'RUN --mount=type=ssh is not supported yet',
  )
})
