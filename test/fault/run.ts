/**
 * The child process that runs a scenario: `node run.ts MODULE STORE SEED`. Facts go to descriptor 3, where the tracer takes them down. Ends with 0; or with
 * 1 and, on standard error, one line of JSON that says what was thrown.
 */
import { writeSync } from 'node:fs'
import { failureOf } from './failure.ts'
import { formatMark, tellInto } from './facts.ts'
import { loadScenario } from './scenario.ts'

const FACTS_FD = 3

if (import.meta.main) {
  const [module = '', path = '', seed = '0'] = process.argv.slice(2)
  try {
    const scenario = await loadScenario(module)
    await scenario.run({
      path,
      seed: Number(seed),
      tell: tellInto((mark) => void writeSync(FACTS_FD, formatMark(mark))),
    })
  } catch (error) {
    process.stderr.write(`${JSON.stringify(failureOf(error))}\n`)
    process.exitCode = 1
  }
}
