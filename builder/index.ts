/**
 * Dockerfile to image: a plan (graph of steps), cache keys, execution, the image; and the ways of an image in and out (registries,
 * archives). This is where the parser, the runtime and the store meet.
 *
 * May import `dockerfile-parser`, `registry`, `runtime`, `cas` (and `errors.ts`).
 */
export type { BuildEvent, BuildObserver, BuildRequest, BuildResult, Limits, SecretSource } from './types.ts'
export type { ContainerOptions } from './types.ts'
export { build } from './build.ts'
export { contextSpellings } from './contexts.ts'
export { contextAddress, loadContext } from './fetch/address.ts'
export { pullImage, type PullOptions } from './transfer/pull.ts'
export { pushImage, type PushedImage, type PushOptions } from './transfer/push.ts'
export type { LayerProgress, TransferEvent, TransferObserver } from './transfer/types.ts'
export { saveImages, type ImageToSave, type SaveOptions } from './archive/save.ts'
export { loadArchive, type LoadedImage, type LoadOptions } from './archive/load.ts'
export { importTar, type ImportOptions } from './archive/import.ts'
