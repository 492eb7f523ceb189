/** The system calls that a container may make. Only runtime's own files import this. */
import { compiledFilters } from './compiled.ts'

/** The default filter for this machine's architecture: `struct sock_filter`s. */
export function defaultFilter(): Buffer {
  return Buffer.from(compiledFilters[process.arch === 'arm64' ? 'arm64' : 'amd64'], 'base64')
}
