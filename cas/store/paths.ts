/** Where things are in a store: one directory, one format version. */
import { realpathSync } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../oci.ts'

/** Bumped when an older tbuild could not read the store, or would harm it. Kept in the index as `user_version`. */
export const STORE_VERSION = 2

export interface StorePaths {
  readonly root: string
  /** The index, SQLite in WAL mode. */
  readonly index: string
  /** Configs, manifests and compressed layers, each named for the sha256 of its bytes. */
  readonly blobs: string
  /** Of each layer the recipe, and the index image where the driver has them. */
  readonly layers: string
  /** Contents, many in a file, each with a sidecar that lists them. */
  readonly segments: string
  /** Contents, each a file. */
  readonly objects: string
  /** Layers as directories to mount, where the driver has no better. Made anew from the recipes when they are missing. */
  readonly trees: string
  /** What is remembered of build contexts: digests of their files, and what was copied of them. */
  readonly contexts: string
  /** Directories of RUN --mount=type=cache. */
  readonly cacheMounts: string
  /** A directory for each lease: uppers of running steps, half-written files. */
  readonly work: string
  /** A locked file for each process that uses the store. */
  readonly leases: string
  /** Epochs' locks: the root, where that can be written to. */
  readonly locks: string
}

export function storePaths(path: string): StorePaths {
  const root = withoutLinks(path)
  return {
    root,
    index: join(root, 'index.db'),
    blobs: join(root, 'blobs', 'sha256'),
    layers: join(root, 'layers'),
    segments: join(root, 'segments'),
    objects: join(root, 'objects'),
    trees: join(root, 'trees'),
    contexts: join(root, 'contexts'),
    cacheMounts: join(root, 'cache-mounts'),
    work: join(root, 'work'),
    leases: join(root, 'leases'),
    locks: root,
  }
}

/** What is in a store is counted without following symlinks; the store itself is often behind one. */
function withoutLinks(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    // There is none yet, or whoever opens it is told why not.
    return path
  }
}

export function blobPath(paths: StorePaths, digest: Digest): string {
  return join(paths.blobs, digest.slice('sha256:'.length))
}

export function recipePath(paths: StorePaths, diffId: Digest): string {
  return join(paths.layers, `${diffId.slice('sha256:'.length)}.recipe`)
}

export function segmentPath(paths: StorePaths, segment: number): string {
  return join(paths.segments, String(segment))
}

/** The digests, places and sizes of what is in a segment: makes repair possible when the index is lost. */
export function sidecarPath(paths: StorePaths, segment: number): string {
  return join(paths.segments, `${segment}.list`)
}

/** A content that is a file of its own; `digest` in hex. */
export function objectPath(paths: StorePaths, digest: string): string {
  return join(paths.objects, digest.slice(0, 2), digest.slice(2))
}
