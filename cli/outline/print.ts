/** As buildx prints them. */
import type { Need, Outline, TargetList } from './types.ts'

export function printTargets({ targets }: TargetList): string {
  const rows = targets.map(({ name, default: isDefault, description = '' }) => [
    [...(name === undefined ? [] : [name]), ...(isDefault === true ? ['(default)'] : [])].join(' '),
    description,
  ])
  return columns([['TARGET', 'DESCRIPTION'], ...rows], 1)
}

/** Each part ends in an empty line. */
export function printOutline({ name, description, args = [], secrets = [], ssh = [] }: Outline): string {
  const head = [
    ['TARGET:', name ?? '(default)'],
    ...(description === undefined ? [] : [['DESCRIPTION:', description]]),
  ]
  const parts = [
    ...(name === undefined && description === undefined ? [] : [columns(head, 1)]),
    ...(args.length === 0
      ? []
      : [
          columns(
            [
              ['BUILD ARG', 'VALUE', 'DESCRIPTION'],
              ...args.map((arg) => [arg.name, arg.value ?? '', arg.description ?? '']),
            ],
            3,
          ),
        ]),
    ...needs('SECRET', secrets),
    ...needs('SSH', ssh),
  ]
  return parts.map((part) => `${part}\n`).join('')
}

function needs(title: string, list: readonly Need[]): string[] {
  if (list.length === 0) return []
  const rows = list.map(({ name, required }) => [name, required === true ? 'true' : ''])
  return [columns([[title, 'REQUIRED'], ...rows], 3)]
}

/** All columns but the last are padded to the widest cell, as by Go's tabwriter. */
function columns(rows: readonly (readonly string[])[], padding: number): string {
  const last = (rows[0]?.length ?? 1) - 1
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  const cell = (text: string, i: number): string =>
    i === last ? text : text.padEnd((widths[i] ?? 0) + padding)
  return rows.map((row) => `${row.map(cell).join('')}\n`).join('')
}
