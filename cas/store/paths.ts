/** Where things are in a store: one directory, one format version. */
import { join } from 'node:path'
import type { Digest } from '../oci.ts'

/** Bumped when an older tbuild could not read the store, or would harm it. Kept in the index as `user_version`. */
export const STORE_VERSION = 1

export interface StorePaths {
  readonly root: string
  /** The index, SQLite in WAL mode. */
  readonly index: string
  /** Configs, manifests, layer tars and compressed layers, each named for the sha256 of its bytes. */
  readonly blobs: string
  /** Layers as directories, in overlayfs form. Made anew from the tars when they are missing. */
  readonly layers: string
  /** A directory for each lease: uppers of running steps, half-written files. */
  readonly work: string
  /** A locked file for each process that uses the store. */
  readonly leases: string
}

export function storePaths(root: string): StorePaths {
  return {
    root,
    index: join(root, 'index.db'),
    blobs: join(root, 'blobs', 'sha256'),
    layers: join(root, 'layers'),
    work: join(root, 'work'),
    leases: join(root, 'leases'),
  }
}

export function blobPath(paths: StorePaths, digest: Digest): string {
  return join(paths.blobs, digest.slice('sha256:'.length))
}
