import { expect, test } from '@jest/globals'
import { parse } from '../../dockerfile-parser/index.ts'
import { makePlan, type Plan } from './plan.ts'

/** Of a Dockerfile that names no image. */
async function planOf(text: string | Uint8Array, target?: string): Promise<Plan> {
  return makePlan(parse(text, { file: 'Dockerfile' }), {
    target,
    buildArgs: new Map(),
    network: 'none',
    findImage: (name) => Promise.reject(new Error(`${name} was asked for`)),
  })
}

test('FROM finds a stage whatever the case; --from and --target mean the last stage of a name', async () => {
  const plan = await planOf(`FROM scratch AS Base
ENV A=first
FROM scratch AS base
ENV A=second
FROM BASE AS other
COPY --from=bAsE x /
`)
  expect(plan.target.config.Env?.at(-1)).toBe('A=second')
  expect(plan.stages.map(({ index }) => index)).toEqual([1, 2])
  expect((await planOf('FROM scratch AS a\nENV A=1\nFROM scratch AS a\nENV A=2\n', 'A')).target.index).toBe(1)
})

test('a stage may copy from a later one, which then is made before it; never in a circle', async () => {
  const plan = await planOf('FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nFROM a\n')
  expect(plan.stages.map(({ index }) => index)).toEqual([1, 0, 2])
  const circle = 'FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nCOPY --from=a x /\n'
  await expect(planOf(circle)).rejects.toMatchObject({ code: 'STAGE_CIRCLE', source: { line: 2 } })
  await expect(planOf('FROM scratch AS a\nCOPY --from=a x /\n')).rejects.toMatchObject({
    code: 'STAGE_CIRCLE',
    message: 'the stage needs itself: a needs a',
  })
})

test('names of ARG and of maintainers are not expanded; TARGETSTAGE and OSVERSION are there', async () => {
  const { target } = await planOf(
    'FROM scratch\nENV N=1\nARG TARGETSTAGE\nARG TARGETOSVERSION\nENV S=$TARGETSTAGE V=[$TARGETOSVERSION]\nMAINTAINER $N\n',
  )
  expect(target.config.Env?.slice(-2)).toEqual(['S=default', 'V=[]'])
  expect(target.author).toBe('$N')
})

test('bytes of a heredoc that are no text come through', async () => {
  const { target } = await planOf(
    Buffer.concat([
      Buffer.from('FROM scratch\nCOPY <<"EOF" /x\n'),
      Buffer.from([0xff, 0xfe, 0x0a]),
      Buffer.from('EOF\n'),
    ]),
  )
  const [step] = target.steps
  if (step?.kind !== 'copy') throw new Error('no COPY')
  expect([...(step.inline[0]?.content ?? [])]).toEqual([0xff, 0xfe, 0x0a])
})

test.each([
  ['EXPOSE 80/foo', 'PORT_INVALID'],
  ['EXPOSE 9-8', 'PORT_INVALID'],
  ['STOPSIGNAL SIGNOT', 'SIGNAL_INVALID'],
])('%s is refused', async (line, code) => {
  await expect(planOf(`FROM scratch\n${line}\n`)).rejects.toMatchObject({ code, source: { line: 2 } })
})

const chain = (stages: number): string =>
  ['FROM scratch AS s0', ...Array.from({ length: stages - 1 }, (_, i) => `FROM s${i} AS s${i + 1}`)].join(
    '\n',
  )

test('stages that stand on one another, deep down: up to a bound, then refused', async () => {
  expect((await planOf(chain(1000))).stages).toHaveLength(1000)
  await expect(planOf(chain(1001))).rejects.toMatchObject({ code: 'TOO_MANY_STAGES', source: { line: 1001 } })
})
