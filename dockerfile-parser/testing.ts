/** For tests only. */
import { DockerfileError } from './index.ts'

/** What the action returns, or the user's mistake that it reports; any other error is a bug, and thrown. */
export function attempt<T>(action: () => T): T | DockerfileError {
  try {
    return action()
  } catch (error) {
    if (error instanceof DockerfileError) return error
    throw error
  }
}

export function refusal(action: () => unknown): DockerfileError {
  const outcome = attempt(action)
  if (outcome instanceof DockerfileError) return outcome
  throw new Error('it was accepted')
}
