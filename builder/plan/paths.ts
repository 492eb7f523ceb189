/** Paths as instructions give them. */
import type { StageState } from './state.ts'

/** Cleaned, relative to WORKDIR; a `/` at the end stays. */
export function absolute(state: StageState, path: string): string {
  const whole = path.startsWith('/') ? path : `${state.config.WorkingDir || '/'}/${path}`
  const parts: string[] = []
  for (const part of whole.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  const clean = `/${parts.join('/')}`
  return path.endsWith('/') && clean !== '/' ? `${clean}/` : clean
}
