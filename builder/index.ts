/**
 * Dockerfile to image: a plan (graph of steps), cache keys, execution, the image; and the ways of an image in and out (registries,
 * archives). This is where the parser, the runtime and the store meet.
 *
 * May import `dockerfile-parser`, `registry`, `runtime`, `cas` (and `errors.ts`).
 */
export type { BuildEvent, BuildObserver, BuildRequest, BuildResult, Limits } from './types.ts'
