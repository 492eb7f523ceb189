/** `--help`, made from the same tables that parse. */
import type { Command, Option } from './types.ts'

export function commandHelp(name: string, summary: string, command: Command): string {
  const own = Object.entries(command.options).filter(
    ([, { kind, hidden }]) => kind !== 'refused' && hidden !== true,
  )
  const options = [...own, ['help', HELP] as const]
  const parts = [
    `Usage: tbuild ${name} ${command.usage}\n`,
    `${summary}.`,
    ...(command.description === undefined ? [] : [`\n${wrap(command.description)}`]),
    `\nOptions:\n${columns(options.map(([key, option]) => [optionTerm(key, option), optionText(option)]))}`,
    `\nExamples:\n${columns(command.examples, '  ')}`,
  ]
  return `${parts.join('\n')}\n`
}

const HELP: Option = { kind: 'flag', short: 'h', help: 'Show this' }

function optionTerm(key: string, option: Option): string {
  const short = option.short === undefined ? '    ' : `-${option.short}, `
  return `${short}--${key}${option.kind === 'flag' ? '' : ` ${option.value ?? ''}`}`
}

function optionText(option: Option): string {
  const choices =
    option.kind === 'value' && option.choices !== undefined ? `: ${option.choices.join(', ')}` : ''
  return `${option.help}${choices}${option.kind === 'list' ? ' (may be repeated)' : ''}`
}

/** Two columns; a term too long for the first stands on its own line. */
export function columns(rows: readonly (readonly [string, string])[], indent = '  '): string {
  const width = Math.min(42, Math.max(...rows.map(([term]) => term.length)))
  return rows
    .map(([term, text]) => {
      const gap =
        term.length > width ? `\n${' '.repeat(indent.length + width)}` : ' '.repeat(width - term.length)
      return `${indent}${term}${gap}  ${text}`
    })
    .join('\n')
}

/** One paragraph, in lines of at most 80 characters. */
function wrap(text: string): string {
  const lines: string[] = []
  for (const word of text.trim().split(/\s+/)) {
    const line = lines.at(-1)
    if (line === undefined || line.length + word.length >= 80) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines.join('\n')
}
