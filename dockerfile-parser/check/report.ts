import { frame } from '../source.ts'
import type { Dockerfile, Range } from '../types.ts'
import { isOn, type CheckConfig } from './options.ts'
import { pageOf, RULES, type RuleName } from './rules.ts'

export interface Finding {
  readonly rule: RuleName
  readonly level: 'warning' | 'info'
  /** What is the matter here. BuildKit's words for its own checks. */
  readonly message: string
  /** What the check is about in general. */
  readonly description: string
  /** Page in Docker's documentation, or empty. */
  readonly url: string
  /** Page in ours, from the project's root. */
  readonly page: string
  /** The exact words. */
  readonly range: Range
  /** The line that BuildKit gives: that of the instruction. */
  readonly line: number
  /** More about this place: the ignore file's line, how sure it is, what to do. */
  readonly note?: string | undefined
  readonly frame: string
}

/** What an instruction is checked with: its first line, and the options in the comments before it. */
export interface Place {
  readonly line: number
  readonly local?: CheckConfig | undefined
}

export class Reporter {
  readonly findings: Finding[] = []
  readonly #tree: Dockerfile
  readonly #config: CheckConfig
  readonly #own: boolean

  constructor(tree: Dockerfile, config: CheckConfig, own: boolean) {
    this.#tree = tree
    this.#config = config
    this.#own = own
  }

  report(name: RuleName, place: Place, range: Range, message: string, note?: string): void {
    const rule = RULES[name]
    if (rule.level === 'info' && !this.#own) return
    if (!isOn(rule, this.#config, place.local)) return
    const { level, description, url } = rule
    this.findings.push({
      rule: name,
      level,
      message,
      description,
      url,
      page: pageOf(name),
      range,
      line: place.line,
      note,
      frame: frame(this.#tree, range),
    })
  }
}
