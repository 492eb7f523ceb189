import type { Credentials } from './credentials.ts'
import type { RetryEvent } from './transport.ts'

/** How to reach a registry. All times in milliseconds. */
export interface RegistryOptions {
  /** Default: what `loadCredentials` finds, looked up when the registry asks who we are. */
  readonly credentials?: Credentials
  /** Allows plain http, and https whose certificate is not verified, to the registry's own host. */
  readonly insecure?: boolean
  /** PEM; trusted besides the usual roots. */
  readonly ca?: string
  /** Default `/etc/docker/certs.d`. */
  readonly certsDirectory?: string
  readonly signal?: AbortSignal
  readonly userAgent?: string
  /** Called before each wait. */
  readonly onRetry?: (event: RetryEvent) => void
  /** How often a request is tried again after 429, 5xx or a lost connection; default 4. */
  readonly retries?: number
  /** Before the first retry; doubles each time. Default 500. */
  readonly retryDelay?: number
  /** No wait is longer, whatever Retry-After says. Default 30,000. */
  readonly maxRetryDelay?: number
  readonly timeouts?: {
    /** Until a connection stands; default 15,000. */
    readonly connect?: number
    /** From the end of the request to the answer's headers; default 120,000 (a registry hashes a large blob then). */
    readonly headers?: number
    /** Between two pieces of a body; default 60,000. */
    readonly body?: number
  }
}
