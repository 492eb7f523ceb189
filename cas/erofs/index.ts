/**
 * The index image of a layer: an EROFS file system that holds the metadata only and points into segments for contents, so that the kernel mounts a layer
 * as it is, without unpacking. Written, never read: the kernel reads it.
 */
export { writeErofs, type ErofsOptions } from './image.ts'
