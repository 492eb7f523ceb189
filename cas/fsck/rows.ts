/** The index as a database: pages and rows. What a row says of files is the other parts' business. */
import type { DiffId } from '../oci.ts'
import type { Database } from '../store/database.ts'
import { midstatesOf } from '../store/midstates.ts'
import type { Affected, Finding, Pass } from './types.ts'

const LARGEST = Number.MAX_SAFE_INTEGER
const U32 = 0xffff_ffff

function digest(column: string): string {
  return `typeof(${column}) = 'text' AND length(${column}) = 71 AND substr(${column}, 1, 7) = 'sha256:' AND substr(${column}, 8) NOT GLOB '*[^0-9a-f]*'`
}
function whole(column: string, least: number, most: number = LARGEST): string {
  return `typeof(${column}) = 'integer' AND ${column} BETWEEN ${least} AND ${most}`
}
function text(column: string): string {
  return `typeof(${column}) = 'text'`
}

/** What is true of every row that tbuild wrote, and what names a row. */
export const VALID = {
  contents: {
    key: 'hex(digest)',
    rule: `typeof(digest) = 'blob' AND length(digest) = 32 AND ${whole('segment', 0, U32)} AND ${whole('block', 0, U32)} AND ${whole('size', 1)}`,
  },
  segments: {
    key: 'id',
    rule: `${whole('id', 1, U32)} AND ${whole('length', 0)} AND length % 512 = 0 AND ${whole('records', 0)}`,
  },
  dead: {
    key: "segment || ' ' || block",
    rule: `${whole('segment', 0, U32)} AND ${whole('block', 0, U32)} AND ${whole('size', 1)}`,
  },
  layers: {
    key: 'diff_id',
    rule: `${digest('diff_id')} AND ${whole('size', 0)} AND (image IS NULL OR ${text('image')})
      AND ${whole('opaque_root', 0, 1)} AND ${whole('has_root', 0, 1)} AND ${whole('stored_at', 0)} AND ${whole('used_at', 0)}`,
  },
  layer_segments: {
    key: "diff_id || ' ' || device",
    rule: `${digest('diff_id')} AND ${whole('device', 1, U32)} AND ${whole('segment', 1, U32)}`,
  },
  blobs: { key: 'digest', rule: `${digest('digest')} AND ${whole('size', 0)}` },
  images: {
    key: 'manifest',
    rule: `${digest('manifest')} AND ${digest('config')} AND ${whole('stored_at', 0)}`,
  },
  image_layers: { key: "manifest || ' ' || diff_id", rule: `${digest('manifest')} AND ${digest('diff_id')}` },
  names: { key: 'name', rule: `${text('name')} AND ${digest('manifest')}` },
  compressed: {
    key: "diff_id || ' ' || digest",
    rule: `${digest('diff_id')} AND ${digest('digest')} AND ${text('descriptor')}
      AND CASE WHEN json_valid(descriptor) THEN json_extract(descriptor, '$.digest') IS digest ELSE 0 END`,
  },
  origins: { key: "digest || ' ' || repository", rule: `${digest('digest')} AND ${text('repository')}` },
  steps: {
    key: 'key',
    rule: `${text('key')} AND ${digest('diff_id')} AND ${text('created')} AND ${text('title')} AND ${text('components')}
      AND json_valid(components) AND ${whole('used_at', 0)}`,
  },
  aliases: { key: 'cheap', rule: `${text('cheap')} AND ${text('value')}` },
  builds: { key: 'key', rule: `${text('key')} AND ${digest('manifest')}` },
  midstates: {
    key: 'diff_id',
    rule: `${digest('diff_id')} AND typeof(packed) = 'blob' AND length(packed) % 72 = 4`,
  },
  trees: { key: 'diff_id', rule: `${digest('diff_id')} AND ${text('name')} AND ${text('boot')}` },
} as const satisfies Record<string, { readonly key: string; readonly rule: string }>

export type TableName = keyof typeof VALID

/** SQLite's own check of its pages; the first lines of what it says, none when all is well. */
export function databaseDamage(db: Database, quick: boolean): string[] {
  return db
    .all(quick ? 'PRAGMA quick_check(10)' : 'PRAGMA integrity_check(10)')
    .map((row) => String(Object.values(row)[0]))
    .filter((line) => line !== 'ok')
}

export function checkRows({ context: { db }, quick, findings }: Pass): void {
  for (const line of databaseDamage(db, quick)) {
    findings.push(indexDamage(`SQLite finds the index damaged: ${line}.`))
  }
  for (const [table, { key, rule }] of Object.entries(VALID)) {
    for (const row of db.all(`SELECT CAST(${key} AS TEXT) AS key FROM ${table} WHERE NOT (${rule})`)) {
      findings.push(invalid(db, table as TableName, String(row['key'])))
    }
  }
  for (const row of db.all(`SELECT diff_id FROM midstates WHERE ${VALID.midstates.rule}`)) {
    const diffId = String(row['diff_id']) as DiffId
    if (midstatesOf(db, diffId).length === 0) findings.push(wrongMidstates(db, diffId))
  }
}

export function wrongMidstates(db: Database, diffId: DiffId): Finding {
  return {
    ...invalid(db, 'midstates', diffId),
    mend: () => void db.run('DELETE FROM midstates WHERE diff_id = ?', diffId),
  }
}

export function indexDamage(what: string): Finding {
  return {
    code: 'INDEX_DAMAGED',
    what,
    where: 'index.db',
    repair: 'make the index anew from the files of the store (tbuild fsck --repair does it first)',
    affects: {},
  }
}

function invalid(db: Database, table: TableName, row: string): Finding {
  const { rule } = VALID[table]
  return {
    code: 'ROW_INVALID',
    what: `The index has a row in ${table} that means nothing.`,
    where: `index.db: ${table} ${row}`,
    repair: 'remove the row, and find out from the files what it said',
    affects: affectedBy(table, row),
    mend: () => void db.run(`DELETE FROM ${table} WHERE NOT (${rule})`),
  }
}

function affectedBy(table: TableName, row: string): Affected {
  const [first = ''] = row.split(' ')
  if (table === 'contents') return { content: first.toLowerCase() }
  if (table === 'layers' || table === 'layer_segments') return { layer: first as never }
  if (table === 'blobs') return { blob: first as never }
  if (table === 'images' || table === 'image_layers') return { manifest: first as never }
  return {}
}
