/** JSON that anybody may have written. */

/** As Go's encoding/json. Deeper nesting takes a hundred times its bytes, and means nothing. */
const MOST_DEPTH = 10_000

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** Brackets and braces. */
const OPENING = new Set([0x5b, 0x7b])
const CLOSING = new Set([0x5d, 0x7d])

/** UTF-8 without a byte order mark, which Go refuses as well. Throws an error that says no more than that it is no JSON. */
export function parseJson(bytes: Uint8Array): unknown {
  if (depthOf(bytes) > MOST_DEPTH) throw new SyntaxError('JSON is nested too deeply')
  return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
}

/** Of what is no JSON any number. */
function depthOf(bytes: Uint8Array): number {
  let depth = 0
  let deepest = 0
  let isText = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0
    if (isText) {
      if (byte === BACKSLASH) at++
      else if (byte === QUOTE) isText = false
    } else if (byte === QUOTE) isText = true
    else if (OPENING.has(byte)) deepest = Math.max(deepest, ++depth)
    else if (CLOSING.has(byte)) depth--
  }
  return deepest
}
