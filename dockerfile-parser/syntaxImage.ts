import { parseImageName } from './imageName.ts'

/**
 * Does `# syntax=` (or BUILDKIT_SYNTAX) mean the language of this parser? So do Docker's own frontend images of version 1, of any
 * channel and copied to any registry under their name. Everything else is another language, which only its image understands.
 */
export function isCompatibleSyntax(value: string): boolean {
  // What follows the first blank are options for the frontend.
  const parsed = parseImageName(value.split(' ', 1)[0]!)
  if (typeof parsed === 'string') return false
  const { name, tag } = parsed
  if (!/\/docker\/dockerfile(?:-upstream)?$/.test(name)) return false
  return tag === undefined || /^(?:latest|labs|master|1(?:[.-].*)?)$/.test(tag)
}
